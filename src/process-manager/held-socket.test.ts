import assert from "node:assert/strict";
import { test } from "node:test";
import { ClientLoad } from "./client-load.ts";
import { defineService, type ServiceDefinition } from "./definition.ts";
import {
  ask,
  Fixture,
  isAlive,
  recordOf,
  refuses,
  serverScript,
  untilRecord,
  untilState,
} from "./fixture.ts";
import type { ProcessManager } from "./process-manager.ts";
import type { ServiceRecord } from "./service-status.ts";

interface Held {
  readonly fixture: Fixture;
  readonly manager: ProcessManager;
  readonly port: number;
}

async function serve(fixture: Fixture, more: Partial<ServiceDefinition> = {}): Promise<Held> {
  const port = await fixture.freePort();
  const script = await fixture.script("server.cjs", serverScript);
  const manager = await fixture.open([
    defineService({
      name: "api",
      command: [process.execPath, script],
      listen: { host: "127.0.0.1", port, hold: true },
      readiness: { kind: "notify" },
      restart: { backoffBaseMs: 10, backoffCapMs: 20, intensity: 20 },
      ...more,
    }),
  ]);
  await manager.start();
  await untilState(manager, "api", "ready");
  return { fixture, manager, port };
}

test("kill -9 under concurrent clients refuses no connection", async (t) => {
  const { manager, port } = await serve(await Fixture.create(t));
  const load = new ClientLoad(port, 8, "/pid");
  for (let kill = 0; kill < 3; kill += 1) {
    await load.answered(20);
    const { pid } = await untilState(manager, "api", "ready");
    assert.ok(pid);
    process.kill(pid, "SIGKILL");
    await untilRecord(manager, "api", (record) => record.state === "ready" && record.pid !== pid);
  }
  await load.answered(20);
  await load.end();
  // Whoever was being answered by the killed process is cut off; nobody is turned away.
  assert.deepEqual(
    load.failures.filter((code) => code !== "ECONNRESET"),
    [],
  );
});

test("a rolling restart under load fails no request", async (t) => {
  const { manager, port } = await serve(await Fixture.create(t));
  const load = new ClientLoad(port, 8, "/slow");
  for (let restart = 0; restart < 3; restart += 1) {
    await load.answered(10);
    const { pid } = recordOf(manager, "api");
    const after = await manager.restart("api");
    assert.notEqual(after.pid, pid);
    assert.equal(after.state, "ready");
    assert.ok(pid && !(await isAlive(pid)));
  }
  await load.answered(10);
  await load.end();
  assert.deepEqual(load.failures, []);
  assert.equal(recordOf(manager, "api").restarts, 3);
});

test("a new process that does not get ready leaves the old one serving, and the restart says so", async (t) => {
  const fixture = await Fixture.create(t);
  let mayStart = true;
  const { manager, port } = await serve(fixture, {
    prepare: async () => {
      if (!mayStart) throw new Error("the settings are broken");
    },
  });
  const { pid } = recordOf(manager, "api");
  mayStart = false;
  await assert.rejects(manager.restart("api"), {
    code: "restart-failed",
    message: `the new process of api did not get ready: the settings are broken; pid ${pid} still serves`,
  });
  assert.equal(recordOf(manager, "api").state, "ready");
  assert.equal(await ask(port, "/pid"), String(pid));
});

test("a replacement that ends early is not taken for the service's own death", async (t) => {
  const fixture = await Fixture.create(t);
  const flag = await fixture.script("flag", "");
  const script = await fixture.script(
    "server2.cjs",
    `if (require("node:fs").readFileSync(${JSON.stringify(flag)}, "utf8")) process.exit(7);\n${serverScript}`,
  );
  const { manager, port } = await serve(fixture, { command: [process.execPath, script] });
  const { pid } = recordOf(manager, "api");
  await fixture.script("flag", "broken now");
  await assert.rejects(
    manager.restart("api"),
    /exited with code 7 before it was ready; pid \d+ still serves/,
  );
  assert.equal(await ask(port, "/pid"), String(pid));
  assert.equal(recordOf(manager, "api").restarts, 0);
});

test("a process killed while its replacement starts is started again all the same", async (t) => {
  const fixture = await Fixture.create(t);
  const reached = Promise.withResolvers<void>();
  let calls = 0;
  const { manager, port } = await serve(fixture, {
    prepare: async (signal) => {
      calls += 1;
      if (calls !== 2) return;
      reached.resolve();
      await new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    },
  });
  const { pid } = recordOf(manager, "api");
  assert.ok(pid);
  const restarted = manager.restart("api");
  await reached.promise;
  process.kill(pid, "SIGKILL");
  const record = await restarted;
  assert.equal(record.state, "ready");
  assert.equal(await ask(port, "/pid"), String(record.pid));
  assert.deepEqual(await fixture.pids(), [record.pid]);
});

