import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import net from "node:net";
import { type TestContext, test } from "node:test";
import { ClientLoad } from "./client-load.ts";
import { defineService, type ServiceDefinition } from "./definition.ts";
import { ask, eventually, Fixture, isAlive, recordOf, refuses, untilRecord, untilState } from "./fixture.ts";
import type { ProcessManager } from "./process-manager.ts";
import { Relay } from "./relay.ts";

/** Knows nothing of sockets: listens on \`PORT\`, keeps connections, and closes the idle ones when it is told to end. */
const keepingServer = `
const http = require("node:http");
const server = http.createServer((request, response) => {
  const answer = () => response.end(String(process.pid));
  if (request.url === "/slow") setTimeout(answer, 20);
  else answer();
});
server.listen(Number(process.env.PORT), "127.0.0.1");
process.on("SIGTERM", () => server.close(() => process.exit(0)));
`;

interface Relayed {
  readonly fixture: Fixture;
  readonly manager: ProcessManager;
  readonly port: number;
}

async function serve(t: TestContext, more: Partial<ServiceDefinition> = {}): Promise<Relayed> {
  const fixture = await Fixture.create(t);
  const port = await fixture.freePort();
  const script = await fixture.script("server.cjs", keepingServer);
  const manager = await fixture.open([
    defineService({
      name: "web",
      command: [process.execPath, script],
      listen: { port, relay: true },
      readiness: { kind: "http", url: "/healthz" },
      restart: { backoffBaseMs: 10, backoffCapMs: 20, intensity: 100 },
      ...more,
    }),
  ]);
  await manager.startAndWait("web");
  return { fixture, manager, port };
}

test("of 20 kills under load, no connection to a relayed service is refused", async (t) => {
  const { manager, port } = await serve(t);
  const load = new ClientLoad(port, 8, "/");
  for (let kill = 0; kill < 20; kill += 1) {
    await load.answered(20);
    const { pid } = recordOf(manager, "web");
    assert.ok(pid);
    process.kill(pid, "SIGKILL");
    await untilRecord(manager, "web", (record) => record.state === "ready" && record.pid !== pid);
  }
  await load.answered(20);
  await load.end();
  // Whoever was inside the killed process is cut off; nobody is turned away.
  assert.deepEqual(
    load.failures.filter((code) => code !== "ECONNRESET"),
    [],
  );
});

for (const isKept of [false, true])
  test(`a rolling restart behind a relay fails no request, connections ${isKept ? "kept" : "new each time"}`, async (t) => {
    const { manager, port } = await serve(t);
    const agent = new http.Agent({ keepAlive: isKept });
    const load = new ClientLoad(port, 8, "/slow", agent);
    for (let restart = 0; restart < 3; restart += 1) {
      await load.answered(20);
      const { pid } = recordOf(manager, "web");
      const after = await manager.restart("web");
      assert.notEqual(after.pid, pid);
      assert.ok(pid && !(await isAlive(pid)));
      assert.equal(await ask(port, "/"), String(after.pid));
    }
    await load.answered(20);
    await load.end();
    agent.destroy();
    assert.deepEqual(load.failures, []);
    assert.equal(recordOf(manager, "web").restarts, 3);
    assert.equal(recordOf(manager, "web").port, port);
  });

test("a restart that must leave no gap goes through behind a relay", async (t) => {
  const { manager } = await serve(t);
  const { pid } = recordOf(manager, "web");
  const after = await manager.restart("web", null, true);
  assert.equal(after.state, "ready");
  assert.notEqual(after.pid, pid);
});

test("the port belongs to the manager: clients wait while the program is replaced, and are refused when it is stopped", async (t) => {
  let isHeldBack = false;
  const gate = Promise.withResolvers<void>();
  const { manager, port } = await serve(t, {
    prepare: async () => {
      if (isHeldBack) await gate.promise;
    },
  });
  const { pid } = recordOf(manager, "web");
  assert.ok(pid);
  isHeldBack = true;
  process.kill(pid, "SIGKILL");
  await untilState(manager, "web", "starting");
  const answer = ask(port, "/");
  gate.resolve();
  const after = await untilRecord(manager, "web", (record) => record.state === "ready" && record.pid !== pid);
  assert.equal(await answer, String(after.pid));
  await manager.stop("web");
  assert.equal(await refuses(port), true);
});

test("who waits for a program that is given up is closed, and the port is free again", async (t) => {
  let isBroken = false;
  const { manager, port } = await serve(t, {
    prepare: async (signal) => {
      if (isBroken) await new Promise((_resolve, reject) => signal.addEventListener("abort", reject));
    },
  });
  const { pid } = recordOf(manager, "web");
  assert.ok(pid);
  isBroken = true;
  process.kill(pid, "SIGKILL");
  await untilState(manager, "web", "starting");
  const waiting = assert.rejects(ask(port, "/"));
  await manager.stop("web");
  await waiting;
  assert.equal(await refuses(port), true);
});

/** A relay without a manager, and a program in this process. */
async function relayTo(t: TestContext, program: (socket: net.Socket) => void, host = "127.0.0.1") {
  const server = net.createServer({ allowHalfOpen: true }, program).listen(0, "127.0.0.1");
  await once(server, "listening");
  const programPort = (server.address() as net.AddressInfo).port;
  let relay: Relay | null = null;
  t.after(() => {
    relay?.close();
    server.close();
  });
  const fixture = await Fixture.create(t); // its own look for what is left comes after that
  const port = await fixture.freePort();
  const complaints: string[] = [];
  const complain = (text: string): void => void complaints.push(text);
  relay = await Relay.listen({ host, port }, undefined, complain, {
    connectionsMax: 2,
    timeMaxMs: 200,
  });
  const connect = (): net.Socket => net.connect({ host, port, allowHalfOpen: true });
  return { relay, programPort, connect, complaints };
}

