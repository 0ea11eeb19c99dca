import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, matchesGlob } from "node:path";
import { buffer } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { loadConfig, projectRoot } from "../config/config.ts";
import { refuses } from "../process-manager/fixture.ts";
import { edgeService } from "./edge.ts";
import { Project } from "./project.fixture.ts";

const secret = "sb_secret_which_only_the_mirror_has";

test("functions serve runs the functions under a manager, and tells them no secret of the station", {
  skip: process.platform !== "linux" && "looks at processes as Linux shows them",
}, async (t) => {
  const project = await Project.create(t, {});
  const { env, folder } = project.fixture;
  Object.assign(env, { PUGMARK_HOME: join(folder, "home"), SUPABASE_URL: "http://127.0.0.1:2" });
  Object.assign(env, { SUPABASE_KEY: "sb_publishable_1", SUPABASE_SERVICE_ROLE: secret });
  const port = await project.fixture.freePort();
  const serve = project.run("functions", "serve", "--port", String(port));
  t.after(() => serve.child.kill("SIGKILL"));
  await serve.printed(`Functions are at http://127.0.0.1:${port}/functions/v1/NAME`);
  const ask = () => fetch(`http://127.0.0.1:${port}/functions/v1/ingest/osmand?id=a`);
  assert.deepEqual([(await ask()).status], [503]);

  const deno = denoBelow(serve.child.pid as number);
  const [environment, line] = ["environ", "cmdline"].map((name) =>
    readFileSync(`/proc/${deno}/${name}`, "utf8"),
  );
  assert.match(String(environment), /SUPABASE_ANON_KEY=sb_publishable_1/);
  assert.ok(!`${environment} ${line}`.includes(secret));
  process.kill(deno, "SIGKILL");
  await serve.printed(/edge · ready[\s\S]*edge · ready/);
  assert.equal((await ask()).status, 503);

  serve.child.kill("SIGTERM");
  assert.equal(await serve.ended, 0);
  assert.equal(await refuses(port), true);
  assert.ok(!serve.output().includes(secret));
});

test("a change of what functions are told restarts nothing that would not hear of it", () => {
  const { watch } = edgeService(loadConfig({}, "/nowhere/.env").config, { host: "127.0.0.1", port: 1 });
  const isIgnored = (path: string) => watch?.ignore?.some((glob) => matchesGlob(path, glob));
  assert.equal(isIgnored("supabase/functions/.env"), true);
  assert.equal(isIgnored("supabase/functions/ingest/index.ts"), false);
});

/** The process of Deno among those that a manager has started. */
function denoBelow(pid: number): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean);
  const found = children.find((child) => /deno\0run/.test(readFileSync(`/proc/${child}/cmdline`, "utf8")));
  return Number(found ?? assert.fail("no Deno runs"));
}

interface Uploaded {
  readonly path: string;
  readonly files: ReadonlyMap<string, string>;
  readonly metadata: Record<string, unknown>;
}

/** Stands in for Supabase's management API; keeps what is uploaded. */
async function managementApi(t: TestContext): Promise<{ profile: string; uploads: Uploaded[] }> {
  const uploads: Uploaded[] = [];
  const server = createServer(async (request, response) => {
    response.setHeader("content-type", "application/json");
    if (request.method !== "POST") return void response.writeHead(404).end('{"message":"not found"}');
    const headers = { "content-type": request.headers["content-type"] ?? "" };
    const form = await new Response(await buffer(request), { headers }).formData();
    const files = new Map<string, string>();
    for (const file of form.getAll("file"))
      if (typeof file !== "string") files.set(file.name, await file.text());
    uploads.push({ path: request.url ?? "", files, metadata: JSON.parse(String(form.get("metadata"))) });
    const made = { id: "1", slug: "ingest", name: "ingest", status: "ACTIVE", version: 1 };
    response.writeHead(201).end(JSON.stringify({ ...made, created_at: 1, updated_at: 1, verify_jwt: false }));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const folder = await mkdtemp(join(tmpdir(), "pugmark-deploy-"));
  t.after(async () => {
    server.close();
    await rm(folder, { recursive: true });
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const profile = join(folder, "profile.yaml");
  await writeFile(profile, `name: test\napi_url: ${url}\ndashboard_url: ${url}\nproject_host: localhost\n`);
  return { profile, uploads };
}

test("functions deploy shows the Supabase CLI's command, and uploads what the function imports", async (t) => {
  const project = await Project.create(t, {});
  const { profile, uploads } = await managementApi(t);
  const ref = "abcdefghijklmnopqrst";
  Object.assign(project.fixture.env, {
    HOME: project.folder,
    SUPABASE_PROFILE: profile,
    SUPABASE_ACCESS_TOKEN: `sbp_${"0".repeat(40)}`,
    SUPABASE_URL: `https://${ref}.supabase.co`,
    DO_NOT_TRACK: "1",
  });
  const deploy = project.run("functions", "deploy", "ingest");
  assert.equal(await deploy.ended, 0, deploy.output());
  assert.match(
    deploy.output(),
    new RegExp(`\\$ supabase functions deploy ingest --use-api --project-ref ${ref}`),
  );
  const [{ path, files, metadata } = assert.fail("nothing was uploaded"), ...more] = uploads;
  assert.equal(more.length, 0);
  assert.equal(path, `/v1/projects/${ref}/functions/deploy?slug=ingest`);
  assert.equal(metadata.verify_jwt, false);
  for (const name of [
    "supabase/functions/ingest/index.ts",
    "src/tracking/fix.ts",
    "src/tracking/decoders/osmand.ts",
  ])
    assert.equal(files.get(name), readFileSync(join(projectRoot, name), "utf8"), name);
});

test("functions deploy says what is missing: a project, the function, a login", async (t) => {
  const project = await Project.create(t, {});
  Object.assign(project.fixture.env, { HOME: project.folder, DO_NOT_TRACK: "1" });
  const nowhere = project.pugmark("functions", "deploy");
  assert.deepEqual([nowhere.status, /which project\? .*--project-ref/.test(nowhere.stderr)], [2, true]);
  const ref = ["--project-ref", "abcdefghijklmnopqrst"];
  const unknown = project.pugmark("functions", "deploy", "egress", ...ref);
  assert.deepEqual([unknown.status, /no function .*egress/.test(unknown.stderr)], [2, true]);
  const stranger = project.pugmark("functions", "deploy", "ingest", ...ref);
  assert.notEqual(stranger.status, 0);
  assert.match(stranger.stderr, /log in first: `npx supabase login`/);
});
