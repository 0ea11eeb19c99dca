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
