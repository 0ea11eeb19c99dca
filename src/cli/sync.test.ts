import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type SupabaseProject, startSupabaseProject } from "../../test/support/supabase-project.ts";
import { localSocketPath, serveLocally } from "../http/local-socket.ts";
import { openPool, type Pool } from "../store/pool.ts";
import { eventually, fixes, type TestMirror, testMirror } from "../sync/sync.fixture.ts";
import { syncStatusOf } from "../sync/sync-error.ts";

let project: SupabaseProject;
let there: Pool;
let mirror: TestMirror;
let server: AsyncDisposable;
const home = mkdtempSync(join(tmpdir(), "pugmark-sync-cli-"));

before(async () => {
  project = await startSupabaseProject();
  there = openPool({ url: project.databaseUrl, name: "there", max: 1 });
  mirror = await testMirror(project);
  await mirror.start({ photos: { home, bucket: "photos" } });
  await eventually(
    () => mirror.ask("GET /status"),
    ([status]) => status?.state === "idle" && status.photos_state === "idle",
  );
  const onError = (error: unknown) => assert.fail(String(error));
  const path = localSocketPath(home, "sync");
  server = await serveLocally({ path, routes: mirror.routes(), statusOf: syncStatusOf, onError });
});
after(async () => {
  await server[Symbol.asyncDispose]();
  await mirror[Symbol.asyncDispose]();
  await there.end();
  await project[Symbol.asyncDispose]();
  rmSync(home, { recursive: true });
});

/** Runs the command line once, in this home or another. */
function pugmark(args: readonly string[], more: NodeJS.ProcessEnv = {}) {
  const { PATH = "" } = process.env;
  const env = { PATH, PUGMARK_HOME: home, ...more };
  const main = join(import.meta.dirname, "main.ts");
  return new Promise<{ code: number; out: string; err: string }>((resolve) => {
    const child = execFile(process.execPath, [main, ...args], { env }, (_error, out, err) =>
      resolve({ code: child.exitCode ?? -1, out, err }),
    );
  });
}

test("status tells the project, the station and that nothing waits", async () => {
  const { code, out, err } = await pugmark(["sync", "status"]);
  assert.deepEqual([code, err], [0, ""]);
  assert.match(
    out,
    new RegExp(`^project +${project.url}\nstation +test \\(.{36}\\)\nstate +idle\nwaiting +nothing\n`),
  );
  assert.match(out, /^tables +stations, devices, subjects, deployments, /m);
  const json = await pugmark(["sync", "status", "--json"]);
  assert.partialDeepStrictEqual(JSON.parse(json.out), {
    changes_waiting: 0,
    parked_rows: 0,
    push_error: null,
  });
});

test("status tells which photos wait, and what keeps them", async () => {
  const photos = async () => (await pugmark(["sync", "status"])).out.match(/^photos +(.*)$/m)?.[1];
  assert.equal(await photos(), "nothing waits (bucket photos)");
  await mirror.pool.query(
    `with subject as (insert into subjects (id, name) values (gen_random_uuid(), 'seen') returning id)
     insert into photos (id, subject_id, sha256, media_type, bytes)
     select gen_random_uuid(), id, repeat('0', 64), 'image/png', 1 from subject`,
  );
  assert.equal(await photos(), "1 to fetch (bucket photos)");
  await mirror.pool.query("delete from subjects where name = 'seen'");
  assert.equal(await photos(), "nothing waits (bucket photos)");
});

test("push returns when what waited is in the project", async () => {
  await mirror.positions.ingest(fixes("pushed", 50));
  const { code, out, err } = await pugmark(["sync", "push"]);
  assert.deepEqual([code, out, err], [0, "All that waited was sent.\n", ""]);
  const { rows } = await there.query("select count(*)::int as count from positions");
  assert.ok(rows[0].count >= 50);
});

test("as JSON each says how it ended, and nothing of how that came over", async () => {
  const answers = {
    push: { changes_waiting: 0, parked_rows: 0 },
    pull: { parked_rows: 0 },
    retry: { changes_waiting: 0, parked_rows: 0, retried: 0 },
  };
  for (const [verb, answer] of Object.entries(answers))
    assert.deepEqual(JSON.parse((await pugmark(["sync", verb, "--json"])).out), answer, verb);
});

test("pull returns when what others changed is here", async () => {
  const made = "00000000-0000-4000-8000-00000000bbbb";
  await there.query("insert into subjects (id, name, station_id, changed_by) values ($1, 'pulled', $1, $1)", [
    made,
  ]);
  // In the feed once no older transaction is open, those of neighbouring tests included.
  await eventually(
    async () => {
      const { code, out, err } = await pugmark(["sync", "pull"]);
      assert.deepEqual([code, out, err], [0, "All that others changed is here.\n", ""]);
      return (await mirror.pool.query("select from subjects where name = 'pulled'")).rowCount;
    },
    (count) => count === 1,
  );
});

