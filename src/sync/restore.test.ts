import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { startFaultProxy } from "../../test/support/fault-proxy.ts";
import { testDatabase } from "../../test/support/postgres.ts";
import { type SupabaseProject, startSupabaseProject } from "../../test/support/supabase-project.ts";
import { openPool, type Pool, query } from "../store/pool.ts";
import { readAll, startStation } from "./station.fixture.ts";
import { eventually } from "./sync.fixture.ts";

let project: SupabaseProject;
let there: Pool;

const other = "00000000-0000-4000-8000-00000000bbbb";
const nobody = "00000000-0000-4000-8000-000000000000";
const fixesOfEach = 1_500;
const devices = 6;

/** What another station has left in the project: some thousand fixes of several devices, and what belongs to them. */
before(async () => {
  project = await startSupabaseProject();
  there = openPool({ url: project.databaseUrl, name: "there" });
  await query(there, "select public.sync_announce($1, 'other')", [other]);
  const made = "station_id, changed_by";
  await query(
    there,
    `with made as materialized (select gen_random_uuid() as id, n from generate_series(1, ${devices}) n),
       device as (insert into public.devices (id, key, ${made}) select id, 'd' || n, $1, $1 from made),
       subject as (insert into public.subjects (id, name, ${made}) select id, 's' || n, $1, $1 from made)
     insert into public.deployments (id, device_id, subject_id, ${made}) select id, id, id, $1, $1 from made`,
    [other],
  );
  await query(there, "select public.ensure_positions_partition('2026-03-01')");
  await query(
    there,
    `insert into public.positions (device_id, time, lat, lon, attributes, station_id)
     select id, '2026-03-01'::timestamptz + n * interval '1.000001 second', n / 997.0, -n / 991.0, '{"n": 1e-7}', $1
     from public.devices, generate_series(1, ${fixesOfEach}) n`,
    [other],
  );
});
after(async () => {
  await there.end();
  await project[Symbol.asyncDispose]();
});

async function numberIn(pool: Pool, sql: string): Promise<number> {
  const { rows } = await query<{ number: number }>(pool, `select coalesce((${sql}), 0)::int as number`);
  return rows[0]?.number ?? 0;
}

async function assertSame(
  pool: Pool,
  tables = ["devices", "subjects", "deployments", "positions"],
): Promise<void> {
  const { rows } = await query<{ own: string }>(pool, "select sync.own_station() as own");
  for (const table of tables)
    assert.deepEqual(
      await readAll(pool, table, rows[0]?.own ?? ""),
      await readAll(there, table, nobody),
      table,
    );
}

test("a service that is killed while it reads everything goes on where it was", async () => {
  await using database = await testDatabase();
  const home = mkdtempSync(join(tmpdir(), "pugmark-restore-"));
  const pool = openPool({ url: database.url, name: "test" });
  const service = (): ChildProcess =>
    spawn(process.execPath, [join(import.meta.dirname, "main.ts")], {
      env: {
        PATH: process.env.PATH,
        PUGMARK_HOME: home,
        DATABASE_URL: database.url,
        SUPABASE_URL: project.url,
        SUPABASE_SERVICE_ROLE: project.secretKey,
      },
      stdio: ["ignore", "ignore", "inherit"],
    });
  const pulled = () => numberIn(pool, "select sum(rows_pulled) from sync.pull_progress");
  let child = service();
  try {
    await eventually(pulled, (rows) => rows > 1_000);
    child.kill("SIGKILL");
    await once(child, "exit");
    const before = await numberIn(pool, "select count(*) from public.positions");
    assert.ok(before > 0 && before < devices * fixesOfEach, `${before} fixes`);
    child = service();
    await eventually(
      () => numberIn(pool, "select count(*) from sync.state where pulled_at is not null"),
      (count) => count === 1,
    );
    assert.equal(await numberIn(pool, "select count(*) from sync.pull_progress where not is_done"), 0);
    const stored = await numberIn(
      pool,
      "select sum(rows) from sync.row_counts where direction = 'pull' and table_name = 'positions'",
    );
    assert.equal(stored, devices * fixesOfEach);
    await assertSame(pool);
    assert.equal(await numberIn(pool, "select count(*) from public.last_positions"), devices);
  } finally {
    child.kill("SIGKILL");
    await pool.end();
    rmSync(home, { recursive: true });
  }
});

