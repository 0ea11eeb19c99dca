import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type TestContext, test } from "node:test";
import { ControlClient } from "./control-client.ts";
import { defineService } from "./definition.ts";
import { eventually, Fixture, forever, isAlive, recordOf, untilState } from "./fixture.ts";
import { Guard } from "./guard.ts";
import { listProcesses } from "./processes.ts";

/** A manager in a process of its own, with a printing, a deaf and a straying service; prints `up` once all run. */
async function managerProcess(t: TestContext, fixture: Fixture): Promise<ChildProcess> {
  const here = import.meta.dirname;
  const script = await fixture.script(
    "manager.ts",
    `import { ProcessManager } from ${JSON.stringify(join(here, "process-manager.ts"))};
     const sh = (script: string) => ["/bin/sh", "-c", script] as const;
     const manager = await ProcessManager.open({
       home: ${JSON.stringify(fixture.home)},
       baseEnv: process.env,
       definitions: [
         { name: "printing", command: sh("while :; do echo tick; sleep 0.05; done") },
         { name: "deaf", command: sh("trap '' TERM INT HUP PIPE; while :; do sleep 0.05; done"), stop: { timeoutMs: 200 } },
         { name: "straying", command: sh("setsid sleep 1000 & setsid setsid sleep 1000 & exec sleep 1000") },
       ],
     });
     await manager.start();
     await manager.whenSettled();
     console.log("up");
     await manager.closed;
     console.log("closed");`,
  );
  const child = spawn(process.execPath, [script], { env: fixture.env, stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  for await (const line of createInterface({ input: child.stdout })) if (line === "up") break;
  return child;
}

test("when the manager is killed -9, every child is gone within 2 s, and the next start works", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await managerProcess(t, fixture);
  await eventually("all children run", async () => assert.ok((await fixture.pids()).length >= 6));
  const killedAt = performance.now();
  manager.kill("SIGKILL");
  await once(manager, "exit");
  await eventually("all children are gone", async () => assert.deepEqual(await fixture.pids(), []));
  const tookMs = performance.now() - killedAt;
  assert.ok(tookMs < 2_000, `it took ${tookMs} ms`);
  const next = await fixture.open([defineService({ name: "printing", command: forever })]);
  await next.start();
  await untilState(next, "printing", "ready");
});

test("a start right after a kill -9 ends what is left by itself, also when the guard was killed too", async (t) => {
  const fixture = await Fixture.create(t);
  const killed = await managerProcess(t, fixture);
  const guards = (await listProcesses()).filter((entry) => entry.ppid === killed.pid);
  const before = await fixture.pids();
  // The guard carries no mark: of the manager's own children it is the one without.
  for (const { pid } of guards) if (!before.includes(pid)) process.kill(pid, "SIGKILL");
  killed.kill("SIGKILL");
  await once(killed, "exit");
  const next = await fixture.open([defineService({ name: "api", command: forever })]);
  assert.deepEqual(await fixture.pids(), []);
  await next.start();
  await untilState(next, "api", "ready");
});

test("a second manager on the same home is refused, naming the first; the first is not disturbed", async (t) => {
  const fixture = await Fixture.create(t);
  const first = await fixture.open([defineService({ name: "api", command: forever })]);
  await first.start();
  const { pid } = await untilState(first, "api", "ready");
  await assert.rejects(fixture.open([defineService({ name: "api", command: forever })]), (error: Error) => {
    assert.match(error.message, new RegExp(`is managed by pid ${process.pid} since 20`));
    return "code" in error && error.code === "home-held";
  });
  assert.equal(recordOf(first, "api").pid, pid);
  assert.deepEqual(
    (await new ControlClient(fixture.home).services()).map((one) => one.pid),
    [pid],
  );
});

test("after an orderly stop another process may manage the home, and a stop from there frees it again", async (t) => {
  const fixture = await Fixture.create(t);
  const first = await fixture.open([defineService({ name: "api", command: forever })]);
  await first.stopAll();
  const second = await managerProcess(t, fixture);
  const exited = once(second, "exit");
  await new ControlClient(fixture.home).down();
  const third = await fixture.open([defineService({ name: "api", command: forever })]);
  await third.start();
  await untilState(third, "api", "ready");
  // Nothing keeps the second one's event loop alive.
  assert.deepEqual(await exited, [0, null]);
});

test("a guard that dies is replaced, and knows the groups that are there", async (t) => {
  const fixture = await Fixture.create(t);
  const child = spawn("/bin/sh", ["-c", "exec sleep 1000"], {
    detached: true,
    env: fixture.env,
    stdio: "ignore",
  });
  const guard = new Guard("0123456789abcdef", "/usr/bin:/bin");
  t.after(() => guard.close());
  assert.ok(child.pid && guard.pid);
  guard.watch(child.pid, "SIGTERM");
  const first = guard.pid;
  process.kill(first, "SIGKILL");
  const second = await eventually("there is another guard", () => {
    assert.ok(guard.pid !== null && guard.pid !== first);
    return guard.pid;
  });
  assert.equal(await isAlive(second), true);
  const environ = await readFile(`/proc/${second}/environ`, "latin1");
  assert.doesNotMatch(environ, /0123456789abcdef/);
  guard.forget(child.pid);
  child.kill("SIGKILL");
  await guard.close();
  assert.equal(await isAlive(second), false);
});
