import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parse } from "csv-parse/sync";
import { type Fix, isRejection, type Rejection, type ReportedFix } from "../fix.ts";
import { trackSummary } from "../track-summary.ts";
import { GpxDecoder } from "./gpx.ts";
import { movebankRows, withoutCoordinates } from "./movebank-csv.ts";

const data = join(import.meta.dirname, "../../../test/data");
const now = Date.parse("2026-11-22T12:00:00Z");
const byTime = (a: Fix, b: Fix) => a.time - b.time;

function gpx(text: string, pieceLength = 997): (ReportedFix | Rejection)[] {
  const decoder = new GpxDecoder({ device: "d", nowMs: now });
  const pieces = text.match(new RegExp(`[^]{1,${pieceLength}}`, "g")) ?? [];
  const points = pieces.flatMap((piece) => decoder.push(piece));
  decoder.end();
  return points.map(({ result }) => result);
}

function fixes(results: readonly (ReportedFix | Rejection)[]): ReportedFix[] {
  return results.filter((result) => !isRejection(result)) as ReportedFix[];
}

function movebank(text: string): ReturnType<NonNullable<ReturnType<typeof movebankRows>>>[] {
  const [header = [], ...rows] = parse(text, { relax_column_count: true }) as string[][];
  const decode = movebankRows(header);
  assert.ok(decode);
  return rows.map((row) => decode(row, now));
}

test("the oystercatchers have the fixes, and the outliers, that the study says", () => {
  const all = fixes(
    movebank(readFileSync(join(data, "movebank-oystercatcher-O_ASSEN-2019.csv"), "utf8")) as [],
  );
  const of = (subject: string) => all.filter((fix) => fix.subject === subject).sort(byTime);
  assert.deepEqual([of("5515867").length, of("5515879").length], [4069, 1194]);
  assert.equal(all.filter(({ outlier }) => outlier === "import-marked-outlier").length, 4);
  assert.equal(all[0]?.device, "5750");
  assert.equal(all[0]?.species, "Haematopus ostralegus");
  assert.equal(all[0]?.speedMps, 0.190851043135927);
  const attributes = JSON.parse(all[0]?.attributesJson ?? "");
  assert.equal(attributes["event-id"], "20432607906");
  assert.equal(attributes["external-temperature"], 14.8);

  const speeds = (includeOutliers: boolean) =>
    ["5515867", "5515879"].map((bird) => trackSummary(of(bird), { includeOutliers }).fastest?.speedMps ?? 0);
  assert.equal(Math.round(Math.max(...speeds(true))), 810);
  assert.ok(Math.max(...speeds(false)) < 40);
  const { box } = trackSummary(of("5515879"), { includeOutliers: true });
  assert.deepEqual([box?.south.toFixed(2), box?.east.toFixed(2)], ["52.09", "9.68"]);
});

test("Movebank's columns are known by any of their spellings, NA is unknown, a row without place is normal", () => {
  const rows = movebank(
    "event_id,visible,timestamp,location.long,location_lat,tag.local.identifier,individual_local_identifier,ground.speed\n" +
      "1,false,2019-05-10 09:01:39.000,6.5,53,007,A,NA\n" +
      "2,true,2019-05-10 09:01:40.000,NA,,007,A,1\n" +
      "3,true,10/05/2019 09:01,6.5,53,007,A,1\n" +
      "4,true,2019-05-10 09:01:42.000,6.5,95,007,A,1\n" +
      "5,true,2019-05-10 09:01:43.000,6.5\n",
  );
  const [hidden, nowhere, excel, impossible, short] = rows as [
    ReportedFix,
    string,
    Rejection,
    Rejection,
    Rejection,
  ];
  assert.deepEqual([hidden.device, hidden.outlier, hidden.speedMps], ["007", "not visible", undefined]);
  assert.equal(nowhere, withoutCoordinates);
  assert.deepEqual(
    [excel.code, impossible.code, short.code],
    ["time-invalid", "latitude-out-of-range", "device-missing"],
  );
  assert.equal(movebankRows(["a", "b"]), undefined);
});

test("the bus goes 14,190.1 m whatever the pieces its file comes in", () => {
  const text = readFileSync(join(data, "bus-304-limerick.gpx"), "utf8");
  for (const pieceLength of [1, 64_000]) {
    const summary = trackSummary(fixes(gpx(text, pieceLength)));
    assert.equal(summary.fixes, 2144);
    assert.equal(summary.distanceM.toFixed(1), "14190.1");
    assert.equal(summary.firstAt, Date.parse("2019-02-18T07:45:50Z"));
    assert.equal(summary.lastAt, Date.parse("2019-02-18T09:00:26Z"));
  }
});

test("the walks at Cerknica are 4,575.0 m, the gaps between them left out", () => {
  const decoder = new GpxDecoder({ device: "d", nowMs: now });
  const points = decoder.push(readFileSync(join(data, "gpxpy-cerknicko-jezero.gpx"), "utf8"));
  const walked = fixes(points.map(({ result }) => result)).sort(byTime);
  assert.equal(walked.length, 296);
  assert.equal(new Set(walked.map(({ time }) => time)).size, 296);
  assert.equal(trackSummary(walked).distanceM.toFixed(1), "4575.0");
  assert.equal(decoder.ignored, 7);
  assert.equal(
    trackSummary(walked.map((fix) => ({ ...fix, segment: undefined }))).distanceM.toFixed(0),
    "13665",
  );
});

test("an empty segment is no trouble, a byte order mark neither", () => {
  const text = readFileSync(join(data, "gpxpy-track-with-empty-segment.gpx"), "utf8");
  assert.equal(fixes(gpx(`\ufeff${text}`)).length, 9);
});

test("offsets, fractions, extensions and points that are no fixes", () => {
  const results =
    gpx(`<gpx xmlns:g="http://garmin/"><wpt lat="1" lon="1"/><rte><rtept lat="1" lon="1"/></rte><trk><trkseg>
    <trkpt lat="1" lon="2"><ele>3</ele></trkpt>
    <trkpt lat="1" lon="2"><time>1901-01-01T00:00:00Z</time></trkpt>
    <trkpt lat="1" lon="2"><time>2020-01-01T01:00:00.5+01:00</time><extensions><g:TrackPointExtension>
      <g:hr>120</g:hr><g:speed>1.5</g:speed><g:course>-1</g:course></g:TrackPointExtension></extensions></trkpt>
    <trkpt lat="" lon="2"><time>2020-01-01T00:00:02</time></trkpt>
    </trkseg></trk></gpx>`);
  const codes = results.map((result) => (isRejection(result) ? result.code : "fix"));
  assert.deepEqual(codes, ["time-missing", "time-too-early", "fix", "value-invalid"]);
  const [fix] = fixes(results);
  assert.equal(fix?.time, Date.parse("2020-01-01T00:00:00.500Z"));
  assert.deepEqual([fix?.speedMps, fix?.headingDeg, fix?.attributesJson], [1.5, undefined, '{"hr":120}']);
  assert.equal(fix?.segment, "2020-01-01T00:00:00.500Z");
});

test("a file that is not GPX, or is cut off, says so", () => {
  assert.throws(() => gpx("<html></html>"), /not a GPX file/);
  assert.throws(() => gpx("<gpx><trk>"));
  assert.throws(() => gpx("timestamp,lat"));
});
