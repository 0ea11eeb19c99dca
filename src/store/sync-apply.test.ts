import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import { openPool, type Pool, query } from "./pool.ts";
import { PositionStore } from "./positions.ts";
import { applyPulled, type Pulled, type PulledRow } from "./sync-apply.ts";
import { readLanded } from "./sync-changes.ts";
import { type MirroredTable, type RowKey, readMirroredTables } from "./sync-rows.ts";

let database: TestDatabase;
let owner: Pool;
let pool: Pool;
let tables: Map<string, MirroredTable>;

const own = "00000000-0000-4000-8000-00000000aaaa";
const other = "00000000-0000-4000-8000-00000000bbbb";
const project = "00000000-0000-4000-8000-00000000cccc";
const device = "00000000-0000-4000-8000-000000000001";

before(async () => {
  database = await testDatabase();
  owner = openPool({ url: database.url, name: "test" });
  pool = openPool({ url: database.url, role: "pugmark_app", name: "test" });
  tables = new Map((await readMirroredTables(pool)).map((table) => [table.name, table]));
  await query(owner, "update sync.state set station_id = $1", [own]);
  await query(owner, "update sync.mirrored_tables set is_recorded = true");
});
after(async () => {
  await Promise.all([pool.end(), owner.end()]);
  await database[Symbol.asyncDispose]();
});

const id = (number: number) => `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`;

function pulled(table: string, rows: readonly PulledRow[], gone: readonly RowKey[] = []): Pulled {
  return { table: tables.get(table) as MirroredTable, source: "feed", rows, gone };
}

const apply = async (...all: Pulled[]) =>
  applyPulled(pool, all, { stationId: own, projectId: project, landed: await readLanded(pool) });

function subject(number: number, more: PulledRow = {}): PulledRow {
  const changed_at = "2026-01-01T00:00:00.123456+00:00";
  const made = { created_at: changed_at, station_id: other, changed_at, changed_by: other };
  return { id: id(number), name: `subject ${number}`, species: null, attributes: {}, ...made, ...more };
}

function deployment(number: number, subjectNumber: number, more: PulledRow = {}): PulledRow {
  const { name: _, species: __, attributes: ___, ...made } = subject(number);
  const time = { started_at: "-infinity", ended_at: "infinity" };
  return { ...made, device_id: device, subject_id: id(subjectNumber), ...time, ...more };
}

function position(at: string, more: PulledRow = {}): PulledRow {
  const place = { lat: 0.1, lon: 1e-9, received_at: "2026-01-01 00:00:00.5+00" };
  const nothing = { altitude_m: null, accuracy_m: null, speed_mps: null, heading_deg: null, battery: null };
  return { device_id: device, time: at, ...place, ...nothing, station_id: other, ...more };
}

async function rowsOf(table: string, where = "true"): Promise<Record<string, unknown>[]> {
  const { rows } = await query<{ row: Record<string, unknown> }>(
    owner,
    `select to_jsonb(t) as row from public.${table} t where ${where} order by 1`,
  );
  return rows.map(({ row }) => row);
}

async function waiting(): Promise<number> {
  const { rows } = await query<{ count: number }>(owner, "select count(*)::int as count from sync.changes");
  return rows[0]?.count ?? 0;
}

async function parked(table: string): Promise<{ id: string; code: string; attempts: number }[]> {
  const { rows } = await query<{ id: string; code: string; attempts: number }>(
    owner,
    "select row_id as id, code, attempts from sync.parked_rows where direction = 'pull' and table_name = $1 order by 1",
    [table],
  );
  return rows;
}

test("what was made in the project itself comes with the project's name", async () => {
  await apply(pulled("subjects", [subject(3, { station_id: null, changed_by: null })]));
  const [row] = await rowsOf("subjects", `id = '${id(3)}'`);
  assert.deepEqual([row?.station_id, row?.changed_by], [project, project]);
});

test("rows of another station come with its name, own ones as own, and none of them is to be sent back", async () => {
  const before = await waiting();
  const [applied] = await apply(
    pulled("subjects", [subject(1), subject(2, { station_id: own, changed_by: own })]),
  );
  assert.deepEqual(applied, { table: "subjects", stored: 2, deleted: 0, parked: 0 });
  assert.deepEqual(await rowsOf("subjects", `id in ('${id(1)}', '${id(2)}')`), [
    subject(1),
    subject(2, { station_id: null, changed_by: null }),
  ]);
  assert.equal(await waiting(), before);
  const [again] = await apply(
    pulled("subjects", [subject(1), subject(2, { station_id: own, changed_by: own })]),
  );
  assert.equal(again?.stored, 0);
});

