import type { TimeRange } from "../store/tracks.ts";
import { parseTime } from "../tracking/time.ts";
import { ApiError } from "./api-error.ts";

/** The range of a query's `from` and `to`. Throws `ApiError` `range-invalid`. */
export function rangeOf(query: {
  readonly from?: string | undefined;
  readonly to?: string | undefined;
}): TimeRange {
  const from = query.from === undefined ? undefined : timeOf(query.from);
  const to = query.to === undefined ? undefined : timeOf(query.to);
  if (from !== undefined && to !== undefined && from > to) {
    throw new ApiError("range-invalid", "from is after to.");
  }
  return { from, to };
}

/** Epoch milliseconds. Throws `ApiError` `range-invalid`. */
export function timeOf(text: string): number {
  const time = parseTime(text, "invalid");
  if (Number.isNaN(time)) throw new ApiError("range-invalid", "A time is not RFC 3339 with a zone.");
  return time;
}
