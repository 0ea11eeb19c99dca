import assert from "node:assert/strict";
import { once } from "node:events";
import { chmod, mkdir, rm, stat } from "node:fs/promises";
import http from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import { ControlClient } from "./control-client.ts";
import { controlSocketPath } from "./control-socket.ts";
import { defineExternal, defineService } from "./definition.ts";
import { Fixture, forever, recordOf, untilState } from "./fixture.ts";

const failing = defineService({
  name: "broken",
  command: forever,
  prepare: async () => {
    throw Object.assign(new Error("the disk is full"), { fatal: true });
  },
});
const api = defineService({
  name: "api",
  description: "tracking",
  command: ["/bin/sh", "-c", "echo hello; exec sleep 1000"],
});
const redis = defineExternal({
  kind: "external",
  name: "redis",
  probe: { kind: "check", check: async () => undefined },
});

test("services are listed, started, restarted and stopped over the control socket", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([api, redis]);
  const client = new ControlClient(fixture.home);
  const [first] = await client.services();
  assert.deepEqual({ ...first, ...recordOf(manager, "api") }, first);
  assert.equal(first?.state, "stopped");
  assert.equal(first?.description, "tracking");
  const started = await client.start("api");
  assert.equal(started.state, "ready");
  const restarted = await client.restart("api");
  assert.equal(restarted.state, "ready");
  assert.notEqual(restarted.pid, started.pid);
  assert.equal((await client.stop("api")).state, "stopped");
  assert.equal((await client.start("redis")).kind, "external");
});

test("a manager whose control socket was deleted is not said to be absent", async (t) => {
  const fixture = await Fixture.create(t);
  await fixture.open([api]);
  await rm(controlSocketPath(fixture.home));
  await assert.rejects(new ControlClient(fixture.home).services(), {
    code: "control-failed",
    message: new RegExp(`managed by pid ${process.pid}, which cannot be reached`),
  });
});

test("a home that is another user's says whose it is and who may ask", {
  skip: process.platform === "win32",
}, async (t) => {
  const fixture = await Fixture.create(t);
  await fixture.open([api]);
  const isRoot = process.getuid?.() === 0;
  // Root may ask every station and has to be somebody else here; a user is kept out of their own.
  if (isRoot) await chmod(fixture.folder, 0o711);
  else await chmod(controlSocketPath(fixture.home), 0);
  const uid = process.getuid?.();
  if (isRoot) process.seteuid?.(65_534);
  const asked = new ControlClient(fixture.home).services().finally(() => isRoot && process.seteuid?.(0));
  await assert.rejects(asked, {
    code: "control-failed",
    message: new RegExp(`EACCES.*: ${fixture.home} belongs to user ${uid}; ask as that one, or as root`),
  });
});

test("what cannot be done is answered with its code and its reason", async (t) => {
  const fixture = await Fixture.create(t);
  await fixture.open([failing, redis]);
  const client = new ControlClient(fixture.home);
  await assert.rejects(client.start("nobody"), { code: "service-unknown" });
  await assert.rejects(client.start("broken"), {
    code: "start-failed",
    message: "broken is failed: the disk is full",
  });
  await assert.rejects(client.stop("redis"), { code: "service-external" });
  await assert.rejects(client.restart("redis"), { code: "service-external" });
  assert.deepEqual(await raw(fixture.home, "POST", "/services/nobody/start"), {
    status: 404,
    type: "application/problem+json",
    code: "service-unknown",
  });
  assert.equal((await raw(fixture.home, "POST", "/services/broken/restart")).status, 502);
  assert.equal((await raw(fixture.home, "POST", "/services/redis/stop")).status, 409);
  assert.equal((await raw(fixture.home, "GET", "/logs?lines=-1")).status, 400);
  assert.equal((await raw(fixture.home, "GET", "/nothing")).status, 404);
});

async function raw(
  home: string,
  method: string,
  path: string,
): Promise<{ status: number | undefined; type: string | undefined; code: unknown }> {
  const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
    http
      .request({ socketPath: controlSocketPath(home), method, path, agent: false }, resolve)
      .on("error", reject)
      .end();
  });
  let text = "";
  for await (const part of response.setEncoding("utf8")) text += part;
  const body: { code?: unknown } = JSON.parse(text);
  return { status: response.statusCode, type: response.headers["content-type"], code: body.code };
}

