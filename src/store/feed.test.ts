import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";
import pg from "pg";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";

let database: TestDatabase;
/** A project, as its service role. */
let project: pg.Client;
const [one, two] = [randomUUID(), randomUUID()];

interface Cursor {
  readonly xid: string;
  readonly seq: number;
}
interface Page extends Cursor {
  readonly changes: {
    readonly table: string;
    readonly deleted: boolean;
    readonly ids: string[] | null;
    readonly times: string[] | null;
    readonly rows: Record<string, unknown>[];
  }[];
  readonly more: boolean;
  readonly gap: boolean;
  readonly project: string;
}

async function connect(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  await client.query("set role service_role");
  return client;
}

/** Resolves once nothing holds the feed up: transactions of the whole cluster do, those of neighbouring tests too. */
async function settled(): Promise<void> {
  const waiting = `select count(*)::int as waiting from sync.changes
    where xid >= pg_snapshot_xmin(pg_current_snapshot())`;
  const deadline = Date.now() + 20_000;
  for (;;) {
    const [last] = (await project.query(waiting)).rows;
    if (last.waiting === 0) return;
    assert.ok(Date.now() < deadline, `${last.waiting} changes never came into the feed`);
  }
}

async function head(): Promise<Cursor> {
  await settled();
  return (await project.query("select public.sync_head() as head")).rows[0].head;
}

async function changesAfter(after: Cursor, station: string, limit?: number): Promise<Page> {
  await settled();
  return readChanges(after, station, limit);
}

async function readChanges({ xid, seq }: Cursor, station: string, limit = 1_000): Promise<Page> {
  const text = "select public.sync_changes($1, $2, $3, $4) as page";
  return (await project.query(text, [xid, seq, limit, station])).rows[0].page;
}

async function addSubject(client: pg.Client, name: string, station: string): Promise<string> {
  const id = randomUUID();
  await client.query(
    "insert into public.subjects (id, name, station_id, changed_by) values ($1, $2, $3, $3)",
    [id, name, station],
  );
  return id;
}

const names = ({ changes }: Page) => changes.flatMap(({ rows }) => rows.map(({ name }) => name));

before(async () => {
  database = await testDatabase();
  project = await connect();
  await project.query("select public.sync_announce($1, 'one'), public.sync_announce($2, 'two')", [one, two]);
});
after(async () => {
  await project.end();
  await database[Symbol.asyncDispose]();
});

test("a station sees what others changed, once, and not what it changed itself", async () => {
  const start = await head();
  const id = await addSubject(project, "Ada", one);
  const seen = await changesAfter(start, two);
  assert.deepEqual([names(seen), seen.more, seen.gap], [["Ada"], false, false]);
  assert.deepEqual(seen.changes[0]?.rows[0]?.changed_by, one);
  assert.deepEqual(names(await changesAfter(seen, two)), []);
  assert.deepEqual(names(await changesAfter(start, one)), []);
  await project.query(
    "update public.subjects set species = 'lynx', changed_at = '2090-01-01', changed_by = $2 where id = $1",
    [id, two],
  );
  assert.deepEqual(names(await changesAfter(seen, one)), ["Ada"]);
  assert.deepEqual(names(await changesAfter(seen, two)), []);
});

test("an edit made in the project itself bears the project's own id", async () => {
  const start = await head();
  const id = await addSubject(project, "Bea", one);
  await project.query("update public.subjects set species = 'wolf' where id = $1", [id]);
  const page = await changesAfter(start, one);
  assert.deepEqual([names(page), page.changes.at(-1)?.rows[0]?.changed_by], [["Bea", "Bea"], page.project]);
});

test("a change that is committed late is not missed", async () => {
  const start = await head();
  const slow = await connect();
  await slow.query("begin");
  await addSubject(slow, "Late", one);
  await addSubject(project, "Early", one);
  const during = await readChanges(start, two);
  assert.deepEqual(names(during), []);
  await slow.query("commit");
  await slow.end();
  assert.deepEqual(names(await changesAfter(during, two)), ["Late", "Early"]);
});

test("pages of a few rows lead through all changes in order", async () => {
  const start = await head();
  const added = ["p1", "p2", "p3", "p4", "p5"];
  for (const name of added) await addSubject(project, name, one);
  const seen: unknown[] = [];
  let page = await changesAfter(start, two, 2);
  assert.equal(page.more, true);
  for (; page.more; page = await changesAfter(page, two, 2)) seen.push(...names(page));
  seen.push(...names(page));
  assert.deepEqual(seen, added);
});

test("what was deleted and made anew comes with its row, to whomever, since what they have may be newer", async () => {
  const start = await head();
  const id = await addSubject(project, "Again", one);
  await project.query("delete from public.subjects where id = $1", [id]);
  await project.query(
    "insert into public.subjects (id, name, station_id, changed_by) values ($1, 'Again', $2, $2)",
    [id, two],
  );
  for (const station of [one, two]) {
    const { changes } = await changesAfter(start, station);
    const deletion = changes.find(({ deleted }) => deleted);
    assert.deepEqual([deletion?.ids, deletion?.rows.map((row) => row.changed_by)], [[id], [two]]);
  }
});