test("pull --all compares both sides, and fails where a table differs", async () => {
  const same = await pugmark(["sync", "pull", "--all"]);
  assert.deepEqual([same.code, same.err], [0, ""]);
  assert.match(same.out, /^All that the project has was fetched\.\nTABLE +ROWS HERE +IN THE PROJECT\n/);
  assert.match(same.out, /^positions +50 +50 +same$/m);
  await mirror.pool.query(
    "begin; set local pugmark.applying = 'on'; update subjects set species = 'unlike' where name = 'pulled'; commit",
  );
  const other = await pugmark(["sync", "pull", "--all"]);
  assert.deepEqual([other.code, /the two sides differ/.test(other.err)], [1, true]);
  assert.match(other.out, /^subjects +\d+ +\d+ +differ$/m);
  const json = await pugmark(["sync", "pull", "--all", "--json"]);
  assert.equal(json.code, 1);
  const { compared } = JSON.parse(json.out) as { compared: { table: string; same: boolean }[] };
  assert.deepEqual(
    compared.filter((each) => !each.same).map(({ table }) => table),
    ["subjects"],
  );
  await mirror.pool.query("delete from subjects where name = 'pulled'");
  assert.equal((await pugmark(["sync", "push"])).code, 0);
});

test("push --all compares both sides, table by table", async () => {
  const { code, out, err } = await pugmark(["sync", "push", "--all"]);
  assert.deepEqual([code, err], [0, ""]);
  assert.match(out, /^All that this station has was sent\.\nTABLE +ROWS MADE HERE +IN THE PROJECT\n/);
  assert.match(out, /^positions +50 +50 +same$/m);
});

test("where no table is mirrored, nothing is said to have been sent", async () => {
  const other = mkdtempSync(join(tmpdir(), "pugmark-sync-cli-"));
  await using _socket = await serveLocally({
    path: localSocketPath(other, "sync"),
    routes: {
      "GET /status": async () => ({
        ...(await mirror.ask("GET /status"))[0],
        tables: [],
        history_sent_at: null,
      }),
      "POST /push": async function* () {
        yield { kind: "done", changes_waiting: 0, parked_rows: 0, compared: [] };
      },
    },
    statusOf: syncStatusOf,
    onError: (error) => assert.fail(String(error)),
  });
  const { code, out } = await pugmark(["sync", "push", "--all"], { PUGMARK_HOME: other });
  assert.deepEqual([code, out], [0, "Nothing was sent: SUPABASE_MIRROR leaves all tables out.\n"]);
  const status = await pugmark(["sync", "status"], { PUGMARK_HOME: other });
  assert.match(status.out, /^tables +none$/m);
  assert.doesNotMatch(status.out, /^history/m);
  rmSync(other, { recursive: true });
});

test("push --all and pull --all fail where the project does not say what it has", async () => {
  const right = "execute on function public.sync_checksum(text, uuid)";
  await there.query(`revoke ${right} from service_role`);
  for (const verb of ["push", "pull"]) {
    const { code, out, err } = await pugmark(["sync", verb, "--all"]);
    assert.deepEqual([code, /did not say what it has of devices, .*try again/.test(err)], [1, true], err);
    assert.match(out, /^positions +50 +\? +permission denied/m);
    assert.equal((await pugmark(["sync", verb, "--all", "--json"])).code, 1);
  }
  await there.query(`grant ${right} to service_role`);
});

test("a row that was set aside is shown with its reason, makes the exit code 1, and retry sends it when it can go", async () => {
  await there.query("alter table subjects add constraint tame check (name <> 'poison')");
  await mirror.pool.query("insert into subjects (id, name) values (gen_random_uuid(), 'poison')");
  const pushed = await pugmark(["sync", "push"]);
  assert.equal(pushed.code, 1);
  assert.match(pushed.out, /^1 set aside, .*pugmark sync status$/m);
  const { code, out } = await pugmark(["sync", "status"]);
  assert.equal(code, 1);
  assert.match(out, /^set aside +1 row; pugmark sync retry, once the cause is gone$/m);
  assert.match(out, /^subjects +.{36} .*tame/m);
  assert.equal((await pugmark(["sync", "retry"])).code, 1);
  await there.query("alter table subjects drop constraint tame");
  const retried = await pugmark(["sync", "retry"]);
  assert.deepEqual([retried.code, retried.out], [0, "1 sent once more.\n"]);
});

test("where nothing mirrors, it says what to do and exits with 3", async () => {
  const elsewhere = { PUGMARK_HOME: join(home, "elsewhere") };
  for (const verb of ["status", "push", "retry"]) {
    const { code, out, err } = await pugmark(["sync", verb], elsewhere);
    assert.deepEqual([code, out], [3, ""]);
    assert.match(err, /^pugmark: nothing mirrors .*: set SUPABASE_URL and SUPABASE_SERVICE_ROLE, .*\n$/);
  }
  const set = { ...elsewhere, SUPABASE_URL: project.url, SUPABASE_SERVICE_ROLE: "sb_secret_of_nobody" };
  const { err } = await pugmark(["sync", "status"], set);
  assert.match(err, /pugmark status shows whether the station runs/);
  assert.ok(!err.includes("sb_secret"));
});
