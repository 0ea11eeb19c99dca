import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import net from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { defineExternal, defineService } from "./definition.ts";
import {
  ask,
  collectEvents,
  eventually,
  Fixture,
  forever,
  isAlive,
  recordOf,
  serverScript,
  untilRecord,
  untilState,
} from "./fixture.ts";
import { ProcessManagerError } from "./process-manager-error.ts";

test("services start after what they depend on is ready, and stop before it does", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({ name: "web", command: forever, dependsOn: { api: "ready" } }),
    defineService({ name: "api", command: forever, dependsOn: { database: "ready" } }),
    defineService({ name: "database", command: forever }),
  ]);
  const events = collectEvents(manager);
  await manager.start();
  await manager.whenSettled();
  await manager.stopAll();
  const moved = (to: string): string[] =>
    events.filter((event) => event.to === to && event.from !== to).map((event) => event.service);
  assert.deepEqual(moved("ready"), ["database", "api", "web"]);
  assert.deepEqual(moved("stopped"), ["web", "api", "database"]);
});

test("a service is not ready before its probe passes, and its dependants wait that long", async (t) => {
  const fixture = await Fixture.create(t);
  const gate = Promise.withResolvers<void>();
  const manager = await fixture.open([
    defineService({
      name: "api",
      command: forever,
      readiness: { kind: "check", check: () => gate.promise },
    }),
    defineService({ name: "web", command: forever, dependsOn: { api: "ready" } }),
    defineService({ name: "tail", command: forever, dependsOn: { api: "started" } }),
  ]);
  await manager.start();
  await untilRecord(manager, "api", (record) => record.pid !== null);
  await untilState(manager, "tail", "ready");
  assert.equal(recordOf(manager, "api").state, "starting");
  assert.equal(recordOf(manager, "web").state, "waiting");
  assert.match(recordOf(manager, "web").reason, /waits for api to be ready; it is starting/);
  gate.resolve();
  await manager.whenSettled();
  assert.equal(recordOf(manager, "web").state, "ready");
});

test("start by name starts that service and its dependencies only", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({ name: "database", command: forever }),
    defineService({ name: "api", command: forever, dependsOn: { database: "ready" } }),
    defineService({ name: "agent", command: forever }),
  ]);
  await manager.start(["api"]);
  const settled = await manager.whenSettled();
  assert.deepEqual(
    settled.map((record) => [record.name, record.state]),
    [
      ["database", "ready"],
      ["api", "ready"],
    ],
  );
  assert.equal(recordOf(manager, "agent").state, "stopped");
});

test("a service that is killed is started again at once, and tells why", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([defineService({ name: "api", command: forever })]);
  await manager.start();
  const { pid } = await untilState(manager, "api", "ready");
  const events = collectEvents(manager);
  assert.ok(pid);
  process.kill(pid, "SIGKILL");
  const again = await untilRecord(manager, "api", (record) => record.state === "ready" && record.pid !== pid);
  assert.equal(again.restarts, 1);
  assert.equal(again.lastExit?.signal, "SIGKILL");
  assert.deepEqual(
    events.filter((event) => event.from !== event.to).map((event) => [event.to, event.reason]),
    [
      ["backoff", "killed by SIGKILL; starting it again at once"],
      ["starting", "is starting again: killed by SIGKILL"],
      ["ready", "is ready"],
    ],
  );
});

test("the restarts after the first wait, up to a growing bound", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({
      name: "api",
      command: ["/bin/sh", "-c", "exit 3"],
      restart: { intensity: 3, backoffBaseMs: 40, backoffCapMs: 60 },
    }),
  ]);
  const events = collectEvents(manager);
  await manager.start();
  await untilState(manager, "api", "failed");
  const waits = events.filter((event) => event.to === "backoff").map((event) => event.reason);
  assert.equal(waits.length, 3);
  assert.match(waits[0] ?? "", /^exited with code 3; starting it again at once$/);
  assert.match(waits[1] ?? "", /^exited with code 3; (next try in \d+ ms|starting it again at once)$/);
});

