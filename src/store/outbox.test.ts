import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, afterEach, before, beforeEach, test } from "node:test";
import pg from "pg";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import { stateDeployment } from "./deployments.ts";
import { openPool, type Pool, query, transaction } from "./pool.ts";
import { PositionStore } from "./positions.ts";

let database: TestDatabase;
let app: Pool;
let owner: Pool;

before(async () => {
  database = await testDatabase();
  app = openPool({ url: database.url, role: "pugmark_app", name: "test" });
  owner = openPool({ url: database.url, name: "test-owner" });
});
after(async () => {
  await app.end();
  await owner.end();
  await database[Symbol.asyncDispose]();
});
beforeEach(async () => {
  await query(app, "update sync.mirrored_tables set is_recorded = true");
});
afterEach(async () => {
  await query(app, "update sync.mirrored_tables set is_recorded = false");
  await query(app, "delete from sync.changes");
  await query(app, "delete from sync.overruled_rows");
});

interface Change {
  readonly table_name: string;
  readonly is_deleted: boolean;
  readonly ids: string[];
  readonly times: Date[] | null;
}

async function changes(...tables: string[]): Promise<Change[]> {
  const { rows } = await query<Change>(
    app,
    `select table_name, is_deleted, ids, times from sync.changes
     where cardinality($1::text[]) = 0 or table_name = any($1) order by seq`,
    [tables],
  );
  return rows;
}

const at = Date.parse("2024-03-01T00:00:00Z");
const fixes = (device: string, count: number) =>
  Array.from({ length: count }, (_, index) => ({ device, time: at + index * 1_000, lat: 1, lon: 2 }));

const subject = { insert: "insert into public.subjects (id, name) values ($1, $2)" };

async function addSubject(name: string): Promise<string> {
  const id = randomUUID();
  await query(app, subject.insert, [id, name]);
  return id;
}

async function versionOf(id: string) {
  const { rows } = await query<{ species: string | null; changed_at: string; changed_by: string | null }>(
    app,
    "select species, changed_at::text, changed_by from public.subjects where id = $1",
    [id],
  );
  return rows[0];
}

/** A version of a subject that another station made, as it comes through the mirror. */
async function applyVersion(id: string, species: string, changedAt: string, changedBy: string) {
  await query(
    app,
    "update public.subjects set species = $2, changed_at = $3::text::timestamptz, changed_by = $4 where id = $1",
    [id, species, changedAt, changedBy],
  );
}

async function overruled(id: string) {
  const { rows } = await query<{ species: string; changed_by: string }>(
    app,
    "select row ->> 'species' as species, changed_by from sync.overruled_rows where row_id = $1 order by id",
    [id],
  );
  return rows;
}

test("nothing is written to the outbox while recording is off, and nobody's table has a trigger for it", async () => {
  await query(app, "update sync.mirrored_tables set is_recorded = false");
  await new PositionStore(app).ingest(fixes("unrecorded", 10));
  await query(app, "delete from public.positions");
  assert.deepEqual(await changes(), []);
  const { rows } = await query(
    owner,
    "select from pg_trigger where tgname in ('sync_insert', 'sync_delete')",
  );
  assert.equal(rows.length, 0);
});

test("what a station takes in is in the outbox, by keys, a row for each statement", async () => {
  const store = new PositionStore(app);
  await store.ingest(fixes("recorded", 3));
  assert.deepEqual(
    (await changes()).map(({ table_name, is_deleted, ids }) => [table_name, is_deleted, ids.length]),
    [
      ["devices", false, 1],
      ["subjects", false, 1],
      ["deployments", false, 1],
      ["positions", false, 3],
    ],
  );
  const [positions] = await changes("positions");
  assert.deepEqual(
    positions?.times?.map((time) => time.getTime()),
    fixes("", 3).map(({ time }) => time),
  );
  await query(app, "delete from sync.changes");
  await store.ingest(fixes("recorded", 3));
  assert.deepEqual(await changes(), []);
  await query(app, "delete from public.positions where time > $1", [new Date(at)]);
  assert.deepEqual(
    (await changes()).map(({ is_deleted, ids }) => [is_deleted, ids.length]),
    [[true, 2]],
  );
});

