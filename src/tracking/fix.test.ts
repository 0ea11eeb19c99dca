import assert from "node:assert/strict";
import { test } from "node:test";
import { checkFix, isRejection, type RawFix, type RejectionCode, readReportedFix } from "./fix.ts";

const now = Date.parse("2026-11-22T12:00:00Z");
const good: RawFix = { device: "5750", time: Date.parse("2019-05-10T09:01:39Z"), lat: 53, lon: 6.5 };

function codeOf(change: RawFix): RejectionCode | undefined {
  const checked = checkFix({ ...good, ...change }, now);
  return isRejection(checked) ? checked.code : undefined;
}

function nested(levels: number): object {
  let value: object = {};
  for (let level = 0; level < levels; level += 1) value = { value };
  return value;
}

test("each thing that is wrong with a fix has its code", () => {
  const cases: [RawFix, RejectionCode][] = [
    [{ device: undefined }, "device-missing"],
    [{ device: "  " }, "device-missing"],
    [{ device: {} }, "value-invalid"],
    [{ device: "x".repeat(201) }, "text-too-long"],
    [{ device: "a\0b" }, "text-invalid"],
    [{ device: "\ud800" }, "text-invalid"],
    [{ time: undefined }, "time-missing"],
    [{ time: Number.NaN }, "time-invalid"],
    [{ time: Number.POSITIVE_INFINITY }, "time-invalid"],
    [{ time: -1 }, "time-too-early"],
    [{ time: now + 86_400_001 }, "time-in-future"],
    [{ lat: null }, "coordinates-missing"],
    [{ lon: undefined }, "coordinates-missing"],
    [{ lat: "53" }, "value-invalid"],
    [{ lat: [53] }, "value-invalid"],
    [{ lat: Number.NaN }, "value-invalid"],
    [{ lat: 90.000001 }, "latitude-out-of-range"],
    [{ lat: Number.NEGATIVE_INFINITY }, "latitude-out-of-range"],
    [{ lon: 1e308 }, "longitude-out-of-range"],
    [{ speedMps: -1 }, "value-invalid"],
    [{ speedMps: "4" }, "value-invalid"],
    [{ battery: 75 }, "value-invalid"],
    [{ headingDeg: Number.NaN }, "value-invalid"],
    [{ attributes: [] }, "value-invalid"],
    [{ attributes: { note: "a\0b" } }, "text-invalid"],
    [{ attributes: { note: "\udc00" } }, "text-invalid"],
    [{ attributes: { note: "x".repeat(9000) } }, "attributes-too-large"],
    [{ attributes: nested(9) }, "attributes-too-large"],
    [{ attributes: nested(100_000) }, "attributes-too-large"],
  ];
  for (const [change, code] of cases) assert.equal(codeOf(change), code, code);
});

test("the edges of what is allowed are allowed", () => {
  const cases: RawFix[] = [
    { lat: -90, lon: 180 },
    { lat: 0, lon: 0 },
    { time: 0 },
    { time: now + 86_400_000 },
    { attributes: nested(7) },
    { attributes: { path: "C:\\u0000" } },
    { device: 5750 },
    { altitudeM: null, battery: null },
  ];
  for (const change of cases) assert.equal(codeOf(change), undefined, JSON.stringify(change));
});

test("nothing unknown becomes a zero", () => {
  const fix = checkFix({ ...good, altitudeM: null, attributes: {} }, now);
  assert.ok(!isRejection(fix));
  assert.equal(fix.altitudeM, undefined);
  assert.equal(fix.speedMps, undefined);
  assert.equal(fix.attributesJson, undefined);
});

test("a fix that passed its check passes again as JSON, and one that was changed since does not", () => {
  const raw = { device: "a", time: 1_000, lat: 1, lon: 2, battery: 0.5, attributes: { hdop: 2, ä: "\\" } };
  const fix = checkFix(raw, now);
  const read = (change: object) => readReportedFix({ ...JSON.parse(JSON.stringify(fix)), ...change }, now);
  assert.deepEqual(JSON.parse(JSON.stringify(read({}))), JSON.parse(JSON.stringify(fix)));
  for (const change of [{ lat: 91 }, { device: 7.5 }, { attributesJson: "{" }, { attributesJson: "[1]" }])
    assert.ok(isRejection(read(change)), JSON.stringify(change));
  for (const item of [null, "text", 7, []]) assert.ok(isRejection(readReportedFix(item, now)));
});
