import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { defineService } from "./definition.ts";
import { ask, Fixture, recordOf, untilState } from "./fixture.ts";

test("a line of output that matches makes a service ready, whichever stream it is on", async (t) => {
  const fixture = await Fixture.create(t);
  const gate = join(fixture.folder, "gate");
  const wait = `while ! test -e ${gate}; do sleep 0.01; done`;
  const readiness = { kind: "log", pattern: "^ready to \\w+$" } as const;
  const manager = await fixture.open([
    defineService({
      name: "out",
      command: `echo not ready to serve; ${wait}; echo ready to serve; exec sleep 1000`,
      readiness,
    }),
    defineService({ name: "err", command: `${wait}; echo ready to go >&2; exec sleep 1000`, readiness }),
  ]);
  await manager.start();
  for (const { state } of manager.services()) assert.notEqual(state, "ready");
  await writeFile(gate, "");
  await untilState(manager, "out", "ready");
  await untilState(manager, "err", "ready");
});

test("process.send makes a service ready, and one that hangs up without it is not", async (t) => {
  const fixture = await Fixture.create(t);
  const script = await fixture.script(
    "send.cjs",
    `process.send(process.argv[2]); setInterval(() => {}, 1000); process.on("message", () => {});`,
  );
  const manager = await fixture.open([
    defineService({
      name: "well",
      command: [process.execPath, script, "ready"],
      readiness: { kind: "ipc" },
    }),
    defineService({
      name: "named",
      command: [process.execPath, script, "online"],
      readiness: { kind: "ipc", pattern: "online" },
    }),
    defineService({
      name: "other",
      command: [process.execPath, script, "hello"],
      readiness: { kind: "ipc" },
      startTimeoutMs: 300,
      restart: { policy: "never" },
    }),
  ]);
  await manager.start();
  await untilState(manager, "well", "ready");
  await untilState(manager, "named", "ready");
  const { reason } = await untilState(manager, "other", "failed");
  assert.match(reason, /was not ready within 0.3 s/);
});

/** On the held socket, ready by a message or by a line; tells its pid. */
const server = `
const server = require("node:http").createServer((request, response) => {
  response.setHeader("connection", "close");
  response.end(JSON.stringify({ pid: process.pid, listenPid: process.env.LISTEN_PID, names: process.env.LISTEN_FDNAMES }));
});
server.listen({ fd: 3 }, () => (process.send ? process.send("ready") : console.log("listening")));
process.on("SIGTERM", () => server.close(() => process.exit(0)));
`;

for (const readiness of [{ kind: "ipc" }, { kind: "log", pattern: "^listening$" }] as const) {
  test(`a service that says by ${readiness.kind} that it is ready is restarted without a gap`, async (t) => {
    const fixture = await Fixture.create(t);
    const port = await fixture.freePort();
    const script = await fixture.script("server.cjs", server);
    const manager = await fixture.open([
      defineService({
        name: "web",
        command: [process.execPath, script],
        listen: { port, hold: true },
        readiness,
      }),
    ]);
    const { pid } = await manager.startAndWait("web");
    const answers: string[] = [];
    let isOver = false;
    const load = (async () => {
      while (!isOver) answers.push(await ask(port, "/"));
    })();
    const next = await manager.restart("web");
    isOver = true;
    await load;
    const pids = new Set(answers.map((answer) => JSON.parse(answer).pid));
    assert.ok(pids.has(pid) && [...pids].every((one) => one === pid || one === next.pid), answers.join());
    assert.notEqual(next.pid, pid);
    assert.match(recordOf(manager, "web").recentRestarts.at(-1)?.reason ?? "", /took over from pid/);
  });
}

test("a program that is handed a socket finds systemd's three variables, LISTEN_PID its own pid", async (t) => {
  const fixture = await Fixture.create(t);
  const port = await fixture.freePort();
  const script = await fixture.script("server.cjs", server);
  const manager = await fixture.open([
    defineService({
      name: "web",
      command: [process.execPath, script],
      listen: { port, hold: true },
      readiness: { kind: "log", pattern: "listening" },
    }),
  ]);
  const { pid } = await manager.startAndWait("web");
  const answer = JSON.parse(await ask(port, "/"));
  assert.deepEqual(answer, { pid, listenPid: String(pid), names: "web" });
});

test("a program that is not there fails with its name also where it would be handed a socket", async (t) => {
  const fixture = await Fixture.create(t);
  const port = await fixture.freePort();
  const manager = await fixture.open([
    defineService({
      name: "web",
      command: ["no-such-program"],
      listen: { port, hold: true },
      restart: { intensity: 0 },
    }),
  ]);
  await manager.start();
  const { reason } = await untilState(manager, "web", "failed");
  assert.match(reason, /there is no program no-such-program in any folder of PATH/);
});

test("a program's exit code answers an exec probe, its last line says why, and it dies with its time", async (t) => {
  const fixture = await Fixture.create(t);
  const well = join(fixture.folder, "well");
  const manager = await fixture.open([
    defineService({
      name: "db",
      command: "exec sleep 1000",
      env: { WELL: well },
      readiness: {
        kind: "exec",
        command: 'test -e "$WELL" || { echo checking; echo the pots are cold; exit 2; }',
        periodMs: 20,
        timeoutMs: 5_000,
      },
    }),
    defineService({
      name: "slow",
      command: "exec sleep 1000",
      readiness: { kind: "exec", command: "sleep 1000", timeoutMs: 30 },
      startTimeoutMs: 200,
      restart: { policy: "never" },
    }),
  ]);
  await manager.start();
  const { reason } = await untilState(manager, "slow", "failed");
  assert.match(reason, /was not ready within 0.2 s: no answer within 30 ms/);
  assert.equal(existsSync(well), false);
  assert.equal(recordOf(manager, "db").state, "starting");
  await writeFile(well, "");
  await untilState(manager, "db", "ready");
});
