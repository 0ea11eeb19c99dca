import assert from "node:assert/strict";
import { appendFileSync, cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import pg from "pg";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import { projectRoot } from "../config/config.ts";
import { migrate } from "./migrate.ts";

const files = join(projectRoot, "supabase/migrations");
const folder = mkdtempSync(join(tmpdir(), "pugmark-migrations-"));
let database: TestDatabase;

before(async () => {
  database = await testDatabase();
});
after(async () => {
  rmSync(folder, { recursive: true });
  await database[Symbol.asyncDispose]();
});

function copy(name: string): string {
  const target = join(folder, name);
  cpSync(files, target, { recursive: true });
  return target;
}

async function scalar(statement: string): Promise<unknown> {
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  const { rows } = await client.query({ text: statement, rowMode: "array" });
  await client.end();
  return rows[0]?.[0];
}

test("a migrated database needs nothing more", async () => {
  assert.deepEqual(await migrate(database.url, files), []);
});

test("two migrators at once apply a new migration once", async () => {
  const more = copy("more");
  writeFileSync(join(more, "29990101000000_more.sql"), "create table public.more (id int);\n");
  const applied = await Promise.all([migrate(database.url, more), migrate(database.url, more)]);
  assert.deepEqual(applied.flat(), ["29990101000000_more"]);
  await scalar("drop table public.more");
  await scalar("delete from pugmark_migrations.applied where version like '2999%'");
  await scalar("delete from supabase_migrations.schema_migrations where version like '2999%'");
});

test("a migration that fails leaves nothing behind and says why", async () => {
  const broken = copy("broken");
  writeFileSync(join(broken, "29990101000000_half.sql"), "create table public.half (id int); select 1/0;\n");
  await assert.rejects(migrate(database.url, broken), {
    code: "migration-failed",
    message: /half\.sql failed: division by zero/,
  });
  assert.equal(await scalar("select to_regclass('public.half')"), null);
});

test("a changed migration stops the start and names the file", async () => {
  const changed = copy("changed");
  appendFileSync(join(changed, "20261122090200_positions.sql"), "-- later thought\n");
  await assert.rejects(migrate(database.url, changed), {
    code: "migration-changed",
    fatal: true,
    message: /20261122090200_positions\.sql has changed/,
  });
});

test("a missing migration stops the start and names the file", async () => {
  const missing = copy("missing");
  rmSync(join(missing, "20261122090300_interactions.sql"));
  await assert.rejects(migrate(database.url, missing), {
    code: "migration-missing",
    fatal: true,
    message: /20261122090300_interactions\.sql was applied/,
  });
});

test("row level security is on for every table", async () => {
  const open = await scalar(
    "select array_agg(relname::text) from pg_class where relnamespace in ('public'::regnamespace, 'sync'::regnamespace) and relkind in ('r', 'p') and not relrowsecurity",
  );
  assert.equal(open, null);
});
