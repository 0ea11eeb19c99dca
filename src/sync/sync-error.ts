import { AppError } from "../http/problem.ts";

/** What the sync service refuses over its socket, and says where it cannot start. */
export type SyncErrorCode = "mirror-unknown" | "mirror-elsewhere" | "project-unreachable";

export class SyncError extends AppError<SyncErrorCode> {}

export const syncStatusOf = {
  "mirror-unknown": 400,
  "mirror-elsewhere": 409,
  "project-unreachable": 503,
} satisfies Record<SyncErrorCode, number>;
