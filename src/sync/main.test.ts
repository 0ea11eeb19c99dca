import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { closedPort } from "../../test/support/ports.ts";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import { syncProcess } from "../../test/support/sync-process.ts";
import { askLocally } from "../http/local-client.ts";
import type { SyncStatus } from "./routes/status.ts";
import { eventually } from "./sync.fixture.ts";

const run = promisify(execFile);
const key = "sb_secret_that_nobody_may_see";

let database: TestDatabase;
before(async () => {
  database = await testDatabase();
});
after(() => database[Symbol.asyncDispose]());

const settings = (more: Readonly<Record<string, string>> = {}) => ({
  DATABASE_URL: database.url,
  SUPABASE_URL: `http://127.0.0.1:${closedPort}`,
  SUPABASE_SERVICE_ROLE: key,
  ...more,
});

test("the service runs while the project is away, says so, and shows its key to nobody", async () => {
  await using sync = syncProcess(settings({ STATION_NAME: "barn" }));
  await sync.start();
  const ask = () => askLocally<SyncStatus>(sync.socket, { method: "GET", path: "/status" });
  const status = await eventually(ask, ({ push_error }) => push_error !== null);
  assert.match(status.push_error ?? "", /^the project does not answer/);
  assert.equal(status.station?.name, "barn");
  const { stdout: processes } = await run("ps", ["-eo", "args"]);
  assert.ok(!processes.includes(key));
  assert.ok(!JSON.stringify(status).includes(key));
  await eventually(
    async () => sync.output(),
    (output) => output.includes("nothing gets through"),
  );
  assert.ok(!sync.output().includes(key), sync.output());
});

test("it ends at SIGTERM, also in the middle of waiting, and leaves no socket", async () => {
  await using sync = syncProcess(settings());
  await sync.start();
  assert.ok(existsSync(sync.socket));
  await sync.end();
  assert.ok(!existsSync(sync.socket));
});

test("a table that there is not, and a missing key, stop the start with a line that says so", async () => {
  await using misspelt = syncProcess(settings({ SUPABASE_MIRROR: "position" }));
  await assert.rejects(
    misspelt.start(),
    /\(2\): SUPABASE_MIRROR names position, which is no mirrored table; there are .*positions/,
  );
  await using keyless = syncProcess(settings({ SUPABASE_SERVICE_ROLE: "" }));
  await assert.rejects(keyless.start(), /\(2\): SUPABASE_URL and SUPABASE_SERVICE_ROLE are not both set/);
});
