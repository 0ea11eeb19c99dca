import assert from "node:assert/strict";
import { test } from "node:test";
import { type Verdict, verdictOf } from "./verdict.ts";

const answers: readonly [status: number, code: string, message: string, verdict: Verdict][] = [
  [0, "", "TypeError: fetch failed", "wait"],
  [0, "", "AbortError: This operation was aborted", "wait"],
  [200, "", "TypeError: terminated", "wait"],
  [408, "", "", "wait"],
  [429, "", "", "wait"],
  [500, "SUP", "write EPIPE", "wait"],
  [500, "57014", "canceling statement due to statement timeout", "wait"],
  [502, "", "<html>Bad gateway</html>", "wait"],
  [503, "PGRST001", "Database connection error", "wait"],
  [540, "", "Project paused", "wait"],
  [401, "", "Invalid API key", "alarm"],
  [402, "", "exceed_egress_quota", "alarm"],
  [403, "42501", "permission denied for table positions", "alarm"],
  [404, "PGRST205", "Could not find the table", "alarm"],
  [400, "PGRST204", "Could not find the column", "alarm"],
  [405, "25006", "cannot execute INSERT in a read-only transaction", "alarm"],
  [406, "", "Not acceptable", "alarm"],
  [
    400,
    "42P10",
    "there is no unique or exclusion constraint matching the ON CONFLICT specification",
    "alarm",
  ],
  [500, "53100", "could not extend file: No space left on device", "wait"],
  [409, "FAULT409", "made up", "refused"],
  [400, "PGRST102", "Empty or invalid json", "refused"],
  [400, "P0001", "raised by a trigger", "refused"],
  [409, "23505", "duplicate key value violates unique constraint", "refused"],
  [400, "23514", "violates check constraint", "refused"],
  [413, "", "Payload too large", "refused"],
  [400, "22P02", "invalid input syntax", "refused"],
  [500, "SUP", 'new row violates check constraint "positions_lat_check"', "refused"],
  [500, "SUP", 'no partition of relation "positions" found for row', "refused"],
];

for (const [status, code, message, verdict] of answers) {
  test(`${status} ${code} ${message} means: ${verdict}`, () => {
    assert.equal(verdictOf({ status, error: { code, message } }), verdict);
  });
}

test("an answer without an error means that it is done", () => {
  assert.equal(verdictOf({ status: 201, error: null }), "done");
});
