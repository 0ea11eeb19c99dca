import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type Definition, defineService, type ServiceDefinition } from "./definition.ts";
import {
  ask,
  collectEvents,
  eventually,
  Fixture,
  forever,
  recordOf,
  refuses,
  serverScript,
  untilRecord,
  untilState,
} from "./fixture.ts";
import type { ProcessManager } from "./process-manager.ts";

/** A manager whose definitions are what `written` holds when it is asked to apply them. */
async function open(t: TestContext, first: (fixture: Fixture) => Definition[]) {
  const fixture = await Fixture.create(t);
  const written = { definitions: first(fixture) };
  const manager = await fixture.open(written.definitions, { reload: async () => written.definitions });
  await manager.start();
  await manager.whenSettled();
  return { fixture, written, manager };
}

function actions(changes: Awaited<ReturnType<ProcessManager["plan"]>>): string[] {
  return changes.map(({ name, action, why }) => `${name} ${action}: ${why.join(", ")}`);
}

test("apply does what plan says: only what changed gets a new process, and why is told", async (t) => {
  const readiness = { kind: "log", pattern: "^done$" } as const;
  const base = (env: Record<string, string>) =>
    defineService({ name: "api", command: "env; echo done; exec sleep 1000", env, readiness });
  const { manager, written } = await open(t, () => [
    base({ KEPT: "1", GONE: "secret", CHANGED: "1" }),
    defineService({ name: "web", command: forever }),
    defineService({ name: "old", command: forever }),
    defineService({ name: "calm", command: forever }),
  ]);
  const before = new Map(manager.services().map(({ name, pid }) => [name, pid]));
  written.definitions = [
    base({ KEPT: "1", CHANGED: "2", NEW: "1" }),
    defineService({ name: "web", command: forever }),
    defineService({ name: "calm", command: forever, stop: { timeoutMs: 100 } }),
    defineService({ name: "new", command: forever, dependsOn: ["web"] }),
  ];
  const expected = [
    "api restart: variable CHANGED changed, variable GONE was removed, variable NEW is new",
    "web keep: ",
    "calm update: stop changed",
    "new add: is new",
    "old remove: is no more defined",
  ];
  assert.deepEqual(actions(await manager.plan()), expected);
  assert.equal(recordOf(manager, "api").pid, before.get("api"));
  assert.deepEqual(actions(await manager.apply()), expected);
  assert.deepEqual(
    manager.services().map(({ name, state, pid }) => [name, state, pid === before.get(name)]),
    [
      ["api", "ready", false],
      ["web", "ready", true],
      ["calm", "ready", true],
      ["new", "ready", false],
    ],
  );
  const lines = manager.subscribeLogs({ service: "api", tailLines: 100, follow: false });
  let last = "";
  for await (const { line } of lines) last += `${line}\n`;
  assert.ok(last.lastIndexOf("GONE=") < last.lastIndexOf("CHANGED=2"), "a removed variable was passed on");
  assert.deepEqual(
    actions(await manager.plan()).filter((one) => !/ keep: $/.test(one)),
    [],
  );
});

test("definitions that are wrong change nothing", async (t) => {
  const { manager, written } = await open(t, () => [defineService({ name: "web", command: forever })]);
  const { pid } = recordOf(manager, "web");
  written.definitions = [defineService({ name: "web", command: forever, dependsOn: ["nobody"] })];
  await assert.rejects(manager.apply(), { code: "definition-invalid" });
  assert.equal(recordOf(manager, "web").pid, pid);
  assert.deepEqual(recordOf(manager, "web").dependsOn, []);
});