test("a statement that touches many rows fills several rows of the outbox, a thousand keys each", async () => {
  await new PositionStore(app).ingest(fixes("many", 2_500));
  const recorded = await changes("positions");
  assert.deepEqual(
    recorded.map(({ ids, times }) => [ids.length, times?.length]),
    [
      [1_000, 1_000],
      [1_000, 1_000],
      [500, 500],
    ],
  );
  const seen = recorded.flatMap(({ times }) => times?.map((time) => time.getTime()) ?? []);
  assert.equal(new Set(seen).size, 2_500);
});

test("inserts that meet a row, edits and conversations are recorded by their uuid", async () => {
  const use = `insert into public.conversations (caller, id, title, created_at, last_used_at)
    values ('local', 'c', 't', now(), now())
    on conflict (caller, id) where station_id is null do update set last_used_at = now()
    returning conversation_id`;
  const { rows } = await query<{ conversation_id: string }>(app, use);
  await query(app, use);
  const id = rows[0]?.conversation_id ?? "";
  assert.deepEqual(
    (await changes("conversations")).map(({ ids, times }) => [ids, times]),
    [
      [[id], null],
      [[id], null],
    ],
  );
});

test("a change that is rolled back, and one that came from the project, leave no trace in the outbox", async () => {
  await assert.rejects(
    transaction(app, async (client) => {
      await client.query(subject.insert, [randomUUID(), "Rolled"]);
      throw new Error("rolled back");
    }),
    { message: "rolled back" },
  );
  await transaction(app, async (client) => {
    await client.query("set local pugmark.applying = 'on'");
    await client.query(subject.insert, [randomUUID(), "Pulled"]);
  });
  assert.deepEqual(await changes(), []);
  await addSubject("Own");
  assert.equal((await changes("subjects")).length, 1);
});

test("the servers' role can ask for rows to be sent again, and cannot rewrite what the outbox has", async () => {
  for (const statement of [
    "insert into sync.changes (seq, table_name, is_deleted, ids) overriding system value values (1, 'subjects', false, '{}')",
    "update sync.changes set ids = '{}'",
    "insert into sync.mirrored_tables values ('files', '{id}', 1, false)",
    "select sync.mirror('public.files', false, 1)",
    "select sync.become_feed()",
  ]) {
    await assert.rejects(query(app, statement), { code: "42501" }, statement);
  }
  const reader = openPool({ url: database.url, role: "pugmark_reader", name: "reader" });
  await assert.rejects(query(reader, "select from sync.state"), { code: "42501" });
  await reader.end();
});

test("an edit is later than the version that it was made from, whatever the clock says", async () => {
  const id = await addSubject("Edited");
  const other = randomUUID();
  await applyVersion(id, "from the future", "2100-01-01T00:00:00.000001Z", other);
  await query(app, "update public.subjects set species = 'edited here' where id = $1", [id]);
  assert.deepEqual(await versionOf(id), {
    species: "edited here",
    changed_at: "2100-01-01 00:00:00.000002+00",
    changed_by: null,
  });
});

test("of two versions the newer wins in whatever order they come, and the other station's loser is kept", async () => {
  const [one, two] = [randomUUID(), randomUUID()];
  const older = ["older", "2090-01-01T00:00:00Z", one] as const;
  const newer = ["newer", "2090-01-01T00:00:01Z", two] as const;
  for (const order of [
    [older, newer],
    [newer, older],
    [older, newer, older, newer, newer],
  ] as const) {
    const id = await addSubject(`Versions ${randomUUID()}`);
    for (const [species, changedAt, changedBy] of order)
      await applyVersion(id, species, changedAt, changedBy);
    assert.equal((await versionOf(id))?.species, "newer");
    const kept = await overruled(id);
    assert.deepEqual(
      kept.filter(({ changed_by }) => changed_by === one),
      [{ species: "older", changed_by: one }],
    );
    assert.ok(kept.every(({ species }) => species !== "newer"));
  }
});

test("of two versions of one instant the same one wins everywhere", async () => {
  const instant = "2090-01-01T00:00:00Z";
  const [low, high] = ["00000000-0000-4000-8000-000000000001", "ffffffff-0000-4000-8000-000000000001"];
  for (const order of [
    [low, high],
    [high, low],
  ] as const) {
    const id = await addSubject(`Tie ${randomUUID()}`);
    for (const station of order) await applyVersion(id, station, instant, station);
    assert.equal((await versionOf(id))?.species, high);
    assert.ok((await overruled(id)).some(({ species }) => species === low));
  }
});

