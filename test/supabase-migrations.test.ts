import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import pg from "pg";
import { projectRoot } from "../src/config/config.ts";
import { useConversation } from "../src/store/conversations.ts";
import { migrate } from "../src/store/migrate.ts";
import { openPool } from "../src/store/pool.ts";
import { PositionStore } from "../src/store/positions.ts";
import { type HostedDatabase, hostedDatabase } from "./support/hosted-database.ts";

const migrations = join(projectRoot, "supabase/migrations");
const folder = mkdtempSync(join(tmpdir(), "pugmark-supabase-"));
let byCli: HostedDatabase;
let byStation: HostedDatabase;

before(async () => {
  cpSync(migrations, join(folder, "supabase/migrations"), { recursive: true });
  [byCli, byStation] = await Promise.all([hostedDatabase(), hostedDatabase()]);
});
after(async () => {
  rmSync(folder, { recursive: true });
  await byCli[Symbol.asyncDispose]();
  await byStation[Symbol.asyncDispose]();
});

/** Runs the Supabase CLI's `db push`; gives what it says. */
async function push(url: string): Promise<string> {
  const program = join(projectRoot, "node_modules/.bin/supabase");
  const target = `--db-url=${url}?sslmode=disable`;
  const { stdout, stderr } = await promisify(execFile)(program, ["db", "push", target, "--yes"], {
    cwd: folder,
    // A home of its own, and nothing is reported to its makers.
    env: { PATH: process.env.PATH, HOME: folder, DO_NOT_TRACK: "1", SUPABASE_TELEMETRY_DISABLED: "1" },
  });
  return stdout + stderr;
}

/** Everything that migrations make, in words that do not depend on who made it, or when. */
async function schemaOf(url: string): Promise<string[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query<{ line: string }>(`
    select format('column %s.%s.%s %s', table_schema, table_name, column_name, data_type) as line
    from information_schema.columns where table_schema in ('public', 'sync')
    union all
    select format('grant %s.%s %s %s', table_schema, table_name, grantee, privilege_type)
    from information_schema.role_table_grants
    where table_schema in ('public', 'sync') and grantee <> current_user
    union all
    select format('policy %s.%s %s %s', schemaname, tablename, policyname, roles) from pg_policies
    union all
    select format('trigger %s %s', tgrelid::regclass, tgname) from pg_trigger where not tgisinternal
    union all
    select format('function %s %s', oid::regprocedure, prosecdef) from pg_proc
    where pronamespace in ('public'::regnamespace, 'sync'::regnamespace)
    order by 1`);
  await client.end();
  return rows.map(({ line }) => line);
}

test("the Supabase CLI applies all migrations to a new project, and a station then has nothing to apply", async () => {
  assert.match(await push(byCli.url), /Finished supabase db push/);
  assert.deepEqual(await migrate(byCli.url, migrations), []);
});

test("a station applies them to a new project, with the same outcome, and the Supabase CLI then has nothing to apply", async () => {
  assert.ok((await migrate(byStation.url, migrations)).length > 10);
  assert.match(await push(byStation.url), /up to date/);
  assert.deepEqual(await migrate(byStation.url, migrations), []);
  assert.deepEqual(await schemaOf(byStation.url), await schemaOf(byCli.url));
});

test("a station works on a project's database as its own", async () => {
  const pool = openPool({ url: byStation.url, role: "pugmark_app", name: "test" });
  const fix = { device: "collar", time: Date.parse("2024-03-01T00:00:00Z"), lat: 1, lon: 2 };
  assert.deepEqual(await new PositionStore(pool).ingest([fix]), { accepted: 1, duplicates: 0 });
  await pool.query("update sync.mirrored_tables set is_recorded = true");
  await new PositionStore(pool).ingest([{ ...fix, time: fix.time + 1_000 }]);
  const { rows } = await pool.query("select table_name from sync.changes");
  assert.deepEqual(rows, [{ table_name: "positions" }]);
  await pool.end();
});

test("a station with history keeps it when it becomes one that can be mirrored", async () => {
  await using station = await hostedDatabase();
  const before = join(folder, "before");
  const isOld = (file: string) => !file.endsWith(".sql") || basename(file).startsWith("20261122");
  cpSync(migrations, before, { recursive: true, filter: isOld });
  await migrate(station.url, before);
  const client = new pg.Client({ connectionString: station.url });
  await client.connect();
  await client.query(`
    insert into subjects (id, name) values (md5('s')::uuid, 'Ada');
    insert into devices (id, key) values (md5('d')::uuid, 'collar');
    insert into deployments (id, device_id, subject_id) values (md5('p')::uuid, md5('d')::uuid, md5('s')::uuid);
    select ensure_positions_partition('2024-03-01');
    insert into positions (device_id, time, lat, lon) values (md5('d')::uuid, '2024-03-01T00:00:00Z', 1, 2);
    insert into conversations (caller, id, title, created_at, last_used_at)
    values ('local', 'c', 'First words', now(), now()), ('other', 'c', 'Their words', now(), now())`);
  await migrate(station.url, migrations);
  const pool = openPool({ url: station.url, role: "pugmark_app", name: "test" });
  const store = new PositionStore(pool);
  const fixes = [0, 1_000].map((ms) => ({
    ...{ device: "collar", time: Date.parse("2024-03-01T00:00:00Z") + ms },
    ...{ lat: 1, lon: 2 },
  }));
  // The device keeps its id, or its history would be somebody else's.
  assert.deepEqual(await store.ingest(fixes), { accepted: 1, duplicates: 1 });
  await useConversation(pool, { caller: "local", id: "c", title: "Later words", at: new Date() });
  const { rows } = await client.query(
    "select title, count(distinct conversation_id)::int as ids from conversations group by title order by title",
  );
  assert.deepEqual(rows, [
    { title: "First words", ids: 1 },
    { title: "Their words", ids: 1 },
  ]);
  await pool.end();
  await client.end();
});
