import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { createClient } from "@supabase/supabase-js";
import { closedPort } from "../../../test/support/ports.ts";
import { type SupabaseProject, startSupabaseProject } from "../../../test/support/supabase-project.ts";
import { projectRoot } from "../../config/config.ts";
import { readMigrations } from "../../store/migrate.ts";
import { openPool, query } from "../../store/pool.ts";
import { checkProject, type ProjectToCheck } from "./check-project.ts";

const versions = readMigrations(join(projectRoot, "supabase", "migrations")).map(({ version }) => version);

let project: SupabaseProject;
before(async () => {
  project = await startSupabaseProject();
});
after(async () => {
  await project[Symbol.asyncDispose]();
});

/** Each check's outcome and words. */
async function found(changed: Partial<ProjectToCheck> = {}): Promise<Record<string, string>> {
  const { url, publishableKey, secretKey } = project;
  const asked = { url, publishableKey, secretKey, hasJwtSecret: false, versions, ...changed };
  const { findings } = await checkProject(asked);
  const { secretKey: key = "", publishableKey: other = "" } = asked;
  for (const secret of [key, other].filter(Boolean)) assert.ok(!JSON.stringify(findings).includes(secret));
  return Object.fromEntries(findings.map(({ check, outcome, detail }) => [check, `${outcome}: ${detail}`]));
}

test("a project that has everything but a station is said to have it", async () => {
  const host = new URL(project.url).host;
  assert.deepEqual(
    { ...(await found()), clock: "" },
    {
      project: `ok: ${host} answers`,
      key: "ok: SUPABASE_KEY is accepted",
      users:
        "warn: cannot be known: the project publishes no keys, so it signs their tokens by its legacy secret",
      inbox: "warn: the function ingest is not there: phones cannot report to the project",
      secret: "ok: SUPABASE_SERVICE_ROLE is accepted",
      schema: `ok: all ${versions.length} migrations are applied`,
      feed: "warn: no station has come to this project yet",
      clock: "",
    },
  );
  assert.match((await found()).clock ?? "", /^ok: [\d.]+ s from/);
  assert.equal((await found({ hasJwtSecret: true })).users, "ok: are known by the legacy secret");
});

test("keys that are wrong, absent or in each other's place are told apart", async () => {
  const { publishableKey, secretKey } = project;
  const wrong = await found({ publishableKey: "sb_publishable_wrong", secretKey: "sb_secret_wrong" });
  assert.match(wrong.key ?? "", /^fail: SUPABASE_KEY is refused \(401\)/);
  assert.match(wrong.secret ?? "", /^fail: SUPABASE_SERVICE_ROLE is refused \(401\)/);
  const absent = await found({ publishableKey: undefined, secretKey: undefined });
  assert.match(absent.key ?? "", /^warn: SUPABASE_KEY is not set/);
  assert.match(absent.secret ?? "", /^fail: SUPABASE_SERVICE_ROLE is not set/);
  const swapped = await found({ publishableKey: secretKey, secretKey: publishableKey });
  assert.match(swapped.key ?? "", /^fail: SUPABASE_KEY is the secret key/);
  assert.match(swapped.secret ?? "", /^fail: SUPABASE_SERVICE_ROLE is a key, but not the secret one/);
});

test("missing migrations are counted, and newer ones than ours are noticed", async () => {
  const next = await found({ versions: [...versions, "20991231000000"] });
  assert.equal(next.schema, `fail: lacks 1 of ${versions.length + 1} migrations, from 20991231000000 on`);
  assert.match((await found({ versions: versions.slice(0, -2) })).schema ?? "", /^warn: has 2 migrations/);
});

test("what the Supabase CLI applied counts too, and what of it is not ours is nobody's concern", async () => {
  await sql(`
    create schema if not exists supabase_migrations;
    create table if not exists supabase_migrations.schema_migrations (version text primary key);
    insert into supabase_migrations.schema_migrations (version) values ('20991231000000')`);
  const { schema } = await found({ versions: [...versions, "20991231000000"] });
  const { schema: without } = await found();
  await sql("delete from supabase_migrations.schema_migrations where version = '20991231000000'");
  assert.match(schema ?? "", /^ok/);
  assert.match(without ?? "", /^ok/);
});

test("once a station has announced itself, the project is a feed", async () => {
  await sql("select public.sync_announce(gen_random_uuid(), 'north')");
  assert.match((await found()).feed ?? "", /^ok/);
});

test("the bucket of photos is looked for where one is named, and is to be private", async () => {
  const { url, secretKey } = project;
  assert.equal((await found()).photos, undefined);
  assert.equal((await found({ photosBucket: "pictures" })).photos, "warn: there is no bucket pictures yet");
  const { storage } = createClient(url, secretKey);
  await storage.createBucket("pictures", { public: false });
  assert.equal(
    (await found({ photosBucket: "pictures" })).photos,
    "ok: the bucket pictures is there, and private",
  );
  await storage.updateBucket("pictures", { public: true });
  assert.equal(
    (await found({ photosBucket: "pictures" })).photos,
    "fail: the bucket pictures is public: no photo is sent there",
  );
});

async function sql(statements: string): Promise<void> {
  const pool = openPool({ url: project.databaseUrl, name: "test", max: 1 });
  await query(pool, statements).finally(() => pool.end());
}

test("where no project answers, the address is what is wrong and nothing else is asked", async () => {
  const only = async (url: string) => Object.entries(await found({ url }));
  assert.deepEqual(await only(`http://127.0.0.1:${closedPort}`), [
    ["project", `fail: nothing answers at 127.0.0.1:${closedPort}`],
  ]);
  let answer: RequestListener = (_request, response) => response.writeHead(540).end();
  const server = createServer((request, response) => answer(request, response)).listen(0, "127.0.0.1");
  await once(server, "listening");
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  assert.deepEqual(await only(`http://${host}`), [["project", `fail: ${host} is paused`]]);
  answer = (_request, response) => response.end("<!doctype html>");
  assert.deepEqual(await only(`http://${host}/`), [
    ["project", `fail: what answers at ${host} is no project`],
  ]);
  answer = (_request, response) =>
    response.writeHead(404, { "content-type": "application/json" }).end('{"message":"Not found"}');
  assert.deepEqual(await only(`http://${host}/rest/v1/`), [
    ["project", `fail: what answers at ${host}/rest/v1 is no project`],
  ]);
  server.close();
  server.closeAllConnections();
});