test("the same version again changes nothing and is not recorded", async () => {
  const id = await addSubject("Again");
  const version = ["same", "2090-01-01T00:00:00Z", randomUUID()] as const;
  await applyVersion(id, ...version);
  const before = await changes("subjects");
  await applyVersion(id, ...version);
  assert.deepEqual(await changes("subjects"), before);
});

test("a station has one id, whoever asks first", async () => {
  const ask = () => query<{ id: string }>(app, "select sync.own_station() as id");
  const ids = (await Promise.all([ask(), ask(), ask(), ask()])).map(({ rows }) => rows[0]?.id);
  assert.equal(new Set(ids).size, 1);
  assert.match(ids[0] ?? "", /^[0-9a-f-]{36}$/);
});

test("a checksum is of the rows, not of their order, and takes no station for the own one", async () => {
  const own = randomUUID();
  const checksum = async (madeBy: string | null = null) =>
    (await query(app, "select * from sync.checksum('subjects', $1, $2)", [own, madeBy])).rows[0];
  await query(app, "delete from public.deployments");
  await query(app, "delete from public.subjects");
  const add = (name: string, station: string | null) =>
    query(
      app,
      `insert into public.subjects (id, name, created_at, changed_at, station_id, changed_by)
       values (md5($1)::uuid, $1, '2024-01-01', '2024-01-01', $2, $2)`,
      [name, station],
    );
  await add("a", null);
  await add("b", null);
  const here = await checksum();
  assert.equal(here?.row_count, "2");
  await query(app, "delete from public.subjects");
  await add("b", own);
  await add("a", own);
  assert.deepEqual(await checksum(), here);
  await add("c", randomUUID());
  assert.notDeepEqual(await checksum(), here);
  assert.deepEqual(await checksum(own), here);
  await query(app, "update public.subjects set species = 'x' where name = 'a'");
  assert.notDeepEqual(await checksum(own), here);
  await assert.rejects(query(app, "select sync.checksum('files', $1)", [own]), { code: "42P01" });
});

test("the deployments of a device can be replaced in one go, and may not overlap in the end", async () => {
  await new PositionStore(app).ingest(fixes("shared", 100));
  const { rows } = await query<{ id: string; device_id: string; subject_id: string }>(
    app,
    "select d.* from public.deployments d join public.devices v on v.id = d.device_id where v.key = 'shared'",
  );
  const [whole] = rows;
  assert.ok(whole);
  const other = await addSubject("Other");
  const values = [randomUUID(), whole.device_id, other];
  const late = `insert into public.deployments (id, device_id, subject_id, started_at) values ($1, $2, $3, '2024-06-01')`;
  await assert.rejects(query(app, late, values), { code: "23P01" });
  await transaction(app, async (client) => {
    await client.query(late, values);
    await client.query("update public.deployments set ended_at = '2024-06-01' where id = $1", [whole.id]);
  });
  const outcome = await stateDeployment(app, {
    device: "shared",
    subject: "shared",
    firstAt: at,
    lastAt: at,
  });
  assert.deepEqual(outcome, { changed: false });
});

test("a new table joins the mirror by one line", async () => {
  await query(owner, "create table public.sightings (id uuid primary key, what text)");
  try {
    await query(owner, "select sync.mirror('public.sightings', is_edited => true, rank => 50)");
    await query(owner, "update sync.mirrored_tables set is_recorded = true where table_name = 'sightings'");
    const id = randomUUID();
    await query(owner, "insert into public.sightings (id, what) values ($1, 'lynx')", [id]);
    await query(owner, "update public.sightings set what = 'wolf' where id = $1", [id]);
    await query(owner, "delete from public.sightings where id = $1", [id]);
    assert.deepEqual(
      (await changes("sightings")).map(({ is_deleted, ids }) => [is_deleted, ids]),
      [
        [false, [id]],
        [false, [id]],
        [true, [id]],
      ],
    );
  } finally {
    await query(owner, "drop table public.sightings");
    await query(owner, "drop function sync.record_sightings()");
    await query(owner, "delete from sync.mirrored_tables where table_name = 'sightings'");
  }
});

test("recording that cannot be switched at once gives up rather than keep writers waiting", async () => {
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await client.query("begin");
  await client.query("delete from public.subjects where false");
  const off = () => query(app, "update sync.mirrored_tables set is_recorded = false");
  await assert.rejects(off(), { code: "55P03" });
  await client.query("commit");
  await client.end();
  await off();
});