test("of two edits of a row the later one stays, whichever comes first, and the other is kept", async () => {
  await apply(pulled("subjects", [subject(10)]));
  await query(pool, "update public.subjects set species = 'here' where id = $1", [id(10)]);
  const early = subject(10, { species: "early", changed_at: "2026-01-02T00:00:00+00:00" });
  const late = subject(10, { species: "late", changed_at: "2200-01-01T00:00:00+00:00" });
  await apply(pulled("subjects", [early]));
  assert.equal((await rowsOf("subjects", `id = '${id(10)}'`))[0]?.species, "here");
  await apply(pulled("subjects", [late]));
  await apply(pulled("subjects", [late, early]));
  assert.deepEqual(await rowsOf("subjects", `id = '${id(10)}'`), [late]);
  const { rows } = await query<{ species: string }>(
    owner,
    "select row ->> 'species' as species from sync.overruled_rows where row_id = $1 order by 1",
    [id(10)],
  );
  assert.deepEqual(
    rows.map(({ species }) => species),
    ["early", "here"],
  );
});

test("what others deleted goes, but not what is newer here than they know", async () => {
  await apply(pulled("subjects", [subject(20), subject(21)]));
  const gone = [20, 21].map((number) => ({ id: id(number), time: null }));
  await query(pool, "update public.subjects set species = 'still here' where id = $1", [id(21)]);
  const [applied] = await apply(pulled("subjects", [], [...gone, { id: id(22), time: null }]));
  assert.equal(applied?.deleted, 1);
  assert.deepEqual(
    (await rowsOf("subjects", `id in ('${id(20)}', '${id(21)}')`)).map((row) => row.id),
    [id(21)],
  );
});

test("what others deleted, twice, stays where it is referred to, and is sent again", async () => {
  await apply(
    pulled("subjects", [subject(25)]),
    pulled("devices", [{ ...subject(1), id: id(25), key: "twice" }]),
    pulled("deployments", [deployment(25, 25, { device_id: id(25) })]),
  );
  const gone = [id(25), id(25)].map((each) => ({ id: each, time: null }));
  const before = await waiting();
  const [applied] = await apply(pulled("subjects", [], gone));
  assert.deepEqual([applied?.deleted, applied?.parked], [0, 0]);
  assert.deepEqual(
    (await rowsOf("subjects", `id = '${id(25)}'`)).map((row) => row.changed_by),
    [null],
  );
  assert.equal(await waiting(), before + 1);
  await query(owner, "truncate sync.changes");
  await apply(pulled("deployments", [], gone), pulled("subjects", [], gone));
  assert.deepEqual(await rowsOf("subjects", `id = '${id(25)}'`), []);
});

test("what others deleted and is referred to here is set aside once where this station sends nothing of its table", async () => {
  await apply(
    pulled("subjects", [subject(26)]),
    pulled("devices", [{ ...subject(1), id: id(26), key: "unsent" }]),
    pulled("deployments", [deployment(26, 26, { device_id: id(26) })]),
  );
  const gone = [id(26), id(26)].map((each) => ({ id: each, time: null }));
  await query(owner, "update sync.mirrored_tables set is_recorded = false where table_name = 'subjects'");
  const [applied] = await apply(pulled("subjects", [], gone));
  await query(owner, "update sync.mirrored_tables set is_recorded = true where table_name = 'subjects'");
  assert.deepEqual([applied?.deleted, applied?.parked], [0, 1]);
  assert.deepEqual(await parked("subjects"), [{ id: id(26), code: "23503", attempts: 1 }]);
  await apply(pulled("deployments", [], gone), pulled("subjects", [], gone));
  assert.deepEqual(await parked("subjects"), []);
});

