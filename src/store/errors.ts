export type StoreErrorCode =
  | "database-away"
  | "store-busy"
  | "journal-unwritable"
  | "photo-unwritable"
  | "migration-changed"
  | "migration-missing"
  | "migration-failed";

/** What can go wrong with the store as such. `fatal` is true where trying again cannot help. */
export class StoreError extends Error {
  override readonly name = "StoreError";
  readonly code: StoreErrorCode;
  readonly fatal: boolean;
  readonly retryAfterS = 1;

  constructor(code: StoreErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.fatal = code === "migration-changed" || code === "migration-missing";
  }
}

/** Status of each code, for the servers that answer with it. */
export const storeStatusOf = {
  "database-away": 503,
  "store-busy": 503,
  "journal-unwritable": 503,
  "photo-unwritable": 503,
  "migration-changed": 500,
  "migration-missing": 500,
  "migration-failed": 500,
} satisfies Record<StoreErrorCode, number>;

/** Why a file cannot be written, in words that may be shown: an error of the system would name the path. */
export function diskTrouble(cause: unknown): string {
  const { code } = cause as NodeJS.ErrnoException;
  if (code === "ENOSPC" || code === "EDQUOT") return "the disk is full";
  return `the disk refuses to be written${code ? ` (${code})` : ""}`;
}

/**
 * True for an error that says the database cannot be reached or is going down, whatever was asked of it:
 * the same statement can succeed later. Classes by SQLSTATE, https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
export function isConnectionError(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = "code" in error ? String(error.code) : "";
  if (/^(08|57P0|53)/.test(code)) return true;
  if (/^E(CONN|PIPE|TIMEDOUT|HOST|NET|NOTFOUND|AI_AGAIN)/.test(code)) return true;
  return /Connection terminated|timeout exceeded when trying to connect|Client has encountered a connection error/.test(
    error.message,
  );
}
