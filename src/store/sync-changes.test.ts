import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import { openPool, type Pool } from "./pool.ts";
import { confirmChanges, isWaiting, newestChange, readChanges, recordChanges } from "./sync-changes.ts";
import { parkRows, retryParked, unparkRows } from "./sync-parked.ts";
import { keysAfter, type MirroredTable, readMirroredTables, readRows } from "./sync-rows.ts";
import { readSyncReport } from "./sync-state.ts";

let database: TestDatabase;
let pool: Pool;
const station = "01930000-0000-7000-8000-0000000000aa";

before(async () => {
  database = await testDatabase();
  pool = openPool({ url: database.url, role: "pugmark_app", name: "test" });
  await recordChanges(pool, ["subjects", "positions"]);
});
after(async () => {
  await pool.end();
  await database[Symbol.asyncDispose]();
});
beforeEach(async () => {
  await pool.query("delete from subjects");
  await pool.query("delete from sync.changes");
});

async function tableOf(name: string): Promise<MirroredTable> {
  const table = (await readMirroredTables(pool)).find((each) => each.name === name);
  assert.ok(table);
  return table;
}

async function addSubjects(count: number, species = ""): Promise<void> {
  await pool.query(
    "insert into subjects (id, name, species) select gen_random_uuid(), 'subject ' || n, $2 from generate_series(1, $1) n",
    [count, species],
  );
}

test("tables are known with their keys, and what they refer to", async () => {
  assert.partialDeepStrictEqual(await tableOf("positions"), { key: ["device_id", "time"], isEdited: false });
  const { parents, rank } = await tableOf("deployments");
  assert.deepEqual(parents.toSorted(), ["devices", "subjects"]);
  assert.ok(rank > (await tableOf("devices")).rank);
});

test("changes come in the order in which they were made, a page at a time, and stay until they are confirmed", async () => {
  for (let statement = 0; statement < 3; statement += 1)
    await pool.query(
      "insert into subjects (id, name) values (gen_random_uuid(), $1), (gen_random_uuid(), $2)",
      [`first ${statement}`, `second ${statement}`],
    );
  const page = await readChanges(pool, 3);
  assert.deepEqual(
    page.map(({ table, keys, isDeleted }) => [table, keys.length, isDeleted]),
    [
      ["subjects", 2, false],
      ["subjects", 2, false],
    ],
  );
  const newest = await newestChange(pool);
  assert.equal(await isWaiting(pool, newest), true);
  await confirmChanges(pool, page, []);
  assert.equal((await readChanges(pool, 100)).length, 1);
  await confirmChanges(pool, await readChanges(pool, 100), []);
  assert.equal(await isWaiting(pool, newest), false);
});

test("keys and rows keep their times to the microsecond, whatever the session's time zone", async () => {
  await pool.query("select ensure_positions_partition('2026-02-01T00:00:00Z')");
  await pool.query(
    "insert into positions (device_id, time, lat, lon) values ($1, '2026-03-01T00:00:00.123456+02', 1, 2)",
    [station],
  );
  const abroad = openPool({
    url: `${database.url}?options=-c%20TimeZone%3DAsia/Tokyo`,
    name: "abroad",
    max: 1,
  });
  const positions = await tableOf("positions");
  const expected = { id: station, time: "2026-02-28T22:00:00.123456Z" };
  assert.deepEqual(await keysAfter(abroad, positions, null, 10), [expected]);
  const [key] = (await readChanges(abroad, 10)).flatMap(({ keys }) => keys);
  assert.deepEqual(key, expected);
  const [row] = await readRows(abroad, positions, [expected], { station, bytesMax: 1_000 });
  assert.partialDeepStrictEqual(JSON.parse(row?.json ?? ""), { device_id: station, station_id: station });
  await abroad.end();
});

test("rows name this station where they name none, come in the order asked for, and only as many bytes as there is room", async () => {
  await addSubjects(5, "x".repeat(100));
  const subjects = await tableOf("subjects");
  const keys = (await keysAfter(pool, subjects, null, 10)).toReversed();
  const absent = { id: station, time: null };
  const rows = await readRows(pool, subjects, [absent, ...keys], { station, bytesMax: 700 });
  assert.deepEqual(
    rows.map(({ key }) => key),
    keys,
  );
  assert.partialDeepStrictEqual(JSON.parse(rows[0]?.json ?? ""), {
    station_id: station,
    changed_by: station,
  });
  const whole = rows.filter(({ json }) => json !== null);
  assert.ok(whole.length >= 1 && whole.length < 5, `${whole.length} of 5`);
  const [alone] = await readRows(pool, subjects, keys, { station, bytesMax: 1 });
  assert.ok(alone?.json, "the first comes, however large it is");
});

test("a parked row counts its attempts, is sent again as a change, and is forgotten once it is through", async () => {
  await addSubjects(1);
  const [key] = await keysAfter(pool, await tableOf("subjects"), null, 1);
  assert.ok(key);
  await confirmChanges(pool, await readChanges(pool, 10), []);
  const refusal = { table: "subjects", key, isDeleted: false, code: "23514", reason: "no" };
  await parkRows(pool, [refusal]);
  await parkRows(pool, [{ ...refusal, reason: "still no" }]);
  const { rows } = await pool.query("select attempts, reason from sync.parked_rows");
  assert.deepEqual(rows, [{ attempts: 2, reason: "still no" }]);
  assert.equal(await retryParked(pool), 1);
  assert.deepEqual(
    (await readChanges(pool, 10)).map(({ keys }) => keys),
    [[key]],
  );
  await unparkRows(pool, "subjects", [key]);
  assert.equal((await readSyncReport(pool)).parked_rows, 0);
});

test("what waits is counted, also where it is more than is counted one by one", async () => {
  await addSubjects(10);
  assert.equal((await readSyncReport(pool)).changes_waiting, 10);
  await pool.query(
    "insert into sync.changes (table_name, is_deleted, ids) select 'subjects', false, array[$1::uuid, $1] from generate_series(1, 150000)",
    [station],
  );
  const { changes_waiting } = await readSyncReport(pool);
  assert.ok(Math.abs(changes_waiting - 300_010) < 1_000, String(changes_waiting));
});