test("a connection that is ended on one side still brings the answer on the other", async (t) => {
  for (const host of ["127.0.0.1", "::1"]) {
    const { relay, programPort, connect } = await relayTo(t, echoAtEnd, host);
    relay.passTo(programPort);
    const client = connect();
    client.end("all that I have to say");
    let text = "";
    for await (const chunk of client) text += chunk;
    assert.equal(text, "you said: all that I have to say");
  }
});

function echoAtEnd(socket: net.Socket): void {
  let text = "you said: ";
  socket.on("data", (chunk) => {
    text += chunk;
  });
  socket.on("end", () => socket.end(text));
}

test("a break on one side is a break on the other", async (t) => {
  const broken = Promise.withResolvers<NodeJS.ErrnoException>();
  const { relay, programPort, connect } = await relayTo(t, (socket) => {
    socket.on("error", broken.resolve);
    socket.on("data", (chunk) => {
      if (String(chunk) === "break") socket.resetAndDestroy();
      else socket.write("yes");
    });
  });
  relay.passTo(programPort);
  const first = connect();
  first.write("break");
  const [error] = await once(first, "error");
  assert.equal(error.code, "ECONNRESET");
  const second = connect();
  second.write("hello");
  await once(second, "data");
  second.resetAndDestroy();
  assert.equal((await broken.promise).code, "ECONNRESET");
});

test("a reader that does not read holds its program up, and costs the relay no memory", async (t) => {
  const total = 256 * 1024 * 1024;
  const chunk = Buffer.alloc(64 * 1024, "x");
  let sent = 0;
  const { relay, programPort, connect } = await relayTo(t, (socket) => {
    const send = (): void => {
      while (sent < total && socket.write(chunk)) sent += chunk.length;
      if (sent >= total) socket.end();
      else sent += chunk.length;
    };
    socket.on("drain", send);
    send();
  });
  relay.passTo(programPort);
  const client = connect();
  const seen: number[] = [];
  await eventually("nothing more is taken", () => {
    seen.push(sent);
    assert.ok(sent > 0 && seen.length > 10 && seen.at(-10) === sent);
  });
  assert.ok(sent < 32 * 1024 * 1024, `${sent} bytes were taken`);
  let received = 0;
  for await (const piece of client) received += piece.length;
  assert.equal(received, sent);
  assert.ok(received >= total);
});

test("connections wait for a program only so many and so long, and the closed ones are told of", async (t) => {
  const { relay, programPort, connect, complaints } = await relayTo(t, (socket) => socket.end("here"));
  const closed = [connect(), connect(), connect()].map(async (client) => {
    client.on("error", () => undefined);
    await new Promise((resolve) => client.on("close", resolve));
  });
  await Promise.all(closed);
  await eventually("the manager is told", () =>
    assert.deepEqual(complaints, [
      "closed 2 connections: no program took them within 0.2 s",
      "closed 1 connections: 2 waited, or 4000 were open",
    ]),
  );
  relay.passTo(programPort);
  const last = connect();
  const [answer] = await once(last, "data");
  assert.equal(String(answer), "here");
  last.destroy();
});

test("a connection stays with its program until it ends, and a kept HTTP one moves on with its next request", async (t) => {
  const answerAs = (name: string) => (socket: net.Socket) => {
    socket.on("data", () => socket.write(`HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n${name}`));
    socket.on("end", () => socket.end());
  };
  const { relay, programPort, connect } = await relayTo(t, answerAs("old"));
  const next = net.createServer(answerAs("new")).listen(0, "127.0.0.1");
  await once(next, "listening");
  t.after(() => next.close());
  relay.passTo(programPort);
  const [web, raw] = [connect(), connect()];
  const say = async (client: net.Socket, text: string): Promise<string> => {
    client.write(text);
    return String((await once(client, "data"))[0]).slice(-3);
  };
  const request = "GET / HTTP/1.1\r\nhost: here\r\n\r\n";
  assert.deepEqual([await say(web, request), await say(raw, "ping")], ["old", "old"]);
  relay.passTo((next.address() as net.AddressInfo).port);
  assert.deepEqual([await say(web, request), await say(raw, "ping")], ["new", "old"]);
  let isDrained = false;
  const drained = relay.drained(programPort, t.signal).then(() => {
    isDrained = true;
  });
  assert.equal(await say(raw, "ping"), "old");
  assert.equal(isDrained, false);
  raw.destroy();
  await drained;
  web.destroy();
});

test("a relay that contradicts itself is refused", async (t) => {
  const fixture = await Fixture.create(t);
  const listen = { port: 1, hold: true, relay: true };
  const web = defineService({ name: "web", command: "true", listen, env: { PORT: "2" } });
  const task = defineService({
    name: "job",
    kind: "task",
    command: "true",
    listen: { port: 2, relay: true },
  });
  await assert.rejects(fixture.open([web, task]), {
    message:
      "web has both hold and relay; a program is handed a socket or relayed to; " +
      "web is relayed to on the port that it finds in PORT, which its env may not set; " +
      "job is a task, which nothing can be relayed to",
  });
});