test("a service that keeps dying is given up, stays visible with the reason, and a command starts it anew", async (t) => {
  const fixture = await Fixture.create(t);
  const flag = await fixture.script("flag", "");
  const manager = await fixture.open([
    defineService({
      name: "api",
      command: ["/bin/sh", "-c", `[ -s ${flag} ] && exec sleep 1000; exit 3`],
      restart: { intensity: 2, backoffBaseMs: 1, backoffCapMs: 1 },
    }),
  ]);
  await manager.start();
  const api = await untilState(manager, "api", "failed");
  assert.match(api.reason, /exited with code 3; more than 2 restarts within 60 s/);
  assert.equal(api.restarts, 2);
  await fixture.script("flag", "now it may run");
  const started = await manager.startAndWait("api");
  assert.equal(started.state, "ready");
  assert.equal(started.restarts, 0);
  assert.deepEqual(started.recentRestarts, []);
});

test("what depends on a failed service waits, and names it", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({
      name: "database",
      command: forever,
      prepare: async () => {
        throw Object.assign(new Error("the disk has no room for a database"), { fatal: true });
      },
    }),
    defineService({ name: "api", command: forever, dependsOn: { database: "ready" } }),
  ]);
  await manager.start();
  const [database, api] = await manager.whenSettled();
  assert.equal(database?.state, "failed");
  assert.equal(database?.reason, "the disk has no room for a database");
  assert.equal(database?.restarts, 0);
  assert.equal(api?.state, "waiting");
  assert.equal(api?.reason, "waits for database, which failed: the disk has no room for a database");
});

test("a hook that fails in passing counts as a failed start and is tried again", async (t) => {
  const fixture = await Fixture.create(t);
  const calls: string[] = [];
  const manager = await fixture.open([
    defineService({
      name: "database",
      command: forever,
      prepare: async () => {
        calls.push("prepare");
        if (calls.length === 1) throw new Error("the folder is busy");
      },
      afterReady: async () => {
        calls.push("migrate");
        if (calls.length === 3) throw new Error("the connection broke");
      },
      restart: { backoffBaseMs: 1 },
    }),
  ]);
  const events = collectEvents(manager);
  await manager.start();
  await untilState(manager, "database", "ready");
  assert.deepEqual(calls, ["prepare", "prepare", "migrate", "prepare", "migrate"]);
  assert.match(events.map((event) => event.reason).join(" "), /the folder is busy.*the connection broke/);
});

test("what cannot be started says what is missing: the program, its folder, or the right to run it", async (t) => {
  const fixture = await Fixture.create(t);
  const restart = { policy: "never" } as const;
  const script = await fixture.script("no-program.sh", "#!/bin/sh");
  const manager = await fixture.open([
    defineService({ name: "path", command: ["/no/such/program"], restart }),
    defineService({ name: "name", command: ["no-such-program"], restart }),
    defineService({ name: "folder", command: "exec sleep 1000", cwd: "/no/such/folder", restart }),
    defineService({ name: "right", command: [script], restart }),
  ]);
  await manager.start();
  const reasons = (await manager.whenSettled()).map(({ reason }) => reason);
  assert.match(reasons[0] ?? "", /^there is no program \/no\/such\/program;/);
  assert.match(reasons[1] ?? "", /^there is no program no-such-program in any folder of PATH;/);
  assert.match(reasons[2] ?? "", /^its working directory \/no\/such\/folder is no folder; cwd says which;/);
  assert.match(reasons[3] ?? "", /no-program\.sh may not be executed by this user/);
});

test("a job that ends well is stopped, not restarted, when its policy is on-failure", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({ name: "job", command: ["/bin/sh", "-c", "exit 0"], restart: { policy: "on-failure" } }),
  ]);
  await manager.start();
  const record = await untilRecord(
    manager,
    "job",
    ({ state, lastExit }) => state === "stopped" && lastExit !== null,
  );
  assert.equal(record.reason, "exited with code 0");
  assert.equal(record.restarts, 0);
});

test("a service that never gets ready in its time is stopped and started again", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({
      name: "api",
      command: forever,
      readiness: { kind: "check", check: () => Promise.reject(new Error("the model is missing")) },
      startTimeoutMs: 60,
      restart: { intensity: 1 },
    }),
  ]);
  await manager.start();
  const { reason } = await untilState(manager, "api", "failed");
  assert.match(reason, /was not ready within 0.06 s: the model is missing/);
});

