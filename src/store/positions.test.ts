import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import type { ReportedFix } from "../tracking/fix.ts";
import { stateDeployment } from "./deployments.ts";
import { findDevice } from "./devices.ts";
import { openPool, type Pool, query } from "./pool.ts";
import { PositionStore } from "./positions.ts";
import { findSubject, listSubjects } from "./subjects.ts";
import { latestPositions, readDeviceTrack, readSubjectTrack, subjectTrackPages } from "./tracks.ts";

let database: TestDatabase;
let pool: Pool;
let store: PositionStore;

before(async () => {
  database = await testDatabase();
  pool = openPool({ url: database.url, role: "pugmark_app", name: "test" });
  store = new PositionStore(pool);
});
after(async () => {
  await pool.end();
  await database[Symbol.asyncDispose]();
});

const start = Date.parse("2024-03-01T00:00:00.000Z");
const fix = (device: string, minute: number, more: Partial<ReportedFix> = {}): ReportedFix => ({
  device,
  time: start + minute * 60_000,
  lat: minute / 1000,
  lon: -minute / 1000,
  ...more,
});
const series = (device: string, from: number, to: number, more: Partial<ReportedFix> = {}) =>
  Array.from({ length: to - from }, (_, index) => fix(device, from + index, more));

async function latestOf(name: string, includeOutliers = false) {
  const subject = await findSubject(pool, name);
  const [latest] = await latestPositions(pool, { limit: 1, subjectId: subject?.id, includeOutliers });
  return latest?.fix;
}

test("a fix comes back as it went in", async () => {
  const whole = fix("whole", 1, {
    ...{ time: start + 1, altitudeM: -3.25, accuracyM: 0, speedMps: 1e-9, headingDeg: 359.999, battery: 1 },
    ...{ segment: 'a "b", \\c {}', attributesJson: '{"text":"a\\"b\\\\,{}","list":[1,null]}' },
  });
  await store.ingest([whole]);
  const [stored] = await readDeviceTrack(pool, (await findDevice(pool, "whole")) ?? "", { limit: 10 });
  assert.deepEqual(JSON.parse(stored?.attributesJson ?? ""), JSON.parse(whole.attributesJson ?? ""));
  const { deviceId, outlier, attributesJson, ...rest } = stored ?? {};
  const { attributesJson: _, ...expected } = whole;
  assert.deepEqual(rest, expected);
  assert.equal(outlier, undefined);
});

test("a delivery sent again changes nothing, and repeats inside it count once", async () => {
  const fixes = series("again", 0, 50);
  assert.deepEqual(await store.ingest([...fixes, ...fixes.slice(0, 7)]), { accepted: 50, duplicates: 7 });
  const moved = fixes.map((each) => ({ ...each, lat: 60 }));
  assert.deepEqual(await store.ingest(moved), { accepted: 0, duplicates: 50 });
  assert.deepEqual(await store.ingest([...moved, ...series("again", 50, 53)]), {
    accepted: 3,
    duplicates: 50,
  });
  const stored = await readDeviceTrack(pool, (await findDevice(pool, "again")) ?? "", { limit: 100 });
  assert.equal(stored.length, 53);
  assert.equal(stored[10]?.lat, fixes[10]?.lat);
});

test("deliveries that share a commit each learn what became of their own fixes", async () => {
  await store.ingest(series("shared", 0, 10));
  const outcomes = await Promise.all([
    store.ingest(series("shared", 5, 15)),
    store.ingest(series("shared", 10, 20)),
    store.ingest([fix("shared", 25)]),
    store.ingest([fix("shared", 25)]),
    store.ingest([]),
  ]);
  assert.equal(
    outcomes.reduce((sum, { accepted }) => sum + accepted, 0),
    11,
  );
  assert.equal(
    outcomes.reduce((sum, { duplicates }) => sum + duplicates, 0),
    11,
  );
  assert.deepEqual(outcomes[4], { accepted: 0, duplicates: 0 });
});

