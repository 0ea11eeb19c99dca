import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type SupabaseProject, startSupabaseProject } from "../../test/support/supabase-project.ts";
import { localSocketPath, serveLocally } from "../http/local-socket.ts";
import { openPool, type Pool } from "../store/pool.ts";
import { Project } from "../sync/project.ts";
import { addDeviceKey, listDeviceKeys, revokeDeviceKey } from "../sync/routes/device-keys.ts";
import { type TestMirror, testMirror } from "../sync/sync.fixture.ts";
import { syncStatusOf } from "../sync/sync-error.ts";

let project: SupabaseProject;
let there: Pool;
let mirror: TestMirror;
let server: AsyncDisposable;
const home = mkdtempSync(join(tmpdir(), "pugmark-device-keys-"));

before(async () => {
  project = await startSupabaseProject();
  there = openPool({ url: project.databaseUrl, name: "there", max: 1 });
  mirror = await testMirror(project);
  await mirror.start();
  const path = localSocketPath(home, "sync");
  const onError = (error: unknown) => assert.fail(String(error));
  server = await serveLocally({ path, routes: mirror.routes(), statusOf: syncStatusOf, onError });
});
after(async () => {
  await server[Symbol.asyncDispose]();
  await mirror[Symbol.asyncDispose]();
  await there.end();
  await project[Symbol.asyncDispose]();
  rmSync(home, { recursive: true });
});

function deviceKey(...args: readonly string[]) {
  const env = { PATH: process.env.PATH ?? "", PUGMARK_HOME: home };
  const main = join(import.meta.dirname, "main.ts");
  return new Promise<{ code: number; out: string; err: string }>((resolve) => {
    const child = execFile(
      process.execPath,
      [main, "supabase", "device-key", ...args],
      { env },
      (_error, out, err) => resolve({ code: child.exitCode ?? -1, out, err }),
    );
  });
}

test("a device key is shown once, and the project has its hash alone", async () => {
  const { code, out, err } = await deviceKey("add", "collar-7");
  assert.equal(code, 0, err);
  assert.match(out, /^pmk_[\w-]{43}\n$/);
  assert.match(err, /^For collar-7, with the id .*only its hash is kept\.\n$/);
  const { rows } = await there.query(
    "select device, key_hash, device_keys::text as whole from public.device_keys",
  );
  assert.deepEqual(
    rows.map(({ device, key_hash }) => [device, key_hash]),
    [["collar-7", createHash("sha256").update(out.trim()).digest("hex")]],
  );
  assert.ok(!rows[0].whole.includes(out.trim()));
  const listed = await deviceKey("list");
  assert.match(listed.out, /^ID +DEVICE +MADE +REVOKED\n.{36} +collar-7 +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n$/);
  assert.ok(!`${listed.out}${mirror.log.join("\n")}`.includes(out.trim()));
});

test("a revoked key is worthless from then on, however often it is revoked", async () => {
  const { id } = JSON.parse((await deviceKey("add", "*", "--json")).out);
  const first = await deviceKey("revoke", id);
  assert.deepEqual([first.code, first.out], [0, "The key of * opens nothing any more.\n"]);
  const revokedAt = async () => {
    const { device_keys: keys } = JSON.parse((await deviceKey("list", "--json")).out);
    return keys.find((key: { id: string }) => key.id === id).revoked_at;
  };
  const at = await revokedAt();
  assert.ok(Math.abs(Date.parse(at) - Date.now()) < 60_000, at);
  assert.equal((await deviceKey("revoke", id)).code, 0);
  assert.equal(await revokedAt(), at);
});

test("what cannot be done is said, with an exit code", async () => {
  const unknown = await deviceKey("revoke", "01a20348-1dd6-7628-8436-6aab90d1a1d5");
  assert.deepEqual([unknown.code, /no device key of that id/.test(unknown.err)], [1, true]);
  assert.equal((await deviceKey("add", " ")).code, 1);
  await project.kill();
  const away = await deviceKey("add", "collar-8");
  assert.deepEqual([away.code, away.out, /does not answer/.test(away.err)], [1, "", true]);
  await project.restart();
});

test("where what answers quotes the secret key, nobody is shown it", async (t) => {
  const key = "sb_secret_that_some_gateway_quotes";
  const gateway = createServer((request, response) => {
    const message = `no such key: ${request.headers.apikey}`;
    response.writeHead(401, { "content-type": "application/json" }).end(JSON.stringify({ message }));
  });
  t.after(() => gateway.close());
  gateway.listen(0, "127.0.0.1");
  await once(gateway, "listening");
  await using there = new Project({
    url: `http://127.0.0.1:${(gateway.address() as AddressInfo).port}`,
    key,
  });
  const { signal } = new AbortController();
  const asked = { query: new URLSearchParams({ id: randomUUID() }), body: { device: "collar-7" }, signal };
  for (const route of [addDeviceKey, listDeviceKeys, revokeDeviceKey]) {
    const answer = async () => await route({ project: there })(asked);
    await assert.rejects(answer, ({ message }: Error) => {
      assert.match(message, /no such key: \*+;/, route.name);
      return !message.includes(key);
    });
  }
});
