import assert from "node:assert/strict";
import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { defineService } from "./definition.ts";
import {
  collectEvents,
  eventually,
  Fixture,
  forever,
  isAlive,
  recordOf,
  untilRecord,
  untilState,
} from "./fixture.ts";

/** A process that starts others, in its own group and out of it, and tells their pids. */
const family = `
sleep 1000 &
echo "group $!"
setsid sleep 1000 &
(setsid sh -c 'echo "session $$"; exec sleep 1000' &)
exec sleep 1000
`;

async function told(fixture: Fixture, service: string, pattern: RegExp): Promise<number> {
  return await eventually(`${service} tells ${pattern}`, async () => {
    const text = await readFile(join(fixture.home, "logs", `${service}.log`), "utf8");
    const pid = Number(pattern.exec(text)?.[1]);
    assert.ok(pid, text);
    return pid;
  });
}

test("a stop ends everything that the service started, also what left its group and session", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([defineService({ name: "api", command: ["/bin/sh", "-c", family] })]);
  await manager.start();
  const inGroup = await told(fixture, "api", /group (\d+)/);
  const inSession = await told(fixture, "api", /session (\d+)/);
  await manager.stop("api");
  assert.equal(await isAlive(inGroup), false);
  assert.equal(await isAlive(inSession), false);
  assert.deepEqual(await fixture.pids(), []);
});

test("what a killed process leaves behind is ended before it is started again", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([defineService({ name: "api", command: ["/bin/sh", "-c", family] })]);
  await manager.start();
  const inGroup = await told(fixture, "api", /group (\d+)/);
  const inSession = await told(fixture, "api", /session (\d+)/);
  const { pid } = recordOf(manager, "api");
  const backoff = untilState(manager, "api", "backoff");
  assert.ok(pid);
  process.kill(pid, "SIGKILL");
  await backoff;
  assert.equal(await isAlive(inGroup), false);
  assert.equal(await isAlive(inSession), false);
  await untilRecord(manager, "api", (record) => record.state === "ready" && record.pid !== pid);
});

test("a process that ignores its stop signal is killed after its time", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({
      name: "deaf",
      command: ["/bin/sh", "-c", "trap '' TERM; echo \"deaf $$\"; while :; do sleep 0.05; done"],
      stop: { timeoutMs: 100 },
    }),
  ]);
  await manager.start();
  await told(fixture, "deaf", /deaf (\d+)/);
  const record = await manager.stop("deaf");
  assert.equal(record.state, "stopped");
  assert.deepEqual(await fixture.pids(), []);
});

test("a second, forced stop does not wait for a deaf process", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({
      name: "deaf",
      command: ["/bin/sh", "-c", "trap '' TERM; echo \"deaf $$\"; while :; do sleep 0.05; done"],
      stop: { timeoutMs: 600_000 },
    }),
    defineService({ name: "web", command: forever, dependsOn: { deaf: "ready" } }),
  ]);
  await manager.start();
  await told(fixture, "deaf", /deaf (\d+)/);
  const gentle = manager.stopAll();
  await untilState(manager, "deaf", "stopping");
  await manager.stopAll({ force: true });
  await gentle;
  assert.deepEqual(await fixture.pids(), []);
});

test("the group is asked with the signal of the definition, and may finish its work", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({
      name: "database",
      command: ["/bin/sh", "-c", "trap 'echo saved; exit 0' INT; echo up; while :; do sleep 0.02; done"],
      stop: { signal: "SIGINT" },
    }),
  ]);
  await manager.start();
  await eventually("it is up", async () =>
    assert.match(await readFile(join(fixture.home, "logs", "database.log"), "utf8"), /up/),
  );
  await manager.stop("database");
  assert.equal(await readFile(join(fixture.home, "logs", "database.log"), "utf8"), "up\nsaved\n");
  assert.equal(recordOf(manager, "database").lastExit?.code ?? 0, 0);
});

test("stopping twice and stopping what never ran is no error", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([defineService({ name: "api", command: forever })]);
  const events = collectEvents(manager);
  assert.equal((await manager.stop("api")).state, "stopped");
  assert.deepEqual(events, []);
  await Promise.all([manager.stopAll(), manager.stopAll()]);
  await manager.closed;
});

test("a manager whose home was deleted stops all the same", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([defineService({ name: "web", command: forever })]);
  await manager.start();
  // The manager may be writing there.
  await rm(fixture.home, { recursive: true, maxRetries: 10 });
  await manager.stopAll();
  await manager.closed;
  assert.deepEqual(await fixture.pids(), []);
});

test("what cleared its environment and left the group ends with its service", {
  skip: process.platform !== "linux",
}, async (t) => {
  const fixture = await Fixture.create(t);
  const command = ["/bin/sh", "-c", 'env -i setsid sh -c "echo pid \\$\\$; exec sleep 1000" & wait'] as const;
  const manager = await fixture.open([defineService({ name: "web", command })]);
  await manager.start();
  let stray = 0;
  for await (const { line } of manager.subscribeLogs({ service: "web", tailLines: 10 })) {
    stray = Number(line.replace("pid ", ""));
    break;
  }
  assert.equal(await isAlive(stray), true);
  await manager.stop("web");
  assert.equal(await isAlive(stray), false);
});

test("a process that the system refuses to start costs no descriptor", {
  skip: process.platform !== "linux",
}, async (t) => {
  const fixture = await Fixture.create(t);
  const env = { LONG: "x".repeat(200_000) }; // no string of an environment may be so long
  const restart = { intensity: 30, backoffCapMs: 1 };
  const manager = await fixture.open([defineService({ name: "web", command: forever, env, restart })]);
  const before = (await readdir("/proc/self/fd")).length;
  await manager.start();
  assert.match((await untilState(manager, "web", "failed")).reason, /E2BIG/);
  const more = (await readdir("/proc/self/fd")).length - before;
  assert.ok(more < 20, `${more} descriptors more than before`);
});
