import { AppError } from "../http/problem.ts";
import { storeStatusOf } from "../store/errors.ts";
import type { RejectionCode } from "../tracking/fix.ts";

/** What the API adds to the failures that any server here can answer with. */
export type ApiErrorCode =
  | "body-unrecognised"
  | "too-many-positions"
  | "device-unknown"
  | "subject-unknown"
  | "photo-unknown"
  | "photo-elsewhere"
  | "photo-unrecognised"
  | "cursor-invalid"
  | "range-invalid"
  | "manager-away"
  | "supabase-unset"
  | "project-away"
  | "function-unknown"
  | "function-refused"
  | "function-failed";

/** A failure of a request; a report of one position is refused under the code of what is wrong with it. */
export class ApiError extends AppError<ApiErrorCode | RejectionCode> {}

const apiStatusOf = {
  "body-unrecognised": 400,
  "too-many-positions": 413,
  "device-unknown": 404,
  "subject-unknown": 404,
  "photo-unknown": 404,
  "photo-elsewhere": 404,
  "photo-unrecognised": 415,
  "cursor-invalid": 400,
  "range-invalid": 400,
  "manager-away": 503,
  "supabase-unset": 409,
  "project-away": 503,
  "function-unknown": 404,
  "function-refused": 422,
  "function-failed": 502,
} satisfies Record<ApiErrorCode, number>;

const rejectionStatusOf = {
  "item-invalid": 400,
  "geometry-unsupported": 400,
  "device-missing": 400,
  "time-missing": 400,
  "time-invalid": 400,
  "time-too-early": 400,
  "time-in-future": 400,
  "coordinates-missing": 400,
  "latitude-out-of-range": 400,
  "longitude-out-of-range": 400,
  "value-invalid": 400,
  "text-invalid": 400,
  "text-too-long": 400,
  "attributes-too-large": 400,
} satisfies Record<RejectionCode, number>;

/** Status of every code that the API can answer with besides the common ones. */
export const statusOf: Readonly<Record<string, number>> = {
  ...storeStatusOf,
  ...apiStatusOf,
  ...rejectionStatusOf,
};