test("what was deleted comes as keys, positions with their times", async () => {
  const start = await head();
  await project.query("select public.ensure_positions_partition('2024-03-01')");
  const device = randomUUID();
  await project.query(
    "insert into public.positions (device_id, time, lat, lon, station_id) values ($1, '2024-03-01T00:00:00Z', 1, 2, $2)",
    [device, one],
  );
  const last = await project.query("select time from public.last_positions where device_id = $1", [device]);
  assert.deepEqual(last.rows, [{ time: new Date("2024-03-01T00:00:00Z") }]);
  const added = await changesAfter(start, two);
  assert.equal(added.changes[0]?.rows[0]?.time, "2024-03-01T00:00:00+00:00");
  await project.query("delete from public.positions where device_id = $1", [device]);
  const removed = await changesAfter(added, two);
  assert.deepEqual(removed.changes, [
    { table: "positions", deleted: true, ids: [device], times: ["2024-03-01T00:00:00+00:00"], rows: [] },
  ]);
});

test("stations know each other by name, and a renamed one is told to all", async () => {
  const start = await head();
  await project.query("select public.sync_announce($1, 'renamed')", [one]);
  await project.query("select public.sync_announce($1, 'renamed')", [one]);
  assert.deepEqual(names(await changesAfter(start, two)), ["renamed"]);
});

test("a station that announces itself waits for nobody who writes, and nobody for it", async () => {
  const [writer, station] = [await connect(), await connect()];
  await station.query("set lock_timeout = '2s'");
  await writer.query("begin");
  await addSubject(writer, "Meanwhile", one);
  await station.query("begin");
  await station.query("select public.sync_announce($1, 'at once')", [two]);
  await addSubject(writer, "After that", one);
  for (const client of [writer, station]) {
    await client.query("commit");
    await client.end();
  }
});

test("a feed cannot be switched off, nor emptied by a station", async () => {
  await project.query("reset role");
  await project.query("update sync.mirrored_tables set is_recorded = false");
  await project.query("set role service_role");
  const { rows } = await project.query("select every(is_recorded) as all from sync.mirrored_tables");
  assert.deepEqual(rows, [{ all: true }]);
  await assert.rejects(project.query("delete from sync.changes"), { code: "42501" });
});

test("a place that the feed no longer reaches back to, or that is another database's, is a gap", async () => {
  const start = await head();
  await addSubject(project, "Old", one);
  assert.equal((await changesAfter(start, two)).gap, false);
  const end = await head();
  await project.query("reset role");
  await project.query("update sync.changes set changed_at = now() - interval '31 days'");
  await project.query("set role service_role");
  await project.query("select public.sync_announce($1, 'one')", [one]);
  assert.equal((await changesAfter(start, two)).gap, true);
  assert.equal((await changesAfter(end, two)).gap, false);
  assert.equal((await changesAfter({ xid: "9999999999", seq: 0 }, two)).gap, true);
});

test("a place in a feed that came with a dump is a gap, and that of whoever began anew is none", async () => {
  const before = { xid: "3", seq: 0 };
  await project.query("reset role");
  // The cluster that the dump was made in had counted further.
  await project.query("update sync.state set feed_trimmed_xid = '8000000000'");
  await project.query(
    `insert into sync.changes (xid, table_name, is_deleted, ids)
     values ('9000000000', 'subjects', true, array[gen_random_uuid()])`,
  );
  await project.query("set role service_role");
  assert.equal((await readChanges(before, two)).gap, true);
  const { rows } = await project.query("select public.sync_head() as head");
  const anew: Cursor = rows[0].head;
  assert.equal((await readChanges(anew, two)).gap, false);
  assert.equal((await readChanges(before, two)).gap, true);
  await addSubject(project, "After the dump", one);
  const seen = await changesAfter(anew, two);
  assert.deepEqual([names(seen), seen.gap], [["After the dump"], false]);
  // A second one that begins anew does not have the first do so again.
  await head();
  assert.equal((await readChanges(anew, two)).gap, false);
});

test("two stations at one inbox never fetch the same delivery, and a taken one is not given again", async () => {
  const ids = Array.from({ length: 10 }, () => randomUUID());
  for (const id of ids) {
    await project.query("insert into public.inbox (id, device, fixes) values ($1, 'd', '[{}]')", [id]);
  }
  const other = await connect();
  const take = async (client: pg.Client, station: string, limit: number) =>
    (await client.query("select id from public.inbox_take($1, $2)", [station, limit])).rows.map(
      ({ id }) => id,
    );
  const [mine, theirs] = await Promise.all([take(project, one, 5), take(other, two, 5)]);
  await other.end();
  assert.deepEqual([...mine, ...theirs].sort(), ids.toSorted());
  // One that asks again, because it was killed, has its own again.
  assert.deepEqual((await take(project, one, 10)).sort(), mine.toSorted());
  const done = "select public.inbox_acknowledge($1, $2) as count";
  assert.equal((await project.query(done, [one, mine])).rows[0].count, 5);
  assert.equal((await project.query(done, [one, mine])).rows[0].count, 0);
  await project.query("update public.inbox set leased_until = now() - interval '1 second'");
  assert.deepEqual((await take(project, one, 10)).sort(), theirs.toSorted());
  const { rows } = await project.query("select fixes, taken_by from public.inbox where id = $1", [mine[0]]);
  assert.deepEqual(rows, [{ fixes: [], taken_by: one }]);
});
