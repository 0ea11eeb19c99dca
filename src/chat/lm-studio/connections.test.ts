import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { test } from "node:test";
import { closedPort } from "../../../test/support/ports.ts";
import { Connections, type Requester } from "./connections.ts";

const hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHello";

/** A server that does what it is told with each request, or reads none, and the connections that it took. */
async function serving(answer?: (socket: Socket, request: string) => void) {
  const sockets: Socket[] = [];
  const { promise: connected, resolve } = Promise.withResolvers<Socket>();
  const server: Server = createServer((socket) => {
    sockets.push(socket);
    resolve(socket);
    let text = "";
    socket.on("error", () => {});
    if (!answer) return;
    socket.on("data", (bytes) => {
      text += bytes.toString("latin1");
      // What is asked here says how long it is, and is short.
      const [head = "", length] = /^.*content-length: (\d+)\r\n\r\n/s.exec(text) ?? [];
      const end = head.length + Number(length);
      if (head === "" || text.length < end) return;
      const request = text.slice(0, end);
      text = text.slice(end);
      answer(socket, request);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const connections = new Connections(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, {
    connectMs: 5_000,
    idleMs: 60_000,
  });
  return {
    connections,
    sockets,
    connected,
    async [Symbol.asyncDispose]() {
      connections.close();
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

/** Asks, and gives what is told until the end, or what it failed of. */
function ask(connections: Connections, { body = "{}", onBody = (_: string) => {}, onSent = () => {} } = {}) {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let said = "";
  const requester: Requester = {
    onSent,
    onHead: () => {},
    onBody: (bytes) => {
      said += bytes;
      onBody(said);
    },
    onEnd: () => resolve(said),
    onFailure: reject,
  };
  const sent = connections.post({ path: "/v1/x", headers: "x-a: 1\r\n", body }, requester);
  return { answer: promise, abort: () => sent.abort(requester) };
}

test("a request is written whole, its length in bytes, and its connection used again", async () => {
  const requests: string[] = [];
  await using server = await serving((socket, request) => {
    requests.push(request);
    socket.write(hello);
  });
  for (let i = 0; i < 3; i += 1) assert.equal(await ask(server.connections, { body: '"ü"' }).answer, "Hello");
  assert.equal(server.sockets.length, 1);
  assert.match(
    requests[0] as string,
    /^POST \/v1\/x HTTP\/1\.1\r\nhost: 127\.0\.0\.1:\d+\r\nx-a: 1\r\ncontent-length: 4\r\n\r\n/,
  );
});

test("requests at once each have a connection of their own", async () => {
  const waiting: Socket[] = [];
  await using server = await serving((socket) => {
    waiting.push(socket);
    if (waiting.length === 3) for (const each of waiting) each.write(hello);
  });
  const answers = [1, 2, 3].map(() => ask(server.connections).answer);
  assert.deepEqual(await Promise.all(answers), ["Hello", "Hello", "Hello"]);
  assert.equal(server.sockets.length, 3);
});

test("many requests are written together at the end of their turn, but for those that were aborted by then", async () => {
  const bodies: string[] = [];
  await using server = await serving((socket, request) => {
    bodies.push(request.slice(request.indexOf("\r\n\r\n") + 4));
    socket.write(hello);
  });
  // Connections that are there already: else their being made is what is waited for.
  const names = Array.from({ length: 20 }, (_, index) => String(index));
  await Promise.all(names.map((body) => ask(server.connections, { body }).answer));
  bodies.length = 0;
  const sent: string[] = [];
  const asked = names.map((body) => ask(server.connections, { body, onSent: () => sent.push(body) }));
  const atOnce = [...sent];
  asked.at(-1)?.abort();
  const [last, ...others] = names.toReversed();
  await Promise.all(asked.slice(0, -1).map(({ answer }) => answer));
  assert.ok(atOnce.length < others.length && !sent.includes(String(last)));
  assert.deepEqual([sent.sort(), bodies.sort()], [others.sort(), others.sort()]);
});

test("one that the other side closed while it was idle is not used again", async () => {
  await using server = await serving((socket) => socket.end(hello));
  assert.equal(await ask(server.connections).answer, "Hello");
  await once(server.sockets[0] as Socket, "close");
  assert.equal(await ask(server.connections).answer, "Hello");
  assert.equal(server.sockets.length, 2);
});

test("a connection that breaks is told, and whether it had worked before", async () => {
  let answered = 0;
  await using server = await serving((socket) => {
    answered += 1;
    if (answered === 2) socket.write(hello);
    else socket.end();
  });
  const { connections } = server;
  await assert.rejects(ask(connections).answer, { code: "closed", wasUsed: false });
  assert.equal(await ask(connections).answer, "Hello");
  await assert.rejects(ask(connections).answer, { code: "closed", wasUsed: true });
});

test("an answer that is cut is none, and what is no HTTP is not either", async () => {
  const wrong = ["HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nHell", "220 smtp.example.org\r\n\r\n"];
  await using server = await serving((socket) => socket.end(wrong.shift() ?? ""));
  await assert.rejects(ask(server.connections).answer, { code: "closed" });
  await assert.rejects(ask(server.connections).answer, { code: "malformed" });
});

test("an aborted request closes its connection at once, and nothing more is told", async () => {
  await using server = await serving((socket) => socket.write(hello.slice(0, -2)));
  const { promise: begun, resolve } = Promise.withResolvers<string>();
  const { answer, abort } = ask(server.connections, { onBody: resolve });
  answer.catch(() => assert.fail("told of a failure"));
  assert.equal(await begun, "Hel");
  abort();
  await once(server.sockets[0] as Socket, "close");
});

test("to abort what is answered leaves its connection to others", async () => {
  await using server = await serving((socket) => socket.write(hello));
  const first = ask(server.connections);
  await first.answer;
  first.abort();
  assert.equal(await ask(server.connections).answer, "Hello");
  assert.equal(server.sockets.length, 1);
});

test("bytes that nobody asked for close the connection", async () => {
  await using server = await serving((socket) => socket.write(hello));
  assert.equal(await ask(server.connections).answer, "Hello");
  server.sockets[0]?.write(hello);
  await once(server.sockets[0] as Socket, "close");
  assert.equal(await ask(server.connections).answer, "Hello");
  assert.equal(server.sockets.length, 2);
});

test("an answer that comes before the question is written out ends the connection", async () => {
  await using server = await serving();
  const { answer } = ask(server.connections, { body: "x".repeat(16 * 1024 * 1024) });
  const socket = await server.connected;
  socket.write(hello);
  assert.equal(await answer, "Hello");
  socket.resume();
  await once(socket, "close");
});

test("where nothing listens, Node's own error is told", async () => {
  const connections = new Connections(`http://127.0.0.1:${closedPort}`, { connectMs: 5_000, idleMs: 1_000 });
  await assert.rejects(ask(connections).answer, { code: "ECONNREFUSED" });
});
