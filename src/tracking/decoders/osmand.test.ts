import assert from "node:assert/strict";
import { test } from "node:test";
import { isRejection, type ReportedFix } from "../fix.ts";
import { decodeOsmand, decodeTraccarJson, nothingToStore } from "./osmand.ts";

const now = Date.parse("2026-11-22T12:00:00.500Z");

function query(text: string): Record<string, string> {
  return Object.fromEntries(new URLSearchParams(text));
}

function fixOf(decoded: ReturnType<typeof decodeOsmand>): ReportedFix {
  assert.ok(decoded !== nothingToStore && !isRejection(decoded), JSON.stringify(decoded));
  return decoded;
}

function codeOf(decoded: ReturnType<typeof decodeOsmand>): string {
  assert.ok(decoded !== nothingToStore && isRejection(decoded), JSON.stringify(decoded));
  return decoded.code;
}

test("a report of Traccar's own documentation is read with our units", () => {
  const fix = fixOf(
    decodeOsmand(
      query(
        "id=123456789012345&timestamp=1504763810&lat=40.7232948571&lon=-74.0061408571&bearing=7.19&speed=40" +
          "&altitude=35&accuracy=10&hdop=0.8&batt=75&ignition=true&rpm=933&driverUniqueId=0012",
      ),
      now,
    ),
  );
  assert.equal(fix.device, "123456789012345");
  assert.equal(fix.time, Date.parse("2017-09-07T05:56:50Z"));
  assert.deepEqual([fix.lat, fix.lon, fix.altitudeM, fix.accuracyM], [40.7232948571, -74.0061408571, 35, 10]);
  assert.ok(Math.abs((fix.speedMps ?? 0) - 20.5778) < 1e-4);
  assert.deepEqual([fix.headingDeg, fix.battery], [7.19, 0.75]);
  assert.deepEqual(JSON.parse(fix.attributesJson ?? ""), {
    hdop: 0.8,
    ignition: true,
    rpm: 933,
    driverUniqueId: "0012",
  });
});

test("every form of the time is read", () => {
  const cases: [string, string][] = [
    ["1504763810", "2017-09-07T05:56:50Z"],
    ["1504763810123", "2017-09-07T05:56:50.123Z"],
    ["1504763810.5", "2017-09-07T05:56:50.500Z"],
    ["2017-09-07T05:56:50Z", "2017-09-07T05:56:50Z"],
    ["2017-09-07 05:56:50", "2017-09-07T05:56:50Z"],
    // The + was not escaped and has become a space.
    ["2017-09-07T07:56:50 02:00", "2017-09-07T05:56:50Z"],
  ];
  for (const [timestamp, meant] of cases) {
    assert.equal(
      fixOf(decodeOsmand({ id: "a", lat: "1", lon: "2", timestamp }, now)).time,
      Date.parse(meant),
    );
  }
  assert.equal(fixOf(decodeOsmand({ id: "a", lat: "1", lon: "2" }, now)).time, now);
});

test("other names for the same are understood", () => {
  const fix = fixOf(
    decodeOsmand({ deviceid: "a", location: "-1.5,36.8", heading: "90", speed_mps: "3", valid: "0" }, now),
  );
  assert.deepEqual(
    [fix.device, fix.lat, fix.lon, fix.headingDeg, fix.speedMps, fix.outlier],
    ["a", -1.5, 36.8, 90, 3, "reported as not valid"],
  );
});

test("the station's key does not end up among the attributes", () => {
  assert.equal(
    fixOf(decodeOsmand({ id: "a", lat: "1", lon: "2", key: "secret" }, now)).attributesJson,
    undefined,
  );
});

test("a network report or heartbeat has nothing to store and is never at 0,0", () => {
  const network = { id: "a", cell: ["310,260,1,2", "310,260,1,3"], wifi: "00:11:22:33:44:55,-60" };
  assert.equal(decodeOsmand(network, now), nothingToStore);
  assert.equal(decodeOsmand({ id: "a", lat: "", lon: "" }, now), nothingToStore);
  assert.equal(decodeTraccarJson({ device_id: "a", location: { event: "heartbeat" } }, now), nothingToStore);
});

test("what can never become a position is refused with its reason", () => {
  const cases: [Record<string, string>, string][] = [
    [{ lat: "1", lon: "2" }, "device-missing"],
    [{ id: "a", lat: "95", lon: "2" }, "latitude-out-of-range"],
    [{ id: "a", lat: "1", lon: "-181" }, "longitude-out-of-range"],
    [{ id: "a", lat: "1" }, "coordinates-missing"],
    [{ id: "a", lat: "1,5", lon: "2" }, "value-invalid"],
    [{ id: "a", lat: "NaN", lon: "2" }, "value-invalid"],
    [{ id: "a", lat: "0x10", lon: "2" }, "value-invalid"],
    [{ id: "a", location: "1,2,3" }, "value-invalid"],
    [{ id: "a", lat: "1", lon: "2", timestamp: "soon" }, "time-invalid"],
    [{ id: "a", lat: "1", lon: "2", timestamp: "-5" }, "time-too-early"],
    [{ id: "a", lat: "1", lon: "2", timestamp: "9999999999999" }, "time-in-future"],
  ];
  for (const [parameters, code] of cases) assert.equal(codeOf(decodeOsmand(parameters, now)), code);
});

test("rubbish in the trimmings does not cost the position", () => {
  const fix = fixOf(
    decodeOsmand(
      { id: "a", lat: "1", lon: "2", speed: "-1", bearing: "north", batt: "-100", accuracy: "" },
      now,
    ),
  );
  assert.deepEqual(
    [fix.speedMps, fix.headingDeg, fix.battery, fix.accuracyM],
    [undefined, undefined, undefined, undefined],
  );
});

test("Traccar Client 9 is read in metres per second, with -1 as unknown", () => {
  const coords = {
    latitude: 37.4219983,
    longitude: -122.084,
    accuracy: 5,
    speed: 2,
    heading: -1,
    altitude: 5,
  };
  const beside = { battery: { level: 0.5, is_charging: false }, activity: { type: "still" } };
  const timestamp = "2025-06-15T13:45:12.862Z";
  const forms = [
    { device_id: "48241179", location: { timestamp, coords, event: "motionchange", ...beside } },
    { device_id: "48241179", location: { timestamp, ...coords, event: "motionchange" }, ...beside },
  ];
  for (const form of forms) {
    const fix = fixOf(decodeTraccarJson(form, now));
    assert.equal(fix.time, Date.parse(timestamp));
    assert.deepEqual(
      [fix.lat, fix.lon, fix.speedMps, fix.headingDeg, fix.battery],
      [37.4219983, -122.084, 2, undefined, 0.5],
    );
    assert.deepEqual(JSON.parse(fix.attributesJson ?? ""), {
      event: "motionchange",
      charge: false,
      activity: "still",
    });
  }
  assert.equal(codeOf(decodeTraccarJson({ location: { coords } }, now)), "device-missing");
  assert.equal(codeOf(decodeTraccarJson([1], now)), "item-invalid");
  for (const location of [[{ timestamp, coords }], "1,2", { timestamp, coords: [37.4, -122] }]) {
    assert.equal(codeOf(decodeTraccarJson({ device_id: "a", location }, now)), "item-invalid");
  }
});
