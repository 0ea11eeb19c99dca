import assert from "node:assert/strict";
import { test } from "node:test";
import { bearingDeg, distanceM, earthRadiusM } from "./geodesy.ts";
import { trackSummary } from "./track-summary.ts";

const fix = (s: number, lat: number, lon: number, more: { outlier?: string; segment?: string } = {}) => ({
  device: "d",
  time: s * 1000,
  lat,
  lon,
  ...more,
});

test("a degree along the equator is a 360th of the way round", () => {
  const degree = (2 * Math.PI * earthRadiusM) / 360;
  assert.ok(Math.abs(distanceM({ lat: 0, lon: 179.5 }, { lat: 0, lon: -179.5 }) - degree) < 1e-6);
  assert.ok(Math.abs(distanceM({ lat: 90, lon: 0 }, { lat: -90, lon: 77 }) - 180 * degree) < 1e-6);
  assert.equal(distanceM({ lat: 1, lon: 1 }, { lat: 1, lon: 1 }), 0);
});

test("bearings run clockwise from north", () => {
  const here = { lat: 0, lon: 0 };
  const around = [bearingDeg(here, { lat: 1, lon: 0 }), bearingDeg(here, { lat: 0, lon: 1 })];
  assert.deepEqual(
    [...around, bearingDeg(here, { lat: -1, lon: 0 }), bearingDeg(here, { lat: 0, lon: -1 })],
    [0, 90, 180, 270],
  );
});

test("the way between two segments is not travelled", () => {
  const a = { segment: "a" };
  const b = { segment: "b" };
  const track = [fix(0, 0, 0, a), fix(10, 0, 0.001, a), fix(20, 5, 5, b), fix(30, 5, 5.001, b)];
  const summary = trackSummary(track);
  assert.ok(summary.distanceM < 250);
  assert.equal(summary.fixes, 4);
  assert.equal(summary.meanSpeedMps, summary.distanceM / 20);
});

test("outliers are left out and counted, unless they are asked for", () => {
  const track = [fix(0, 0, 0), fix(10, 40, 40, { outlier: "not visible" }), fix(20, 0, 0.001)];
  const without = trackSummary(track);
  assert.equal(without.fixes, 2);
  assert.equal(without.outliersLeftOut, 1);
  assert.ok((without.fastest?.speedMps ?? 99) < 10);
  const whole = trackSummary(track, { includeOutliers: true });
  assert.equal(whole.outliersLeftOut, 0);
  assert.ok((whole.fastest?.speedMps ?? 0) > 100_000);
  assert.equal(whole.fastest?.from, 0);
});

test("a track over the antimeridian has a narrow box", () => {
  const { box } = trackSummary([fix(0, -17, 179), fix(10, -16, -179), fix(20, -18, 178)]);
  assert.deepEqual(box, { west: 178, south: -18, east: -179, north: -16 });
});

test("an empty track has no extent, and one fix no speed", () => {
  assert.deepEqual(trackSummary([]), {
    fixes: 0,
    outliersLeftOut: 0,
    firstAt: null,
    lastAt: null,
    spanS: 0,
    distanceM: 0,
    meanSpeedMps: null,
    fastest: null,
    box: null,
  });
  assert.equal(trackSummary([fix(5, 1, 2)]).meanSpeedMps, null);
});