test("two processes that store the same fixes at once store each exactly once", async () => {
  const otherPool = openPool({ url: database.url, role: "pugmark_app", name: "other" });
  const other = new PositionStore(otherPool);
  const fixes = ["x", "y", "z"].flatMap((device) => series(`race-${device}`, 0, 1500));
  const batches = Array.from({ length: 9 }, (_, index) => fixes.slice(index * 500, index * 500 + 500));
  const outcomes = await Promise.all([
    ...batches.map((batch) => store.ingest(batch)),
    ...batches.toReversed().map((batch) => other.ingest(batch.toReversed())),
  ]);
  await otherPool.end();
  assert.equal(
    outcomes.reduce((sum, { accepted }) => sum + accepted, 0),
    4500,
  );
  assert.equal(
    outcomes.reduce((sum, { duplicates }) => sum + duplicates, 0),
    4500,
  );
  const subject = await findSubject(pool, "race-x");
  assert.equal(subject?.deployments.length, 1);
});

test("a late older fix does not replace the last one, an outlier or one from the future neither", async () => {
  await store.ingest([fix("late", 100)]);
  await store.ingest([fix("late", 10)]);
  await store.ingest([fix("late", 200, { outlier: "not visible" })]);
  await store.ingest([fix("late", 0, { time: Date.now() + 3_600_000 })]);
  assert.equal((await latestOf("late"))?.time, fix("late", 100).time);
  assert.equal((await latestOf("late", true))?.time, fix("late", 200).time);
});

test("a subject whose devices sent only outliers has no last position, unless they count", async () => {
  await store.ingest([fix("wrong", 1, { outlier: "not visible" })]);
  assert.equal(await latestOf("wrong"), null);
  assert.equal((await latestOf("wrong", true))?.time, fix("wrong", 1).time);
});

test("months get their partitions as they are met, and each fix lies in its own", async () => {
  const times = ["2031-12-31T23:59:59.999Z", "2032-01-01T00:00:00.000Z", "1970-01-01T00:00:00.000Z"];
  await store.ingest(times.map((time) => fix("months", 0, { time: Date.parse(time) })));
  const { rows } = await query<{ name: string }>(
    pool,
    `select p.tableoid::regclass::text as name from public.positions p
     join public.devices v on v.id = p.device_id where v.key = 'months' order by p.time`,
  );
  const names = rows.map(({ name }) => name.replace("public.", ""));
  assert.deepEqual(names, ["positions_y1970m01", "positions_y2031m12", "positions_y2032m01"]);
});

test("deliveries that meet a new month at the same time all go in", async () => {
  const time = Date.parse("2033-06-01T00:00:00Z");
  const outcomes = await Promise.all(
    Array.from({ length: 6 }, (_, index) => store.ingest([fix(`june-${index}`, 0, { time })])),
  );
  assert.equal(outcomes.filter(({ accepted }) => accepted === 1).length, 6);
});

test("pages cover a track of several devices once, in order of time", async () => {
  const subject = "Team 1";
  await store.ingest([...series("radio-a", 0, 40, { subject }), ...series("radio-b", 20, 60, { subject })]);
  const id = (await findSubject(pool, subject))?.id ?? "";
  const seen: string[] = [];
  for await (const page of subjectTrackPages(pool, id, {}, 7)) {
    for (const each of page) seen.push(`${each.time} ${each.device}`);
  }
  assert.equal(seen.length, 80);
  assert.equal(new Set(seen).size, 80);
  const times = seen.map((text) => Number(text.split(" ")[0]));
  assert.deepEqual(
    times,
    times.toSorted((a, b) => a - b),
  );
  const from = fix("", 10).time;
  const some = await readSubjectTrack(pool, id, { from, to: fix("", 22).time, limit: 100 });
  assert.equal(some.length, 14);
});

