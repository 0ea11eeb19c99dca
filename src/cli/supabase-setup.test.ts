import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import pg from "pg";
import { testDatabase } from "../../test/support/postgres.ts";
import { projectRoot } from "../config/config.ts";
import type { Finding } from "../config/finding.ts";

const main = join(projectRoot, "src", "cli", "main.ts");
const files = readdirSync(join(projectRoot, "supabase", "migrations"));
const newest = files
  .sort()
  .at(-1)
  ?.replace(/\.sql$/, "");

let home: string;
let database: Awaited<ReturnType<typeof testDatabase>>;
before(async () => {
  home = mkdtempSync(join(tmpdir(), "pugmark-setup-"));
  database = await testDatabase();
});
after(async () => {
  await database[Symbol.asyncDispose]();
  rmSync(home, { recursive: true });
});

/** An empty database in the same Postgres, as a new project has one. */
async function emptyDatabase(): Promise<AsyncDisposable & { readonly url: string }> {
  const name = `setup_${process.pid}_${Math.random().toString(36).slice(2, 10)}`;
  const run = async (statement: string) => {
    const admin = new pg.Client({ connectionString: database.url });
    await admin.connect();
    await admin.query(statement).finally(() => admin.end());
  };
  await run(`create database ${name} template template0`);
  const url = new URL(database.url);
  url.pathname = `/${name}`;
  return {
    url: url.href,
    [Symbol.asyncDispose]: () => run(`drop database ${name} with (force)`),
  };
}

function setup(
  args: readonly string[],
  input = "",
  settings: NodeJS.ProcessEnv = {},
): Promise<{ code: unknown; stdout: string; stderr: string }> {
  const { promise, resolve } = Promise.withResolvers<{ code: unknown; stdout: string; stderr: string }>();
  const env = { PATH: process.env.PATH, PUGMARK_HOME: home, ...settings };
  const options = { env, maxBuffer: 16 * 1024 ** 2 };
  const child = execFile(
    process.execPath,
    [main, "supabase", "setup", ...args],
    options,
    (_error, stdout, stderr) => resolve({ code: child.exitCode, stdout, stderr }),
  );
  child.stdin?.end(input);
  return promise;
}

test("without a project, what to set is said", async () => {
  const { code, stdout } = await setup(["--json"]);
  const { ok, findings } = JSON.parse(stdout) as { ok: boolean; findings: Finding[] };
  assert.deepEqual([code, ok], [1, false]);
  assert.match(findings[0]?.remedy ?? "", /SUPABASE_URL, SUPABASE_KEY and SUPABASE_SERVICE_ROLE/);
});

test("a connection string that comes by a pipe has the whole schema applied, and nothing the second time", async () => {
  await using empty = await emptyDatabase();
  const first = JSON.parse((await setup(["--apply", "--json"], `${empty.url}\n`)).stdout);
  assert.equal(first.applied.length, files.length);
  assert.equal(first.applied.at(-1), newest);
  const second = JSON.parse((await setup(["--apply", "--json", "--database-url", empty.url])).stdout);
  assert.deepEqual(second.applied, []);
});

test("a project whose API has not read the applied schema yet is asked again", async () => {
  await using empty = await emptyDatabase();
  let asked = 0;
  const server = createServer((request, response) => {
    const answer = (status: number, body: object) =>
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    if (!request.url?.endsWith("/rpc/sync_project_state")) return answer(200, {});
    asked += 1;
    if (asked < 3) return answer(404, { code: "PGRST202", message: "Could not find the function" });
    const versions = { pugmark: files.map((file) => file.slice(0, 14)), supabase: [] };
    return answer(200, { versions, is_feed: false, now: new Date().toISOString() });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const project = { SUPABASE_URL: `http://127.0.0.1:${port}`, SUPABASE_SERVICE_ROLE: "sb_secret_x" };
  const { code, stdout } = await setup(["--apply", "--json"], empty.url, project);
  server.close();
  server.closeAllConnections();
  const { findings } = JSON.parse(stdout) as { findings: Finding[] };
  assert.equal(findings.find(({ check }) => check === "schema")?.outcome, "ok");
  assert.deepEqual([code, asked], [0, 3]);
});

test("the script for the SQL editor makes the same schema, and is known to have been applied", async () => {
  await using empty = await emptyDatabase();
  const { stdout, stderr } = await setup(["--sql"]);
  assert.match(stderr, /these are all of them/);
  const client = new pg.Client({ connectionString: empty.url });
  await client.connect();
  await client.query(stdout);
  const cli = await client
    .query("select version from supabase_migrations.schema_migrations order by version")
    .finally(() => client.end());
  assert.deepEqual(
    cli.rows.map(({ version }) => version),
    files.map((file) => file.slice(0, 14)),
  );
  const { applied } = JSON.parse((await setup(["--apply", "--json"], empty.url)).stdout);
  assert.deepEqual(applied, []);
});

test("a connection string that cannot be the right one is refused before anything is asked, and never shown", async () => {
  for (const [url, why] of [
    ["https://abc.supabase.co", /a connection string is needed/],
    ["postgres://postgres:[YOUR-PASSWORD]@db.abc.supabase.co:5432/postgres", /database's password/],
    ["postgres://postgres:hidden-1@pooler.supabase.com:6543/postgres", /port 6543 is the transaction pooler/],
    ["postgres://postgres:hidden-1%@db.abc.supabase.co:5432/postgres", /write each % .* as %25/],
    ["postgres://postgres.a%zz:hidden-1@db.abc.supabase.co:5432/postgres", /write each % .* as %25/],
    ["", /a connection string is needed/],
  ] as const) {
    const { code, stdout, stderr } = await setup(["--apply"], url);
    assert.equal(code, 2, url);
    assert.match(stderr, why);
    assert.doesNotMatch(stdout + stderr, /hidden-1/);
  }
});

test("a database that refuses is quoted without the password", async () => {
  const wrong = new URL(database.url);
  wrong.username = "nobody-here";
  wrong.password = "hidden-2";
  const { code, stderr } = await setup(["--apply"], wrong.href);
  assert.equal(code, 1);
  assert.match(stderr, /could not be brought up to date: .*nobody-here/);
  assert.doesNotMatch(stderr, /hidden-2/);
});
