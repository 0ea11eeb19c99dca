import assert from "node:assert/strict";
import { test } from "node:test";
import { defineService } from "./definition.ts";
import { ask, eventually, Fixture, untilRecord, untilState } from "./fixture.ts";
import { keepMemoryLimits } from "./memory-limits.ts";

test("a service whose processes together use more than they may is restarted, rolling where it can, and says why", async (t) => {
  const fixture = await Fixture.create(t);
  const port = await fixture.freePort();
  // The memory is a child's: the limit counts the whole tree.
  const script = await fixture.script(
    "server.cjs",
    `const server = require("node:http").createServer((request, response) => {
       response.setHeader("connection", "close");
       if (request.url === "/grow")
         require("node:child_process").spawn(process.execPath, ["-e", "globalThis.held = Buffer.alloc(300e6, 1); setInterval(() => {}, 1000)"]);
       response.end(String(process.pid));
     });
     server.listen({ fd: 3 }, () => process.send("ready"));
     process.on("SIGTERM", () => server.close(() => process.exit(0)));`,
  );
  const manager = await fixture.open([
    defineService({
      name: "web",
      command: [process.execPath, script],
      listen: { port, hold: true },
      readiness: { kind: "ipc" },
      memoryMaxMiB: 250,
    }),
  ]);
  await manager.start();
  const { pid } = await untilState(manager, "web", "ready");
  assert.equal(await ask(port, "/grow"), String(pid));
  const after = await untilRecord(manager, "web", (record) => record.pid !== pid && record.state === "ready");
  assert.match(after.recentRestarts.at(-1)?.reason ?? "", /it used \d+ MiB, and 250 is its limit/);
  // Until it has heard its signal, the old process takes connections too.
  await eventually("the new process answers", async () =>
    assert.equal(await ask(port, "/"), String(after.pid)),
  );
});

test("limits hold on after memory could not be read once", async () => {
  const end = new AbortController();
  const reasons: string[] = [];
  let looks = 0;
  const memory = async (): Promise<ReadonlyMap<string, number>> => {
    looks += 1;
    if (looks === 1) throw new Error("EMFILE: too many open files, scandir '/proc'");
    return new Map([["web", 300 * 1024 * 1024]]);
  };
  const restart = async (_name: string, why: string): Promise<void> => {
    reasons.push(why);
    end.abort();
  };
  await keepMemoryLimits({ limits: () => new Map([["web", 250]]), memory, restart }, end.signal);
  assert.deepEqual(reasons, ["it used 300 MiB, and 250 is its limit"]);
});

test("a restart for too much memory is counted with its reason, also where there is a gap", async (t) => {
  const fixture = await Fixture.create(t);
  const fill = "globalThis.held = Buffer.alloc(300e6, 1); setInterval(() => {}, 1000)";
  const manager = await fixture.open([
    defineService({ name: "hungry", command: [process.execPath, "-e", fill], memoryMaxMiB: 250 }),
  ]);
  await manager.start();
  const { recentRestarts } = await untilRecord(
    manager,
    "hungry",
    ({ restarts }) => restarts === 2,
    "two restarts",
  );
  for (const { reason } of recentRestarts) assert.match(reason, /it used \d+ MiB, and 250 is its limit/);
});
