import { AppError } from "../http/problem.ts";

/** What the sync service refuses over its socket, and says where it cannot start. */
export type SyncErrorCode =
  | "mirror-unknown"
  | "mirror-elsewhere"
  | "project-unreachable"
  | "device-invalid"
  | "device-key-unknown";

export class SyncError extends AppError<SyncErrorCode> {}

export const syncStatusOf = {
  "mirror-unknown": 400,
  "mirror-elsewhere": 409,
  "project-unreachable": 503,
  "device-invalid": 400,
  "device-key-unknown": 404,
} satisfies Record<SyncErrorCode, number>;

/** Why this process does not do the work: there is none, or another one does it. */
export function mirrorElsewhere(state: "own" | "standby", what: "mirror" | "fetch"): SyncError {
  return new SyncError(
    "mirror-elsewhere",
    state === "own"
      ? `SUPABASE_URL is this station's own database: there is nothing to ${what}.`
      : "Another station process works on this database's mirror; ask that one.",
  );
}