test("a service that moves to another port leaves the old one", async (t) => {
  const { fixture, manager, written } = await open(t, () => []);
  const script = await fixture.script("server.cjs", serverScript);
  const ports = [await fixture.freePort(), await fixture.freePort()] as const;
  const define = (port: number): Definition =>
    defineService({
      name: "web",
      command: [process.execPath, script],
      listen: { port, hold: true },
      readiness: { kind: "notify" },
    });
  written.definitions = [define(ports[0])];
  await manager.apply();
  assert.equal(await ask(ports[0], "/"), String(recordOf(manager, "web").pid));
  written.definitions = [define(ports[1])];
  await manager.apply();
  assert.equal(await ask(ports[1], "/"), String(recordOf(manager, "web").pid));
  assert.equal(recordOf(manager, "web").port, ports[1]);
  assert.equal(await refuses(ports[0]), true);
});

test("a definition whose process does not get ready leaves the old process serving, and stays to be applied", async (t) => {
  const { fixture, manager, written } = await open(t, () => []);
  const script = await fixture.script("server.cjs", serverScript);
  const port = await fixture.freePort();
  const define = (env: Record<string, string>): Definition =>
    defineService({
      name: "web",
      command: [process.execPath, script],
      env,
      listen: { port, hold: true },
      readiness: { kind: "notify" },
      startTimeoutMs: 500,
    });
  written.definitions = [define({})];
  await manager.apply();
  const { pid } = recordOf(manager, "web");
  written.definitions = [define({ MUTE: "1" }), defineService({ name: "other", command: forever })];
  await assert.rejects(manager.apply(), { code: "restart-failed", message: /did not get ready/ });
  assert.equal(await ask(port, "/"), String(pid));
  assert.equal(recordOf(manager, "other").state, "ready");
  assert.deepEqual(actions(await manager.plan()), ["web restart: variable MUTE is new", "other keep: "]);
});

test("what was stopped by hand stays stopped, and starts as it is written by then", async (t) => {
  const { manager, written } = await open(t, () => [defineService({ name: "web", command: forever })]);
  await manager.stop("web");
  written.definitions = [defineService({ name: "web", command: "echo anew; exec sleep 1000" })];
  await manager.apply();
  assert.equal(recordOf(manager, "web").state, "stopped");
  await manager.startAndWait("web");
  for await (const { line } of manager.subscribeLogs({ service: "web", tailLines: 1 })) {
    assert.equal(line, "anew");
    break;
  }
});

test("a start that comes while its service is being removed is refused, and nothing of it is left", async (t) => {
  const stubborn = "trap '' TERM; while :; do sleep 0.02; done";
  const worker = defineService({ name: "worker", command: stubborn, replicas: 2, stop: { timeoutMs: 100 } });
  const { fixture, manager } = await open(t, () => [worker]);
  const events = collectEvents(manager);
  const scaled = manager.scale("worker", 0);
  await eventually("both are stopping", () =>
    assert.equal(events.filter(({ to }) => to === "stopping").length, 2),
  );
  await assert.rejects(manager.startAndWait("worker-2"), { code: "service-unknown" });
  await assert.rejects(manager.restart("worker-1"), { code: "service-unknown" });
  await scaled;
  assert.deepEqual(await fixture.pids(), []);
});

test("a service that waits for what it no longer depends on starts when that is applied", async (t) => {
  const define = (dependsOn: string[]) => [
    defineService({ name: "store", command: forever }),
    defineService({ name: "web", command: forever, dependsOn }),
  ];
  const { manager, written } = await open(t, () => define(["store"]));
  await manager.stop("store");
  await assert.rejects(manager.restart("web"), { code: "restart-failed" });
  written.definitions = define([]);
  await manager.apply();
  await untilState(manager, "web", "ready");
});

test("a new liveness probe counts at once, for the process that runs", async (t) => {
  const { fixture, manager, written } = await open(t, () => []);
  const script = await fixture.script("server.cjs", serverScript);
  const port = await fixture.freePort();
  const define = (url: string): Definition =>
    defineService({
      name: "web",
      command: [process.execPath, script, String(port)],
      listen: { port },
      readiness: { kind: "http", url: "/" },
      liveness: { kind: "http", url, periodMs: 20, failureThreshold: 1 },
    });
  written.definitions = [define("/")];
  await manager.apply();
  const { pid } = recordOf(manager, "web");
  await ask(port, "/sick");
  written.definitions = [define("/readyz")];
  assert.deepEqual(actions(await manager.apply()), ["web update: liveness changed"]);
  const { reason } = await untilRecord(manager, "web", (record) => record.pid !== pid);
  assert.match(reason, /does not answer \(answered 503: the store is away\)/);
});