test("what was made anew takes the place of what is here, however new that is, but for what is still to be sent", async () => {
  const changed_at = "2027-01-01T00:00:00+00:00";
  await apply(
    pulled(
      "subjects",
      [27, 28, 29].map((number) => subject(number, { changed_at })),
    ),
  );
  await query(pool, "update public.subjects set species = 'to be sent' where id = $1", [id(28)]);
  const anew = [27, 28, 29].map((number) => subject(number, { species: "anew" }));
  const gone = [27, 28].map((number) => ({ id: id(number), time: null }));
  await apply(pulled("subjects", anew, gone));
  const species = (number: number) =>
    rowsOf("subjects", `id = '${id(number)}'`).then(([row]) => row?.species);
  assert.deepEqual(await Promise.all([27, 28, 29].map(species)), ["anew", "to be sent", null]);
  assert.deepEqual(await rowsOf("subjects", `id = '${id(27)}'`), [subject(27, { species: "anew" })]);
  // Of the same version, it is none of this station's edits.
  const sameVersion = subject(27, { species: "anew", attributes: { again: true } });
  await apply(pulled("subjects", [sameVersion], gone.slice(0, 1)));
  assert.deepEqual(await rowsOf("subjects", `id = '${id(27)}'`), [sameVersion]);
});

test("a fix that was deleted and told anew, by whomever, is as it was told", async () => {
  const time = "2023-01-01T00:00:00+00:00";
  const at = { device_id: id(34) };
  await apply(pulled("positions", [position(time, at)]));
  const anew = position(time, { ...at, lat: 7, station_id: project });
  await apply(pulled("positions", [anew], [{ id: id(34), time }]));
  const [row] = await rowsOf("positions", `device_id = '${id(34)}'`);
  assert.deepEqual([row?.lat, row?.station_id], [7, project]);
});

test("what is to be sent, and was deleted by another, is sent once more: it may have been there before", async () => {
  await apply(pulled("subjects", [subject(32)]));
  await query(pool, "update public.subjects set species = 'on its way' where id = $1", [id(32)]);
  const before = await waiting();
  await apply(pulled("subjects", [], [{ id: id(32), time: null }]));
  assert.equal(await waiting(), before + 1);
});

test("what this station made and deleted is deleted again where another brought it back, unless it asks for it", async () => {
  const own33 = subject(33, { station_id: own, changed_by: own });
  const gone = [{ id: id(33), time: null }];
  const before = await waiting();
  await apply(pulled("subjects", [own33], gone));
  assert.deepEqual(await rowsOf("subjects", `id = '${id(33)}'`), []);
  assert.equal(await waiting(), before + 1);
  await query(owner, "truncate sync.changes");
  await apply({ ...pulled("subjects", [own33], gone), source: "keys" });
  assert.equal((await rowsOf("subjects", `id = '${id(33)}'`)).length, 1);
});

test("what was deleted here and not yet in the project does not come back", async () => {
  await apply(pulled("subjects", [subject(30), subject(31)]));
  await query(pool, "delete from public.subjects where id in ($1, $2)", [id(30), id(31)]);
  await query(pool, "insert into public.subjects (id, name) values ($1, 'made anew')", [id(31)]);
  const later = { changed_at: "2200-01-01T00:00:00+00:00" };
  await apply(pulled("subjects", [subject(30, later), subject(31, later)]));
  assert.deepEqual(
    (await rowsOf("subjects", `id in ('${id(30)}', '${id(31)}')`)).map((row) => row.id),
    [id(31)],
  );
  // The project may have known of it, and have it anew: it is asked again when it surely knows.
  const asked = async () => (await parked("subjects")).filter((row) => row.id === id(30)).length;
  assert.equal(await asked(), 1);
  await apply(pulled("subjects", [subject(30, later)]));
  assert.equal(await asked(), 1);
  await query(owner, "truncate sync.changes");
  await apply({ ...pulled("subjects", [], [{ id: id(30), time: null }]), source: "keys" });
  assert.equal(await asked(), 0);
});

test("the deployments of a device are replaced in one go, with subjects that are new and others that go", async () => {
  const devices = [{ ...subject(1), id: device, key: "collar" }];
  await apply(
    pulled("deployments", [deployment(40, 40)]),
    pulled("subjects", [subject(40)]),
    pulled("devices", devices),
  );
  const middle = "2026-02-01T00:00:00+00:00";
  const changed_at = "2026-03-01T00:00:00+00:00";
  const applied = await apply(
    pulled("subjects", [subject(41), subject(42)], [{ id: id(40), time: null }]),
    pulled(
      "deployments",
      [
        deployment(41, 41, { ended_at: middle, changed_at }),
        deployment(42, 42, { started_at: middle, changed_at }),
      ],
      [{ id: id(40), time: null }],
    ),
  );
  assert.deepEqual(applied, [
    { table: "subjects", stored: 2, deleted: 1, parked: 0 },
    { table: "deployments", stored: 2, deleted: 1, parked: 0 },
  ]);
});

