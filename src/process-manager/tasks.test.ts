import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import { defineService } from "./definition.ts";
import { collectEvents, Fixture, forever, recordOf, untilRecord, untilState } from "./fixture.ts";
import { nextRunAfter } from "./schedule.ts";

test("a task runs to its end, is then completed, and only then starts what depends on it", async (t) => {
  const fixture = await Fixture.create(t);
  const done = join(fixture.folder, "done");
  const manager = await fixture.open([
    defineService({ name: "web", command: `test -e ${done} && exec sleep 1000`, dependsOn: ["migrate"] }),
    defineService({ name: "migrate", kind: "task", command: `touch ${done}` }),
  ]);
  const events = collectEvents(manager);
  await manager.start();
  await manager.whenSettled();
  assert.equal(recordOf(manager, "migrate").state, "completed");
  assert.equal(recordOf(manager, "migrate").lastExit?.code, 0);
  assert.equal(recordOf(manager, "web").state, "ready");
  const order = events.filter(({ from, to }) => from !== to).map(({ service, to }) => `${service} ${to}`);
  assert.ok(order.indexOf("migrate completed") < order.indexOf("web starting"), order.join("\n"));
});

test("a task that ends badly has failed, shows its last lines, and holds up what depends on it", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({ name: "migrate", kind: "task", command: "echo table pots is missing; exit 3" }),
    defineService({ name: "web", command: forever, dependsOn: { migrate: "completed" } }),
  ]);
  await manager.start();
  await manager.whenSettled();
  const { state, reason, lastLines } = recordOf(manager, "migrate");
  assert.equal(state, "failed");
  assert.match(reason, /^exited with code 3/);
  assert.deepEqual(lastLines, ["table pots is missing"]);
  assert.equal(recordOf(manager, "web").state, "waiting");
  assert.match(recordOf(manager, "web").reason, /^waits for migrate, which failed: exited with code 3/);
});

test("a completed task is not run again for one more that needs it, but by name it is", async (t) => {
  const fixture = await Fixture.create(t);
  const runs = join(fixture.folder, "runs");
  const manager = await fixture.open([
    defineService({ name: "migrate", kind: "task", command: `echo run >> ${runs}` }),
    defineService({ name: "web", command: forever, dependsOn: ["migrate"] }),
  ]);
  const count = async (): Promise<number> => (await readFile(runs, "utf8")).trim().split("\n").length;
  await manager.startAndWait("web");
  await manager.stop("web");
  await manager.startAndWait("web");
  assert.equal(await count(), 1);
  assert.equal((await manager.startAndWait("migrate")).state, "completed");
  assert.equal(await count(), 2);
});

test("exit codes that mean success end a task well, and others do not", async (t) => {
  const fixture = await Fixture.create(t);
  const restart = { successExitCodes: [0, 3] };
  const manager = await fixture.open([
    defineService({ name: "well", kind: "task", command: "exit 3", restart }),
    defineService({ name: "badly", kind: "task", command: "exit 4", restart }),
  ]);
  await manager.start();
  await manager.whenSettled();
  assert.equal(recordOf(manager, "well").state, "completed");
  assert.equal(recordOf(manager, "badly").state, "failed");
});

test("a task may be tried again as its policy says, and the reasons are kept", async (t) => {
  const fixture = await Fixture.create(t);
  const tries = join(fixture.folder, "tries");
  const manager = await fixture.open([
    defineService({
      name: "import",
      kind: "task",
      command: `echo x >> ${tries}; test $(wc -l < ${tries}) -ge 3`,
      restart: { policy: "on-failure", backoffBaseMs: 1 },
    }),
  ]);
  await manager.start();
  const { restarts, recentRestarts } = await untilState(manager, "import", "completed");
  assert.equal(restarts, 2);
  assert.deepEqual(
    recentRestarts.map(({ reason }) => reason),
    ["exited with code 1", "exited with code 1"],
  );
});

test("a scheduled task waits for its time, runs then, and waits for the next", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({ name: "backup", kind: "task", command: "exit 0", schedule: "30 3 * * *" }),
  ]);
  t.mock.timers.enable({ apis: ["Date", "setTimeout"], now: new Date(2026, 10, 22, 3, 29, 30) });
  syncBuiltinESMExports();
  await manager.start();
  const [waiting] = await manager.whenSettled();
  assert.equal(waiting?.state, "waiting");
  const due = await untilRecord(manager, "backup", ({ nextTryAt }) => nextTryAt !== null);
  assert.equal(due.nextTryAt, new Date(2026, 10, 22, 3, 30).toISOString());
  t.mock.timers.tick(30_000);
  const after = await untilRecord(
    manager,
    "backup",
    ({ completedAt, nextTryAt }) => completedAt !== null && nextTryAt !== null,
  );
  assert.equal(after.state, "waiting");
  assert.equal(after.nextTryAt, new Date(2026, 10, 23, 3, 30).toISOString());
  t.mock.timers.reset();
  syncBuiltinESMExports();
});

test("a scheduled task that fails keeps its schedule and tells how it ended; by hand it runs at once", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({ name: "backup", kind: "task", command: "exit 7", schedule: "0 0 1 1 *" }),
  ]);
  await manager.start();
  await untilRecord(manager, "backup", ({ nextTryAt }) => nextTryAt !== null);
  await manager.start(["backup"]);
  const record = await untilRecord(
    manager,
    "backup",
    ({ lastExit, nextTryAt }) => lastExit !== null && nextTryAt !== null,
  );
  assert.equal(record.state, "waiting");
  assert.match(record.reason, /the last run exited with code 7$/);
  assert.equal(record.completedAt, null);
});

test("a schedule that is none is refused, and one is only for tasks", async (t) => {
  const fixture = await Fixture.create(t);
  const define = (schedule: string, kind: "service" | "task") =>
    fixture.open([defineService({ name: "backup", kind, command: forever, schedule })]);
  await assert.rejects(define("every day", "task"), { code: "definition-invalid", message: /five fields/ });
  await assert.rejects(define("* * * * * *", "task"), { code: "definition-invalid", message: /five fields/ });
  await assert.rejects(define("0 3 * * *", "service"), {
    code: "definition-invalid",
    message: /only a task/,
  });
});

test("a schedule's next time is in local time", () => {
  const next = nextRunAfter("0 3 * * 1", new Date(2026, 10, 22, 12));
  assert.deepEqual(next, new Date(2026, 10, 23, 3));
});
