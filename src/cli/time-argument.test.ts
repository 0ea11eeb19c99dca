import assert from "node:assert/strict";
import { test } from "node:test";
import { parseTime } from "./time-argument.ts";

const now = Date.parse("2026-11-22T12:00:00Z");

test("how long ago is a time", () => {
  assert.equal(parseTime("30s", now), now - 30_000);
  assert.equal(parseTime("10m", now), now - 600_000);
  assert.equal(parseTime("1.5h", now), now - 5_400_000);
  assert.equal(parseTime("2d", now), now - 172_800_000);
  assert.equal(parseTime("1w", now), now - 604_800_000);
});

test("a date is midnight here, a time without a zone is one here", () => {
  assert.equal(parseTime("2026-11-22T10:00:00.5Z", now), Date.UTC(2026, 10, 22, 10, 0, 0, 500));
  assert.equal(parseTime("2026-11-22T10:00:00+02:00", now), Date.UTC(2026, 10, 22, 8));
  assert.equal(parseTime("2026-11-22", now), new Date(2026, 10, 22).getTime());
  assert.equal(parseTime("2026-11-22 10:30", now), new Date(2026, 10, 22, 10, 30).getTime());
});

test("what is no time is none", () => {
  for (const text of ["", "10", "m", "-5m", "yesterday", "2026-13-01", "10 m", "22.11.2026"])
    assert.equal(parseTime(text, now), null, text);
});
