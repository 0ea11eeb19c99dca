import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { closedPort } from "../../test/support/ports.ts";
import { type TestApi, testApi } from "../api/api.fixture.ts";
import { type ImportOptions, importFile } from "./import.ts";

const data = join(import.meta.dirname, "../../test/data");
const birds = join(data, "movebank-oystercatcher-O_ASSEN-2019.csv");
const folder = mkdtempSync(join(tmpdir(), "pugmark-import-"));
let api: TestApi;
let baseUrl: string;

before(async () => {
  ({ api, baseUrl } = await station());
});
after(async () => {
  await api[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

async function station(): Promise<{ api: TestApi; baseUrl: string }> {
  const fresh = await testApi();
  await fresh.app.listen({ host: "127.0.0.1", port: 0 });
  return { api: fresh, baseUrl: `http://127.0.0.1:${(fresh.app.server.address() as AddressInfo).port}` };
}

async function run(file: string, options: ImportOptions = {}, url = baseUrl) {
  const out = new PassThrough();
  const err = new PassThrough();
  const code = await importFile(file, options, { baseUrl: url }, { out, err });
  out.end();
  err.end();
  return { code, out: await text(out), err: await text(err) };
}

async function summary(name: string, query = "", from = api) {
  return (await from.get(`/api/v1/subjects/${name}/summary${query}`)).json();
}

function write(name: string, content: string): string {
  const file = join(folder, name);
  writeFileSync(file, content);
  return file;
}

test("a Movebank file goes in whole: the outliers are kept, flagged and left out of the tracks", async () => {
  const { code, out, err } = await run(birds, { json: true });
  assert.equal(err, "");
  assert.equal(code, 0);
  const { read, stored, duplicates, outliers, rejected, without_coordinates, subjects } = JSON.parse(out);
  assert.deepEqual([read, stored, duplicates, outliers, without_coordinates], [5263, 5263, 0, 4, 0]);
  assert.deepEqual([rejected, subjects], [[], ["5515867", "5515879"]]);

  const [first, second] = [await summary("5515867"), await summary("5515879")];
  assert.deepEqual([first.fixes, first.outliers_left_out], [4067, 2]);
  assert.deepEqual([second.fixes, second.outliers_left_out], [1192, 2]);
  assert.ok(first.max_speed_mps < 40 && second.max_speed_mps < 40);
  const all = "?include_outliers=true";
  const [firstAll, secondAll] = [await summary("5515867", all), await summary("5515879", all)];
  assert.deepEqual([firstAll.fixes, secondAll.fixes], [4069, 1194]);
  assert.equal(Math.round(Math.max(firstAll.max_speed_mps, secondAll.max_speed_mps)), 810);
  assert.deepEqual([secondAll.box.south.toFixed(2), secondAll.box.east.toFixed(2)], ["52.09", "9.68"]);
  const { species, deployments } = (await api.get("/api/v1/subjects/5515867")).json();
  assert.equal(species, "Haematopus ostralegus");
  assert.deepEqual(deployments, [{ device: "5750", started_at: null, ended_at: null }]);
});

test("the same file again changes nothing", async () => {
  const before = await summary("5515867");
  const { code, out } = await run(birds, { json: true });
  assert.equal(code, 0);
  const { stored, duplicates } = JSON.parse(out);
  assert.deepEqual([stored, duplicates], [0, 5263]);
  assert.deepEqual(await summary("5515867"), before);
});

test("a dirtied copy gives exactly what the clean one gives", async () => {
  const [header = "", ...rows] = readFileSync(birds, "utf8").trimEnd().split(/\r?\n/);
  const random = seeded(20190510);
  const cells = (row: string) => row.split(",");
  const spoiled = rows
    .filter(() => random() < 0.02)
    .map((row, index) => {
      const [lat, time] = [
        ["95.5", "NaN", "53;1", "1e999"],
        ["2019-02-30 00:00:00.000", "10/05/2019 09:01", "1901-01-01 00:00:00.000"],
      ];
      const changed = cells(row);
      if (index % 2 === 0) changed[4] = lat[index % 3] ?? "";
      else changed[2] = time[index % 3] ?? "";
      return changed.join(",");
    });
  const nowhere = rows
    .filter(() => random() < 0.02)
    .map((row) => cells(row).with(3, "").with(4, "").join(","));
  const repeats = rows.filter(() => random() < 0.1);
  const dirty = [...rows, ...repeats, ...spoiled, ...nowhere]
    .map((row) => ({ row, key: random() }))
    .sort((a, b) => a.key - b.key)
    .map(({ row }) => row);
  const file = write("dirty.csv", `\ufeff${[header, ...dirty].join("\r\n")}\r\n`);

  const other = await station();
  try {
    const { code, out } = await run(file, { json: true }, other.baseUrl);
    assert.equal(code, 1);
    const report = JSON.parse(out);
    assert.equal(report.read, dirty.length);
    assert.equal(report.stored, 5263);
    assert.equal(report.without_coordinates, nowhere.length);
    assert.equal(report.duplicates, repeats.length);
    assert.equal(report.rejected.length, spoiled.length);
    for (const { line } of report.rejected)
      assert.ok(spoiled.includes(dirty[line - 2] ?? ""), `line ${line}`);
    for (const bird of ["5515867", "5515879"]) {
      for (const query of ["", "?include_outliers=true"]) {
        const [a, b] = [await summary(bird, query), await summary(bird, query, other.api)];
        assert.deepEqual({ ...b, subject_id: "" }, { ...a, subject_id: "" });
      }
      const path = `/api/v1/subjects/${bird}/track?format=csv&include_outliers=true`;
      assert.equal((await other.api.get(path)).body, (await api.get(path)).body);
    }
  } finally {
    await other.api[Symbol.asyncDispose]();
  }
});

test("GPX files go in under their names, with their distances", async () => {
  const bus = await run(join(data, "bus-304-limerick.gpx"));
  assert.equal(bus.code, 0);
  assert.match(bus.out, /2,144 stored/);
  const ride = await summary("bus-304-limerick");
  assert.deepEqual(
    [ride.fixes, ride.distance_m.toFixed(1), ride.first_at, ride.last_at],
    [2144, "14190.1", "2019-02-18T07:45:50.000Z", "2019-02-18T09:00:26.000Z"],
  );
  await run(join(data, "gpxpy-cerknicko-jezero.gpx"), { device: "garmin", subject: "Walker" });
  const walk = await summary("Walker");
  assert.deepEqual([walk.fixes, walk.distance_m.toFixed(1)], [296, "4575.0"]);
  assert.equal((await run(join(data, "gpxpy-track-with-empty-segment.gpx"))).code, 0);
  assert.equal((await summary("gpxpy-track-with-empty-segment")).fixes, 9);
});

test("a tag that two animals wore is each one's in its time, and a second import says nothing new", async () => {
  const rows = (from: number, animal: string) =>
    Array.from({ length: 5 }, (_, hour) => `2020-01-0${from} 0${hour}:00:00.000,6.5,53.${hour},77,${animal}`);
  const header = "timestamp,location-long,location-lat,tag-local-identifier,individual-local-identifier";
  const later = write("later.csv", `${[header, ...rows(3, "New"), ...rows(1, "Old")].join("\n")}\n`);
  for (let round = 0; round < 2; round += 1) {
    assert.equal((await run(later)).code, 0);
    const [older, newer] = [await summary("Old"), await summary("New")];
    assert.deepEqual([older.fixes, newer.fixes], [5, 5]);
    assert.deepEqual(
      [older.last_at, newer.first_at],
      ["2020-01-01T04:00:00.000Z", "2020-01-03T00:00:00.000Z"],
    );
  }
  const { deployments } = (await api.get("/api/v1/subjects/New")).json();
  assert.deepEqual(deployments, [{ device: "77", started_at: "2020-01-03T00:00:00.000Z", ended_at: null }]);
});

test("refused lines are named with the reason, the first twenty of them, then counted", async () => {
  const points = Array.from({ length: 30 }, () => '<trkpt lat="1" lon="2"></trkpt>\n').join("");
  const file = write("undated.gpx", `<gpx><trk><trkseg>\n${points}</trkseg></trk></gpx>`);
  const { code, out } = await run(file);
  assert.equal(code, 1);
  assert.match(out, /30 refused/);
  assert.match(out, /line 2: no time is given \(time-missing\)/);
  assert.equal(out.match(/^ {2}line /gm)?.length, 20);
  assert.match(out, /in all: time-missing 30/);
});

test("what cannot be read as what it should be is a mistake of use", async () => {
  const cases: [string, RegExp][] = [
    [join(folder, "none.csv"), /no such file/],
    [write("notes.txt", "x"), /say --format/],
    [write("other.csv", "a,b\n1,2\n"), /not a Movebank event file/],
    [write("empty.csv", ""), /the file is empty/],
    [write("page.gpx", "<html/>"), /not a GPX file/],
    [folder, /say --format/],
  ];
  for (const [file, message] of cases) {
    const { code, err, out } = await run(file);
    assert.deepEqual([code, out], [2, ""], file);
    assert.match(err, message);
  }
});

test("a file that breaks off in the middle says what was stored", async () => {
  const whole = readFileSync(join(data, "bus-304-limerick.gpx"), "utf8");
  const { code, out, err } = await run(write("half.gpx", whole.slice(0, 200_000)));
  assert.equal(code, 1);
  assert.match(err, /not all of it was read/);
  assert.match(out, /rows read/);
});

test("a station that is not running is said so at once", async () => {
  const { code, err } = await run(birds, {}, `http://127.0.0.1:${closedPort}`);
  assert.equal(code, 1);
  assert.match(err, /the station is not running/);
});

test("a station that is busy, or breaks off, gets the batch again", async () => {
  let refusals = 0;
  const proxy = createServer(async (request, response) => {
    const body = await text(request);
    refusals += 1;
    if (refusals === 1) return response.writeHead(503, { "retry-after": "0" }).end("{}");
    const answer = await fetch(`${baseUrl}${request.url}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
    });
    // The second time it is stored, and the answer is lost.
    if (refusals === 2) return response.destroy();
    return response.writeHead(answer.status).end(await answer.text());
  }).listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const { port } = proxy.address() as AddressInfo;
  const file = join(data, "bus-304-limerick.gpx");
  const { code } = await run(file, { device: "retried" }, `http://127.0.0.1:${port}`);
  proxy.close();
  assert.equal(code, 0);
  assert.equal((await summary("retried")).fixes, 2144);
});

/** Numbers from 0 to below 1, the same each run (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

test("a row that a cut-off file ends in is refused with its line, and no half of a number stored", async () => {
  const [header = "", row = ""] = readFileSync(birds, "utf8").split("\n");
  const cut = row.split(",").slice(0, 5).join(",").slice(0, -3); // in the middle of the latitude
  const { code, out } = await run(write("cut.csv", `${header}\n${cut}`), { json: true });
  assert.equal(code, 1);
  const { stored, duplicates, rejected } = JSON.parse(out);
  assert.deepEqual([stored, duplicates], [0, 0]);
  assert.deepEqual([rejected[0].line, rejected[0].code], [2, "item-invalid"]);
});

test("what a broken GPX file has before it breaks off is stored", async () => {
  const whole = readFileSync(join(data, "bus-304-limerick.gpx"), "utf8");
  const { code, out, err } = await run(write("broken.gpx", whole.slice(0, 5_000)), { json: true });
  assert.equal(code, 1);
  assert.match(err, /not all of it was read/);
  const { read, stored } = JSON.parse(out);
  assert.ok(read > 0);
  assert.equal(stored, read);
});