test("a hung process that still lives is found by its liveness probe and replaced", async (t) => {
  const fixture = await Fixture.create(t);
  const port = await fixture.freePort();
  const script = await fixture.script("server.cjs", serverScript);
  const url = `http://127.0.0.1:${port}/livez`;
  const manager = await fixture.open([
    defineService({
      name: "api",
      command: [process.execPath, script, String(port)],
      listen: { host: "127.0.0.1", port },
      readiness: { kind: "http", url },
      liveness: { kind: "http", url, periodMs: 50, timeoutMs: 300, failureThreshold: 2 },
    }),
  ]);
  await manager.start();
  const { pid } = await untilState(manager, "api", "ready");
  const events = collectEvents(manager);
  await assert.rejects(ask(port, "/hang"));
  const again = await untilRecord(manager, "api", (record) => record.state === "ready" && record.pid !== pid);
  assert.equal(await ask(port, "/pid"), String(again.pid));
  assert.match(events[0]?.reason ?? "", /does not answer \(no answer within 300 ms\) and was killed/);
});

test("readiness is watched on: unhealthy with the reason while it fails, ready again when it passes", async (t) => {
  const fixture = await Fixture.create(t);
  const port = await fixture.freePort();
  const script = await fixture.script("server.cjs", serverScript);
  const manager = await fixture.open([
    defineService({
      name: "api",
      command: [process.execPath, script, String(port)],
      listen: { host: "127.0.0.1", port },
      readiness: { kind: "http", url: `http://127.0.0.1:${port}/readyz`, periodMs: 20, failureThreshold: 2 },
    }),
  ]);
  await manager.start();
  const { pid } = await untilState(manager, "api", "ready");
  await ask(port, "/sick");
  const sick = await untilState(manager, "api", "unhealthy");
  assert.equal(sick.reason, "is not ready: answered 503: the store is away");
  await ask(port, "/well");
  const well = await untilState(manager, "api", "ready");
  assert.equal(well.pid, pid);
});

test("an external service is watched, never run; it is unhealthy while away and its dependants wait", async (t) => {
  const fixture = await Fixture.create(t);
  const port = await fixture.freePort();
  const manager = await fixture.open([
    defineExternal({
      kind: "external",
      name: "redis",
      probe: { kind: "tcp", host: "127.0.0.1", port, periodMs: 20, failureThreshold: 1 },
    }),
    defineService({ name: "api", command: forever, dependsOn: { redis: "ready" } }),
  ]);
  await manager.start();
  const [redis, api] = await manager.whenSettled();
  assert.equal(redis?.state, "unhealthy");
  assert.match(redis?.reason ?? "", /ECONNREFUSED/);
  assert.equal(api?.state, "waiting");
  const server = net.createServer((socket) => socket.destroy()).listen(port, "127.0.0.1");
  await untilState(manager, "api", "ready");
  server.close();
  await untilState(manager, "redis", "unhealthy");
  assert.equal(recordOf(manager, "api").state, "ready");
  await assert.rejects(manager.stop("redis"), { code: "service-external" });
});

test("a taken port fails the service, names who holds it and what to do, and harms nobody", async (t) => {
  const fixture = await Fixture.create(t);
  const port = await fixture.freePort();
  const squatter = net.createServer().listen(port, "127.0.0.1");
  t.after(() => squatter.close());
  for (const hold of [false, true]) {
    const manager = await fixture.open([
      defineService({
        name: "chat",
        command: forever,
        listen: { host: "127.0.0.1", port, hold },
        portHint: "CHAT_PORT",
      }),
    ]);
    await manager.start();
    const { reason } = await untilState(manager, "chat", "failed");
    assert.match(
      reason,
      new RegExp(
        `^port ${port} on 127.0.0.1 is held by pid ${process.pid} \\(.*node.*, user \\w+, since 20[-0-9]+ [0-9:]+\\); stop it, or set CHAT_PORT to another port$`,
      ),
    );
    await manager.stopAll();
  }
  assert.equal(squatter.listening, true);
  await new Promise((resolve) => squatter.close(resolve));
});

