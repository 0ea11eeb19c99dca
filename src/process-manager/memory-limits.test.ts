import assert from "node:assert/strict";
import { test } from "node:test";
import { defineService } from "./definition.ts";
import { ask, Fixture, untilRecord, untilState } from "./fixture.ts";

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
  assert.equal(await ask(port, "/"), String(after.pid));
});