test("a tag that was on three animals in turn is theirs in turn, whatever order that is said in", async () => {
  const animals = ["Ada", "Bea", "Cid"];
  const orders = [
    [0, 1, 2],
    [2, 1, 0],
    [1, 0, 2],
    [1, 2, 0],
    [0, 2, 1],
    [2, 0, 1],
  ];
  for (const [round, order] of orders.entries()) {
    const device = `tag-${round}`;
    const named = (index: number) => `${animals[index]}-${round}`;
    // Whoever is met first gets the device for good, until more is known.
    for (const index of order) {
      await store.ingest(series(device, index * 100, index * 100 + 50, { subject: named(index) }));
    }
    const state = (index: number) =>
      stateDeployment(pool, {
        device,
        subject: named(index),
        firstAt: fix("", index * 100).time,
        lastAt: fix("", index * 100 + 49).time,
      });
    for (const index of order) await state(index);
    const before = await Promise.all([0, 1, 2].map((index) => findSubject(pool, named(index))));
    assert.deepEqual(
      before.map((subject) => subject?.deployments),
      [
        [{ device, started_at: null, ended_at: new Date(fix("", 100).time).toISOString() }],
        [
          {
            device,
            started_at: new Date(fix("", 100).time).toISOString(),
            ended_at: new Date(fix("", 200).time).toISOString(),
          },
        ],
        [{ device, started_at: new Date(fix("", 200).time).toISOString(), ended_at: null }],
      ],
    );
    for (const index of order) assert.deepEqual(await state(index), { changed: false });
    assert.equal((await latestOf(named(0)))?.time, fix("", 49).time);
    assert.equal((await latestOf(named(2)))?.time, fix("", 249).time);
  }
});

test("a tag lent for a while comes back", async () => {
  await store.ingest(series("lent", 0, 100, { subject: "Owner" }));
  await stateDeployment(pool, {
    device: "lent",
    subject: "Borrower",
    firstAt: fix("", 40).time,
    lastAt: fix("", 59).time,
  });
  const counts = await Promise.all(
    ["Owner", "Borrower"].map(async (name) => {
      const id = (await findSubject(pool, name))?.id ?? "";
      return (await readSubjectTrack(pool, id, { limit: 1000 })).length;
    }),
  );
  assert.deepEqual(counts, [80, 20]);
  assert.equal(
    await stateDeployment(pool, { device: "none", subject: "x", firstAt: 0, lastAt: 1 }),
    undefined,
  );
});

test("what is told here more exactly than another station let it go takes the place of that copy", async () => {
  await store.ingest([fix("blurred", 1, { accuracyM: 1_000 }), fix("blurred", 2, { accuracyM: 3 })]);
  const device = await findDevice(pool, "blurred");
  const other = "00000000-0000-4000-8000-00000000bbbb";
  await query(pool, "update public.positions set station_id = $2 where device_id = $1", [device, other]);
  const exact = [fix("blurred", 1, { lat: 50.123456 }), fix("blurred", 2, { lat: 50.5, accuracyM: 3 })];
  assert.deepEqual(await store.ingest(exact), { accepted: 1, duplicates: 1 });
  const { rows } = await query(
    pool,
    "select lat, accuracy_m, station_id from public.positions where device_id = $1 order by time",
    [device],
  );
  assert.deepEqual(rows, [
    { lat: 50.123456, accuracy_m: null, station_id: null },
    { lat: 0.002, accuracy_m: 3, station_id: other },
  ]);
  assert.deepEqual(await store.ingest(exact), { accepted: 0, duplicates: 2 });
});

test("the reader sees all of it and can change none of it", async () => {
  await store.ingest([fix("read", 1)]);
  const reader = openPool({ url: database.url, role: "pugmark_reader", name: "reader" });
  try {
    const subjects = await listSubjects(reader, { limit: 1000 });
    assert.ok(subjects.some(({ name }) => name === "read"));
    assert.ok((await latestPositions(reader, { limit: 1000 })).some(({ subject }) => subject === "read"));
    await assert.rejects(new PositionStore(reader).ingest([fix("read", 2)]), { code: "42501" });
    await assert.rejects(new PositionStore(reader).ingest([fix("read-2", 2)]), { code: "42501" });
    for (const statement of ["delete from public.positions", "select count(*) from public.interactions"]) {
      await assert.rejects(query(reader, statement), { code: "42501" });
    }
  } finally {
    await reader.end();
  }
});

test("a database that is away is said to be, and the same delivery goes in later", async () => {
  const away = openPool({ url: "postgres://nobody@127.0.0.1:1/none", name: "away" });
  await assert.rejects(new PositionStore(away).ingest([fix("away", 1)]), { code: "database-away" });
  await away.end();
  assert.deepEqual(await store.ingest([fix("away", 1)]), { accepted: 1, duplicates: 0 });
});