test("a new process that dies while the old one still ends is replaced at once", async (t) => {
  const fixture = await Fixture.create(t);
  const flag = JSON.stringify(`${fixture.folder}/first`);
  const script = await fixture.script(
    "server2.cjs",
    `${serverScript}
    if (!require("node:fs").existsSync(${flag})) process.removeAllListeners("SIGTERM").on("SIGTERM", () => server.close());
    require("node:fs").writeFileSync(${flag}, "");
    setInterval(() => undefined, 1000);`,
  );
  const command = [process.execPath, script] as const;
  const { manager, port } = await serve(fixture, { command, stop: { timeoutMs: 60_000 } });
  const { pid: old } = recordOf(manager, "api");
  assert.ok(old);
  const restarted = manager.restart("api");
  const { pid: next } = await untilRecord(manager, "api", ({ pid }) => pid !== old);
  assert.ok(next);
  process.kill(next, "SIGKILL");
  const isThird = ({ state, pid }: ServiceRecord): boolean => state === "ready" && pid !== next;
  const third = await untilRecord(manager, "api", isThird);
  assert.equal(await ask(port, "/pid"), String(third.pid));
  assert.equal(await isAlive(old), true);
  process.kill(old, "SIGKILL");
  await restarted;
});

test("a restart that is asked for during another one brings a process that began after it", async (t) => {
  const reached = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  let calls = 0;
  const { manager } = await serve(await Fixture.create(t), {
    afterReady: async () => {
      calls += 1;
      if (calls !== 2) return;
      reached.resolve();
      await goOn.promise;
    },
  });
  const first = manager.restart("api");
  await reached.promise;
  const later = [manager.restart("api"), manager.restart("api")];
  goOn.resolve();
  await Promise.all([first, ...later]);
  assert.equal(recordOf(manager, "api").restarts, 2);
});

test("a stop during a rolling restart leaves neither process", async (t) => {
  const fixture = await Fixture.create(t);
  let calls = 0;
  const reached = Promise.withResolvers<void>();
  const { manager, port } = await serve(fixture, {
    afterReady: async () => {
      calls += 1;
      if (calls !== 2) return;
      reached.resolve();
      await new Promise(() => undefined);
    },
  });
  const restarted = manager.restart("api");
  await reached.promise;
  await Promise.all([assert.rejects(restarted, { code: "restart-failed" }), manager.stop("api")]);
  assert.equal(recordOf(manager, "api").state, "stopped");
  assert.deepEqual(await fixture.pids(), []);
  assert.equal(await refuses(port), true);
});

test("a service stopped by command refuses at once, and serves again when started", async (t) => {
  const { manager, port } = await serve(await Fixture.create(t));
  await manager.stop("api");
  assert.equal(await refuses(port), true);
  const record = await manager.startAndWait("api");
  assert.equal(await ask(port, "/pid"), String(record.pid));
});

test("without a notification a held service stops and starts, and clients wait rather than fail", async (t) => {
  const fixture = await Fixture.create(t);
  const { manager, port } = await serve(fixture, {
    readiness: { kind: "check", check: async () => assert.equal(await refuses(fixture.lastPort), false) },
  });
  const load = new ClientLoad(port, 4, "/pid");
  await load.answered(10);
  const { pid } = recordOf(manager, "api");
  const after = await manager.restart("api");
  assert.notEqual(after.pid, pid);
  await load.answered(10);
  await load.end();
  assert.deepEqual(load.failures, []);
});

test("a notifying service without a held socket is told its descriptor, and is not ready before it says so", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({
      name: "worker",
      command: [
        "/bin/sh",
        "-c",
        'echo STATUS=busy >&"$NOTIFY_FD"; echo READY=1 >&"$NOTIFY_FD"; exec sleep 1000',
      ],
      readiness: { kind: "notify" },
    }),
    defineService({
      name: "mute",
      command: ["/bin/sh", "-c", "exec sleep 1000"],
      readiness: { kind: "notify" },
      startTimeoutMs: 50,
      restart: { policy: "never" },
    }),
  ]);
  await manager.start();
  assert.equal((await untilState(manager, "worker", "ready")).state, "ready");
  assert.match((await untilState(manager, "mute", "failed")).reason, /was not ready within 0.05 s/);
});
