import assert from "node:assert/strict";
import { test } from "node:test";
import { distanceM } from "../tracking/geodesy.ts";
import { coarsen } from "./coarsen.ts";

const at = (lat: number, lon: number, accuracy: number | null = null) => ({
  lat,
  lon,
  altitude_m: 812.4 as number | null,
  accuracy_m: accuracy,
  outlier: null as string | null,
  segment: "Bear Creek" as string | null,
  attributes: { ssid: "camp" } as unknown,
  speed_mps: 1.5 as number | null,
  heading_deg: 270 as number | null,
  battery: 0.9,
});

test("a position moves by half a diagonal of the grid's mesh at most, anywhere on earth", () => {
  for (const lat of [-89.99, -60.2, -0.3, 0, 12.3456, 51.9, 78.123, 89.999]) {
    for (const lon of [-180, -179.99, -0.001, 0, 4.56789, 120.5, 179.999]) {
      const coarse = coarsen(at(lat, lon), 1_000);
      const moved = distanceM({ lat, lon }, coarse);
      assert.ok(moved <= 1_000 * Math.SQRT1_2 + 1, `${lat} ${lon} moved ${moved} m`);
    }
  }
});

test("positions of one mesh become one, and a second rounding changes nothing", () => {
  const [one, other] = [coarsen(at(51.90001, 4.50001), 1_000), coarsen(at(51.90012, 4.50023), 1_000)];
  assert.deepEqual(one, other);
  assert.deepEqual(coarsen(one, 1_000), one);
});

test("the accuracy is the grid's at least, what may tell more of the place is left out, the rest stays", () => {
  const { accuracy_m, altitude_m, speed_mps, heading_deg, segment, attributes, battery } = coarsen(
    at(1, 2, 5),
    500,
  );
  assert.deepEqual([altitude_m, speed_mps, heading_deg, segment, attributes], Array(5).fill(null));
  assert.deepEqual([accuracy_m, battery], [500, 0.9]);
  assert.equal(coarsen(at(1, 2, 900), 500).accuracy_m, 900);
});

test("an outlier stays one, without the words for it, and a good fix a good one", () => {
  assert.equal(coarsen({ ...at(1, 2), outlier: "10 km from the den" }, 500).outlier, "outlier");
  assert.equal(coarsen(at(1, 2), 500).outlier, null);
});
