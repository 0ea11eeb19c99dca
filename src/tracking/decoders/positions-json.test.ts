import assert from "node:assert/strict";
import { test } from "node:test";
import { isRejection } from "../fix.ts";
import { decodeItem, itemsOf } from "./positions-json.ts";

const now = Date.parse("2026-11-22T12:00:00Z");

function decode(item: unknown) {
  const decoded = decodeItem(item, now);
  return isRejection(decoded) ? decoded.code : decoded;
}

test("the native form keeps every value, and unknown names as attributes", () => {
  const item = {
    ...{ device: "5750", time: "2019-05-10T09:01:39Z", lat: 53.0011393, lon: 6.5930217, altitude_m: -16 },
    ...{ accuracy_m: 23.8, speed_mps: 0.19, heading_deg: 360, battery: 0.5, outlier: true, segment: "1" },
    ...{ subject: "5515867", species: "Haematopus ostralegus", attributes: { dop: 2.9 }, mood: "good" },
  };
  assert.deepEqual(decode(item), {
    ...{ device: "5750", time: Date.parse("2019-05-10T09:01:39Z"), lat: 53.0011393, lon: 6.5930217 },
    ...{ altitudeM: -16, accuracyM: 23.8, speedMps: 0.19, headingDeg: 0, battery: 0.5 },
    ...{
      outlier: "marked by the sender",
      segment: "1",
      subject: "5515867",
      species: "Haematopus ostralegus",
    },
    attributesJson: '{"mood":"good","dop":2.9}',
  });
});

test("an EarthRanger observation is read", () => {
  const fix = decode({
    ...{ manufacturer_id: "018910980", source_type: "tracking-device", subject_name: "Test Truck" },
    ...{ recorded_at: "2023-01-11 19:41:00+02:00", location: { lon: 35.43903, lat: -1.59083 } },
    additional: { voltage: "7.4" },
  });
  assert.ok(typeof fix === "object");
  assert.deepEqual(
    [fix.device, fix.subject, fix.lat, fix.lon],
    ["018910980", "Test Truck", -1.59083, 35.43903],
  );
  assert.equal(fix.time, Date.parse("2023-01-11T17:41:00Z"));
  assert.equal(fix.attributesJson, '{"source_type":"tracking-device","voltage":"7.4"}');
});

test("a program's mistake shows instead of being mended", () => {
  const good = { device: "a", time: "2024-01-01T00:00:00Z", lat: 1, lon: 2 };
  assert.equal(decode({ ...good, lat: "1" }), "value-invalid");
  assert.equal(decode({ ...good, speed: -1 }), "value-invalid");
  assert.equal(decode({ ...good, time: "2024-01-01T00:00:00" }), "time-invalid");
  assert.equal(decode({ ...good, lat: null }), "coordinates-missing");
  assert.equal(decode({ ...good, attributes: "x" }), "value-invalid");
  assert.equal(decode([good]), "item-invalid");
  assert.equal(decode(null), "item-invalid");
});

test("a GeoJSON feature is read as phones send it", () => {
  const feature = {
    type: "Feature",
    geometry: { type: "Point", coordinates: [-122.030581, 37.3318, 12] },
    properties: {
      ...{ timestamp: "2015-10-01T08:00:00-0700", speed: 4, course: -1, horizontal_accuracy: 30 },
      ...{ battery_level: 0.8, device_id: "phone", motion: ["driving"], wifi: "" },
    },
  };
  const fix = decode(feature);
  assert.ok(typeof fix === "object");
  assert.deepEqual([fix.lat, fix.lon, fix.altitudeM, fix.headingDeg], [37.3318, -122.030581, 12, undefined]);
  assert.equal(fix.time, Date.parse("2015-10-01T15:00:00Z"));
  assert.equal(fix.attributesJson, '{"motion":["driving"],"wifi":""}');
  assert.equal(decode({ ...feature, geometry: null }), "coordinates-missing");
  assert.equal(
    decode({ ...feature, geometry: { type: "LineString", coordinates: [] } }),
    "geometry-unsupported",
  );
  assert.equal(decode({ ...feature, geometry: { type: "Point", coordinates: [[1], 2] } }), "value-invalid");
});

test("a body is one position, several, or a collection, and nothing else", () => {
  assert.equal(itemsOf([1, 2])?.length, 2);
  assert.equal(itemsOf({ device: "a" })?.length, 1);
  assert.equal(itemsOf({ type: "FeatureCollection", features: [] })?.length, 0);
  for (const body of [{ type: "FeatureCollection" }, null, "x", 3, true, undefined]) {
    assert.equal(itemsOf(body), undefined);
  }
});
