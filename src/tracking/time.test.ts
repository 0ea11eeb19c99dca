import assert from "node:assert/strict";
import { test } from "node:test";
import { parseTime, timeOf } from "./time.ts";

const at = (text: string) => Date.parse(text);

test("times are read as devices write them", () => {
  const cases: [string, string][] = [
    ["2025-06-15T13:45:12.862Z", "2025-06-15T13:45:12.862Z"],
    ["2015-10-01T08:00:00-0700", "2015-10-01T15:00:00Z"],
    ["2023-01-11 19:41:00+02:00", "2023-01-11T17:41:00Z"],
    ["2019-05-10 09:01:39.000", "2019-05-10T09:01:39Z"],
    ["2020-11-19T00:00:00.123456789Z", "2020-11-19T00:00:00.123Z"],
    ["2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"],
    ["2020-02-29T00:00Z", "2020-02-29T00:00:00Z"],
    ["1901-01-01T00:00:00Z", "1901-01-01T00:00:00Z"],
  ];
  for (const [text, meant] of cases) assert.equal(parseTime(text, "utc"), at(meant), text);
});

test("what is no time is not guessed at", () => {
  const wrong = [
    "",
    "1",
    "yesterday",
    "2019-02-30T00:00:00Z",
    "2019-13-01T00:00:00Z",
    "2019-01-01T24:00:00Z",
    "2019-01-01T00:00:00+24:00",
    "2019-01-01T00:00:00-01:60",
  ];
  for (const text of [
    ...wrong,
    "2019-01-01",
    "10/05/2019 09:01",
    "2019-01-01T00:61:00Z",
    "2019-1-1T0:0:0Z",
  ]) {
    assert.equal(parseTime(text, "utc"), Number.NaN, text);
  }
  assert.equal(parseTime("2019-01-01T00:00:00", "invalid"), Number.NaN);
  assert.equal(timeOf(true), Number.NaN);
  assert.equal(timeOf(null), undefined);
});

test("numbers are epoch seconds or milliseconds", () => {
  assert.equal(timeOf(1_504_763_810), at("2017-09-07T05:56:50Z"));
  assert.equal(timeOf(1_504_763_810_123), at("2017-09-07T05:56:50.123Z"));
});