test("down answers when everything has stopped and the home is free", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([api]);
  await manager.start();
  await untilState(manager, "api", "ready");
  const records = await new ControlClient(fixture.home).down();
  assert.deepEqual(
    records.map((record) => [record.name, record.state]),
    [["api", "stopped"]],
  );
  assert.deepEqual(await fixture.pids(), []);
  await manager.closed;
  await assert.rejects(new ControlClient(fixture.home).services(), { code: "not-running" });
  await fixture.open([api]);
});

test("events begin with what there is and go on with each change", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([api]);
  const events = new ControlClient(fixture.home).events();
  const first = await events.next();
  assert.deepEqual(first.value, { services: manager.services() });
  await manager.start();
  const states: string[] = [];
  for await (const event of events) {
    if ("to" in event) states.push(event.to);
    if (states.at(-1) === "ready") break;
  }
  assert.deepEqual([...new Set(states)], ["waiting", "starting", "ready"]);
});

test("logs are followed over the control socket until the reader leaves", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([api]);
  const client = new ControlClient(fixture.home);
  const stop = new AbortController();
  const lines: string[] = [];
  await manager.startAndWait("api");
  for await (const line of client.logs({ service: "api", tailLines: 10, signal: stop.signal })) {
    lines.push(`${line.service} ${line.line}`);
    if (lines.length === 2) stop.abort();
    // Not before: a process that is replaced at once may not have said anything.
    else await manager.restart("api");
  }
  assert.deepEqual(lines, ["api hello", "api hello"]);
  const past: string[] = [];
  for await (const line of client.logs({ service: "api", tailLines: 1, follow: false })) past.push(line.line);
  assert.deepEqual(past, ["hello"]);
});

test("a follower of logs or events does not hold up the end", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([api]);
  await manager.startAndWait("api");
  const client = new ControlClient(fixture.home);
  const seen: string[] = [];
  const following = (async () => {
    for await (const line of client.logs({ service: "api", tailLines: 10 })) seen.push(line.line);
  })();
  const events = client.events();
  await events.next();
  await client.down();
  await following.catch(() => undefined);
  await manager.closed;
});

test("only the owner may open the home and its socket", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([api]);
  await manager.startAndWait("api");
  assert.equal((await stat(fixture.home)).mode & 0o777, 0o700);
  assert.equal((await stat(controlSocketPath(fixture.home))).mode & 0o777, 0o600);
  assert.equal((await stat(join(fixture.home, "logs"))).mode & 0o777, 0o700);
});

test("a folder that was there before keeps its mode, and what is put into it is closed to others", async (t) => {
  const fixture = await Fixture.create(t);
  await mkdir(fixture.home);
  await chmod(fixture.home, 0o1777);
  const manager = await fixture.open([api]);
  await manager.startAndWait("api");
  const modeOf = async (path: string) => (await stat(path)).mode & 0o7777;
  assert.equal(await modeOf(fixture.home), 0o1777);
  assert.equal(await modeOf(controlSocketPath(fixture.home)), 0o600);
  assert.equal(await modeOf(join(fixture.home, "logs")), 0o700);
  assert.equal(await modeOf(join(fixture.home, "lock")), 0o700);
});

test("a home with a very long path works too", async (t) => {
  const fixture = await Fixture.create(t);
  const home = join(fixture.folder, "a".repeat(90), "b".repeat(90));
  await mkdir(home, { recursive: true });
  await fixture.open([api], { home });
  const client = new ControlClient(home);
  assert.equal((await client.start("api")).state, "ready");
  await client.down();
});

test("a slow reader of a long log leaves no listeners behind", async (t) => {
  const fixture = await Fixture.create(t);
  const print = `for (let n = 0; n < 60000; n += 1) console.log("line " + n + "x".repeat(60));`;
  const restart = { policy: "on-failure" } as const;
  const manager = await fixture.open([
    defineService({ name: "job", command: [process.execPath, "-e", print], restart }),
  ]);
  const warnings: Error[] = [];
  const keep = (warning: Error): number => warnings.push(warning);
  process.on("warning", keep);
  t.after(() => process.off("warning", keep));
  await manager.start();
  await untilState(manager, "job", "stopped");
  const request = http.get({ socketPath: join(fixture.home, "control.sock"), path: "/logs?lines=60000" });
  const [response] = await once(request, "response");
  let text = "";
  for await (const chunk of response) text += chunk;
  assert.equal(text.split("\n").length, 60_001);
  assert.deepEqual(warnings, []);
});
