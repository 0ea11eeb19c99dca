import assert from "node:assert/strict";
import { test } from "node:test";
import { ResponseParser } from "./response-parser.ts";

/** What is told of an answer that comes in these parts. */
function read(...parts: readonly string[]) {
  const told = { status: 0, headers: {} as Record<string, string>, body: "" };
  const parser = new ResponseParser({
    onHead: (status, headers) => Object.assign(told, { status, headers: Object.fromEntries(headers) }),
    onBody: (bytes) => {
      told.body += bytes.toString("latin1");
    },
  });
  for (const part of parts) parser.push(Buffer.from(part, "latin1"));
  return { ...told, parser, isOver: parser.isOver, keepsAlive: parser.keepsAlive };
}

const chunked =
  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" +
  "5\r\nHello\r\n7;note=1\r\n, world\r\nA \r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n";

test("an answer reads the same wherever it is cut", () => {
  for (const whole of [
    chunked,
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\nHello, world0123456789",
  ]) {
    for (let cut = 0; cut <= whole.length; cut += 1) {
      const { status, body, isOver, keepsAlive } = read(whole.slice(0, cut), whole.slice(cut));
      assert.deepEqual(
        [status, body, isOver, keepsAlive],
        [200, "Hello, world0123456789", true, true],
        `cut at ${cut}`,
      );
    }
    assert.equal(read(...whole).body, "Hello, world0123456789");
  }
});

test("header names are lower case, values trimmed, repeated ones a list", () => {
  const { headers } = read(
    "HTTP/1.1 200 OK\r\nRETRY-After:  7 \r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 0\r\n\r\n",
  );
  assert.deepEqual(headers, { "retry-after": "7", "x-a": "1, 2", "content-length": "0" });
});

test("an answer without a length ends with its connection, which is not used again", () => {
  const { parser, body, isOver } = read("HTTP/1.1 200 OK\r\n\r\nall of ", "it");
  assert.deepEqual([body, isOver], ["all of it", false]);
  assert.deepEqual([parser.closed(), parser.isOver, parser.keepsAlive], [true, true, false]);
});

test("an answer that has a length does not end with its connection", () => {
  assert.equal(read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHell").parser.closed(), false);
  assert.equal(read(chunked.slice(0, -2)).parser.closed(), false);
  assert.equal(read("HTTP/1.1 200 OK\r\nContent-").parser.closed(), false);
});

test("a connection is used again where both sides mean it", () => {
  const keeps = (head: string) => read(`${head}\r\nContent-Length: 0\r\n\r\n`).keepsAlive;
  assert.equal(keeps("HTTP/1.1 200 OK"), true);
  assert.equal(keeps("HTTP/1.1 200 OK\r\nConnection: Close"), false);
  assert.equal(keeps("HTTP/1.0 200 OK"), false);
  assert.equal(keeps("HTTP/1.0 200 OK\r\nConnection: Keep-Alive"), true);
});

test("answers without a body are over with their head", () => {
  for (const status of ["204 No Content", "304 Not Modified"]) {
    assert.equal(read(`HTTP/1.1 ${status}\r\n\r\n`).isOver, true);
  }
});

test("what two readers could understand in two ways is no answer", () => {
  const ok = "HTTP/1.1 200 OK\r\n";
  for (const [what, bytes] of Object.entries({
    "no HTTP": "SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "another version": "HTTP/2 200 OK\r\n\r\n",
    "two lengths": `${ok}Content-Length: 5\r\nContent-Length: 6\r\n\r\n`,
    "a negative length": `${ok}Content-Length: -1\r\n\r\n`,
    "a length and chunks": `${ok}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n`,
    "another coding": `${ok}Transfer-Encoding: gzip, chunked\r\n\r\n`,
    "a folded header": `${ok}X-A: 1\r\n more\r\n\r\n`,
    "a header without a name": `${ok}: 1\r\n\r\n`,
    "a name with a space": `${ok}X-A : 1\r\n\r\n`,
    "more than it says": `${ok}Content-Length: 2\r\n\r\nabc`,
    "two answers": `${ok}Content-Length: 0\r\n\r\n${ok}`,
    "bytes after its last chunk": `${chunked}x`,
    "a chunk without a length": `${ok}Transfer-Encoding: chunked\r\n\r\n\r\n`,
    "a chunk with a negative length": `${ok}Transfer-Encoding: chunked\r\n\r\n-1\r\n`,
    "a length that does not end": `${ok}Transfer-Encoding: chunked\r\n\r\n${"f".repeat(11)}`,
    "a chunk that is longer than it says": `${ok}Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n`,
    "bare line feeds": `${ok}Transfer-Encoding: chunked\r\n\r\n1\nab`,
    "a head that does not end": `${ok}X-A: ${"a".repeat(70_000)}`,
    "trailers that do not end": `${ok}Transfer-Encoding: chunked\r\n\r\n0\r\n${"a".repeat(70_000)}`,
  })) {
    assert.throws(() => read(bytes), /not an HTTP answer/, what);
  }
});