test("a service that is unhealthy when another liveness is applied is ready as soon as it is well", async (t) => {
  let answer: "good" | "bad" | "none" = "good";
  const asked = Promise.withResolvers<void>();
  const check = async (): Promise<void> => {
    if (answer === "bad") throw new Error("is away");
    if (answer === "good") return;
    asked.resolve();
    await new Promise(() => undefined);
  };
  const web = (periodMs: number): ServiceDefinition => ({
    name: "web",
    command: forever,
    readiness: { kind: "check", check, periodMs: 10, timeoutMs: 60_000 },
    liveness: { kind: "exec", command: ["true"], periodMs },
  });
  const { manager, written } = await open(t, () => [web(1000)]);
  answer = "bad";
  await untilState(manager, "web", "unhealthy");
  answer = "none"; // so that it is the new watch that finds it well
  await asked.promise;
  answer = "good";
  written.definitions = [web(2000)];
  await manager.apply();
  assert.equal((await untilState(manager, "web", "ready")).restarts, 0);
});

test("a service that dies while what it needed is being removed goes on by its policy", async (t) => {
  const reached = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  const slow = (V: string): ServiceDefinition => ({
    name: "slow",
    command: forever,
    env: { V },
    afterReady: async () => {
      if (V === "1") return;
      reached.resolve();
      await goOn.promise;
    },
  });
  const restart = { backoffBaseMs: 100, backoffCapMs: 100, stableMs: 60_000 };
  const web = (V: string, dependsOn: string[]): ServiceDefinition => ({
    name: "web",
    command: forever,
    env: { V },
    dependsOn,
    restart,
  });
  const store = defineService({ name: "store", command: forever });
  const { manager, written } = await open(t, () => [slow("1"), store, web("1", ["store"])]);
  written.definitions = [slow("2"), web("2", [])];
  const applied = manager.apply();
  await reached.promise;
  for (const deaths of [1, 2]) {
    const { pid } = recordOf(manager, "web");
    assert.ok(pid);
    process.kill(pid, "SIGKILL");
    await untilRecord(manager, "web", ({ state, restarts }) => state === "ready" && restarts === deaths);
  }
  goOn.resolve();
  await applied;
  assert.deepEqual(actions(await manager.plan()), ["slow keep: ", "web keep: "]);
});

test("a watched file that changes restarts its service once, whatever is ignored does not", async (t) => {
  const { fixture, manager, written } = await open(t, () => []);
  written.definitions = [
    defineService({
      name: "web",
      command: forever,
      cwd: fixture.folder,
      watch: { paths: ["."], ignore: ["*.tmp"], debounceMs: 30 },
    }),
  ];
  await manager.apply();
  const first = await untilState(manager, "web", "ready");
  await manager.watching("web");
  await writeFile(join(fixture.folder, "scratch.tmp"), "1");
  await writeFile(join(fixture.folder, "app.js"), "1");
  await writeFile(join(fixture.folder, "lib.js"), "1");
  const second = await untilRecord(
    manager,
    "web",
    ({ state, pid }) => state === "ready" && pid !== first.pid,
  );
  const log = manager.subscribeLogs({ service: "manager", tailLines: 50, follow: false });
  const told: string[] = [];
  for await (const { line } of log) if (line.includes("ready → stopping")) told.push(line);
  assert.equal(told.length, 1, told.join("\n"));
  assert.match(told[0] ?? "", /(app|lib)\.js changed/);
  await manager.stop("web");
  assert.notEqual(second.pid, first.pid);
});