test("names that change hands find their way, in whatever order they come", async () => {
  await apply(pulled("subjects", [subject(50), subject(51)]));
  const changed_at = "2026-03-01T00:00:00+00:00";
  const [applied] = await apply(
    pulled("subjects", [
      subject(50, { name: "subject 51", changed_at }),
      subject(51, { name: "another", changed_at }),
    ]),
  );
  assert.deepEqual([applied?.stored, applied?.parked], [2, 0]);
});

test("a row that this database refuses is set aside with the reason, all others are stored, and it may come later", async () => {
  const orphan = deployment(60, 69, { device_id: id(61) });
  const devices = [{ ...subject(1), id: id(61), key: "other collar" }];
  const many = Array.from({ length: 40 }, (_, index) => subject(600 + index));
  const applied = await apply(
    pulled("subjects", [...many, subject(60, { name: "" }), subject(61)]),
    pulled("devices", devices),
    pulled("deployments", [
      orphan,
      deployment(61, 61, { device_id: id(61), ended_at: "2020-01-01T00:00:00Z" }),
    ]),
  );
  assert.deepEqual(
    applied.map(({ stored, parked }) => [stored, parked]),
    [
      [41, 1],
      [1, 0],
      [1, 1],
    ],
  );
  assert.deepEqual(await parked("subjects"), [{ id: id(60), code: "23514", attempts: 1 }]);
  assert.deepEqual(await parked("deployments"), [{ id: id(60), code: "23503", attempts: 1 }]);
  await apply(pulled("subjects", [subject(69)], [{ id: id(60), time: null }]));
  await apply(pulled("deployments", [{ ...orphan, started_at: "2020-01-01T00:00:00Z" }]));
  assert.deepEqual([...(await parked("subjects")), ...(await parked("deployments"))], []);
});

test("positions find their months, and the last one of a device is right, also when it goes", async () => {
  const late = position("2031-05-01T00:00:00.123+00:00");
  const later = position("2031-06-01T00:00:00+00:00", { outlier: "jump" });
  const [applied] = await apply(
    pulled("positions", [position("2020-01-01T00:00:00Z"), position("2021-01-01T00:00:00Z"), late, later]),
  );
  assert.deepEqual([applied?.stored, applied?.parked], [4, 0]);
  const last = async () => (await rowsOf("last_positions", `device_id = '${device}'`)).map((row) => row.time);
  // What is in the future cannot be the last.
  assert.deepEqual(await last(), ["2021-01-01T00:00:00+00:00"]);
  await apply(pulled("positions", [], [{ id: device, time: "2021-01-01 00:00:00+00" }]));
  assert.deepEqual(await last(), ["2020-01-01T00:00:00+00:00"]);
  await apply(pulled("positions", [], [{ id: device, time: "2020-01-01 00:00:00+00" }]));
  assert.deepEqual(await last(), []);
  const [refused] = await apply(pulled("positions", [position("1969-01-01T00:00:00Z")]));
  assert.equal(refused?.parked, 1);
});

test("a fix that two stations have is whose came to the project first; what was told more exactly here stays", async () => {
  const store = new PositionStore(pool);
  const time = Date.parse("2022-01-01T00:00:00Z");
  await store.ingest([
    { device: "both", time, lat: 0.1, lon: 1e-9 },
    { device: "both", time: time + 1_000, lat: 0.12345, lon: 1e-9 },
  ]);
  const [device] = await rowsOf("devices", "key = 'both'");
  const same = { device_id: device?.id, attributes: null };
  const [applied] = await apply(
    pulled("positions", [position("2022-01-01T00:00:00Z", same), position("2022-01-01T00:00:01Z", same)]),
  );
  assert.equal(applied?.stored, 1);
  assert.deepEqual(
    (await rowsOf("positions", `device_id = '${device?.id}'`)).map((row) => [row.lat, row.station_id]),
    [
      [0.1, other],
      [0.12345, null],
    ],
  );
});

test("where the cursor cannot be moved, nothing was applied", async () => {
  const settle = () => Promise.reject(new Error("moved by another"));
  await assert.rejects(
    applyPulled(pool, [pulled("subjects", [subject(70)])], {
      stationId: own,
      projectId: project,
      landed: await readLanded(pool),
      settle,
    }),
    /moved by another/,
  );
  assert.deepEqual(await rowsOf("subjects", `id = '${id(70)}'`), []);
});
