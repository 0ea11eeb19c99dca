/** What can go wrong with the manager itself; a service's own troubles are its `state` and `reason`. */
export type ProcessManagerErrorCode =
  | "definition-invalid"
  | "service-unknown"
  | "service-external"
  | "home-held"
  | "home-unusable"
  | "port-taken"
  | "start-failed"
  | "restart-failed"
  | "manager-stopping"
  | "not-running"
  | "request-invalid"
  | "control-failed";

/** An error of the process manager, with a stable `code` that callers and the control API rely on. */
export class ProcessManagerError extends Error {
  readonly code: ProcessManagerErrorCode;

  constructor(code: ProcessManagerErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "ProcessManagerError";
    this.code = code;
  }
}

/** The text of anything thrown, for a reason that people read. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The system's error code (`ENOENT`), or an empty string. */
export function systemCodeOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
}