test("a stop interrupts whatever is going on: waiting, a hook, starting, backoff", async (t) => {
  const fixture = await Fixture.create(t);
  const never = new Promise<void>(() => undefined);
  const manager = await fixture.open([
    defineService({ name: "hooked", command: forever, prepare: () => never }),
    defineService({ name: "starting", command: forever, readiness: { kind: "check", check: () => never } }),
    defineService({ name: "waiting", command: forever, dependsOn: { starting: "ready" } }),
    defineService({
      name: "dying",
      command: ["/bin/sh", "-c", "exit 1"],
      restart: { backoffBaseMs: 1e9, backoffCapMs: 1e9 },
    }),
  ]);
  await manager.start();
  await untilRecord(manager, "dying", (record) => record.state === "backoff" && record.restarts > 0);
  await eventually("the process of `starting` runs", () => assert.ok(recordOf(manager, "starting").pid));
  for (const { name } of manager.services()) {
    const [record] = await Promise.all([manager.stop(name), manager.stop(name)]);
    assert.equal(record.state, "stopped");
    assert.equal(record.pid, null);
  }
});

test("a stop that overtakes a restart wins", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([defineService({ name: "api", command: forever })]);
  await manager.start();
  await untilState(manager, "api", "ready");
  const restarted = manager.restart("api");
  await manager.stop("api");
  await assert.rejects(restarted, { code: "restart-failed" });
  assert.equal(recordOf(manager, "api").state, "stopped");
  assert.deepEqual(await fixture.pids(), []);
});

test("a dependency that restarts does not restart its dependants", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({ name: "database", command: forever }),
    defineService({ name: "api", command: forever, dependsOn: { database: "ready" } }),
  ]);
  await manager.start();
  await manager.whenSettled();
  const { pid } = recordOf(manager, "api");
  const before = recordOf(manager, "database").pid;
  const after = await manager.restart("database");
  assert.notEqual(after.pid, before);
  assert.equal(recordOf(manager, "api").pid, pid);
  assert.ok(pid && (await isAlive(pid)));
});

test("children get the base environment and their own, and nothing of an outer manager", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open(
    [
      defineService({
        name: "api",
        command: ["/bin/sh", "-c", "env; exec sleep 1000"],
        env: { COLOUR: "red" },
      }),
    ],
    {
      baseEnv: {
        ...fixture.env,
        LISTEN_FDS: "1",
        NOTIFY_FD: "9",
        PROCESS_MANAGER_MARK: "outer",
        UNSET: undefined,
      },
    },
  );
  await manager.start();
  const text = await eventually("the environment is in the log", async () => {
    const log = await readFile(join(fixture.home, "logs", "api.log"), "utf8");
    assert.match(log, /PROCESS_MANAGER_MARK=/);
    return log;
  });
  assert.match(text, /^COLOUR=red$/m);
  assert.match(text, /^PROCESS_MANAGER_SERVICE=api$/m);
  assert.doesNotMatch(text, /LISTEN_FDS|NOTIFY_FD|outer/);
});

test("a program that a hook runs gets an environment with the mark, so that it can be found and ended", async (t) => {
  const fixture = await Fixture.create(t);
  const seen: Readonly<Record<string, string>>[] = [];
  const manager = await fixture.open([
    defineService({
      name: "database",
      command: forever,
      env: { PGDATA: "here" },
      prepare: async (_signal, env) => {
        seen.push(env);
      },
    }),
  ]);
  await manager.startAndWait("database");
  assert.equal(seen[0]?.PGDATA, "here");
  assert.match(seen[0]?.PROCESS_MANAGER_MARK ?? "", /^[0-9a-f]{32}$/);
});

test("a name that is not defined is refused with the names that are", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([defineService({ name: "api", command: forever })]);
  await assert.rejects(manager.start(["apy"]), {
    code: "service-unknown",
    message: 'no service is named "apy"; there are: api',
  });
  await manager.stopAll();
  await assert.rejects(
    manager.start(),
    (error) => error instanceof ProcessManagerError && error.code === "manager-stopping",
  );
});
