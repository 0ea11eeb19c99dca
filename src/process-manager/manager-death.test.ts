import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { test } from "node:test";
import { eventually, Fixture, refuses } from "./fixture.ts";

/**
 * A manager that kills itself with SIGKILL at its n-th event, from the first move of its first service to the last of
 * its stop: services that stray, that ignore signals, that hold a socket, and a task that they wait for.
 */
const program = (here: string, home: string, port: number): string => `
  import { ProcessManager } from ${JSON.stringify(join(here, "process-manager.ts"))};
  const manager = await ProcessManager.open({
    home: ${JSON.stringify(home)},
    baseEnv: process.env,
    definitions: [
      { name: "first", kind: "task", command: "setsid sleep 1000 & exit 0" },
      { name: "deaf", command: "trap '' TERM INT HUP; while :; do sleep 0.05; done", stop: { timeoutMs: 50 } },
      { name: "straying", command: "setsid sleep 1000 & exec sleep 1000", dependsOn: ["first"] },
      { name: "held", command: "exec sleep 1000", listen: { port: ${port}, hold: true }, dependsOn: ["straying"] },
    ],
  });
  let left = Number(process.argv[2]);
  manager.onEvent(() => {
    left -= 1;
    if (left === 0) process.kill(process.pid, "SIGKILL");
  });
  await manager.start();
  await manager.whenSettled();
  await manager.stopAll();
`;

test("a manager may be killed -9 at any moment of a start and a stop: nothing is left, and the next one starts", async (t) => {
  const fixture = await Fixture.create(t);
  const port = await fixture.freePort();
  const script = await fixture.script("manager.ts", program(import.meta.dirname, fixture.home, port));
  let killedAt = 0;
  for (let wasKilled = true; wasKilled; ) {
    killedAt += 1;
    const manager = spawn(process.execPath, [script, String(killedAt)], {
      env: { ...fixture.env, NODE_COMPILE_CACHE: join(fixture.folder, "compiled") },
      stdio: ["ignore", "ignore", "inherit"],
    });
    const [code, signal] = await once(manager, "exit");
    wasKilled = signal === "SIGKILL";
    if (!wasKilled) assert.equal(code, 0);
    // Every other time the next manager comes at once and has to clear up by itself.
    if (killedAt % 2 === 0 || !wasKilled)
      await eventually(`nothing is left after event ${killedAt}`, async () => {
        assert.deepEqual(await fixture.pids(), []);
        assert.equal(await refuses(port), true);
      });
  }
  assert.ok(killedAt > 12, `only ${killedAt} moments`);
});