test("whatever happens to its questions, a station has everything in the end", async () => {
  await using proxy = await startFaultProxy({
    target: project.url,
    seed: 7,
    rate: 0.3,
    hangMs: 300,
    slowMs: 50,
  });
  await using station = await startStation("in a storm", { ...project, url: proxy.url });
  await eventually(
    () => numberIn(station.pool, "select count(*) from public.positions"),
    (count) => count === devices * fixesOfEach,
  );
  assert.ok([...proxy.counts].some(([fault, count]) => fault !== "none" && count > 0));
  proxy.calm();
  const { compared = [] } = await station.pull({ all: true });
  assert.deepEqual(
    compared.filter(({ same }) => same !== true),
    [],
  );
  await assertSame(station.pool);
});

test("what differs after everything was read is named", async () => {
  await using station = await startStation("apart", project);
  await station.pull();
  await query(
    station.pool,
    "begin; set local pugmark.applying = 'on'; update public.subjects set species = 'unlike' where name = 's1'; commit",
  );
  const { compared = [] } = await station.pull({ all: true });
  assert.deepEqual(
    compared
      .filter(({ same }) => !same)
      .map(({ table, here, project: its }) => [table, here.rows, its?.rows]),
    [["subjects", devices, devices]],
  );
});

test("where the feed does not go on from a station's place, or the project is another one, it reads everything", async () => {
  const troubles: string[] = [];
  await using station = await startStation("away for long", project, troubles);
  await station.pull();
  await station.disconnect();
  await query(station.pool, "update sync.state set pull_xid = '99999999999'");
  await query(station.pool, "begin; set local pugmark.applying = 'on'; delete from public.positions; commit");
  await station.connect();
  await station.pull();
  await assertSame(station.pool);
  assert.match(troubles.join(), /the feed does not go on from here/);

  await using another = await startSupabaseProject();
  const anotherPool = openPool({ url: another.databaseUrl, name: "test" });
  await query(anotherPool, "select public.sync_announce($1, 'other')", [other]);
  await query(
    anotherPool,
    "insert into public.subjects (id, name, station_id, changed_by) values ($1, 'new', $2, $2)",
    [nobody, other],
  );
  await anotherPool.end();
  await station.disconnect();
  await station.connect(another);
  await eventually(
    () => numberIn(station.pool, "select count(*) from public.subjects where name = 'new'"),
    (count) => count === 1,
  );
  // What came from the former project stays.
  assert.equal(await numberIn(station.pool, "select count(*) from public.positions"), devices * fixesOfEach);
});

test("a table that a station has known only since an update is read as a whole, once the project has it too", async () => {
  await using own = await startSupabaseProject();
  const ownPool = openPool({ url: own.databaseUrl, name: "test" });
  await query(ownPool, "select public.sync_announce($1, 'other')", [other]);
  await using station = await startStation("updated", own);
  await station.disconnect();
  // As before the update: the station knows no such table.
  const { rows: known } = await query<{ line: string }>(
    station.pool,
    "select to_jsonb(t)::text as line from sync.mirrored_tables t where table_name = 'conversations'",
  );
  const owner = openPool({ url: station.databaseUrl, name: "test" });
  await query(owner, "delete from sync.mirrored_tables where table_name = 'conversations'");
  await station.connect();
  await station.pull();
  await query(
    ownPool,
    `insert into public.conversations (caller, id, title, created_at, last_used_at, station_id, changed_by)
     values ('', 'early', 'early', now(), now(), $1, $1)`,
    [other],
  );
  await station.pull();
  await station.disconnect();
  await query(
    owner,
    "insert into sync.mirrored_tables select * from jsonb_populate_record(null::sync.mirrored_tables, $1)",
    [known[0]?.line],
  );
  await query(ownPool, "alter table public.conversations rename to later");
  await own.restart();
  await station.connect();
  await query(
    ownPool,
    "insert into public.subjects (id, name, station_id, changed_by) values ($1, 'new', $2, $2)",
    [nobody, other],
  );
  const has = (sql: string) =>
    eventually(
      () => numberIn(station.pool, sql),
      (count) => count === 1,
    );
  await has("select count(*) from public.subjects where name = 'new'");
  await query(ownPool, "alter table public.later rename to conversations");
  await own.restart();
  await has("select count(*) from public.conversations where id = 'early'");
  await has("select (count(*) = 0)::int from sync.pull_progress where not is_done");
  await Promise.all([owner.end(), ownPool.end()]);
});

test("a station whose key is refused says so, goes on where it was once it is right, and fails whoever asks", async () => {
  await using station = await startStation("refused", { ...project, secretKey: "sb_secret_wrong" });
  await assert.rejects(station.pull(), { code: "project-unreachable", message: /401/ });
  const errors = "select count(*) from sync.state where pull_error is not null and error_since is not null";
  assert.equal(await numberIn(station.pool, errors), 1);
  await station.disconnect();
  await station.connect(project);
  await station.pull();
  assert.equal(await numberIn(station.pool, errors), 0);
  await assertSame(station.pool);
});
