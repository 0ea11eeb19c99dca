import assert from "node:assert/strict";
import { test } from "node:test";
import { SseParser } from "./sse.ts";

const stream = [
  ': a comment\ndata: {"text":"Größe 🐆"}\n\n',
  "event: error\r\ndata: one\r\ndata: two\r\n\r\n",
  "id: 7\ndata:unspaced\n\n",
  "\n\n",
  "data\n\n",
  "data: [DONE]\n\n",
].join("");
const bytes = Buffer.from(stream);
const events = [
  { event: "", data: '{"text":"Größe 🐆"}' },
  { event: "error", data: "one\ntwo" },
  { event: "", data: "unspaced" },
  { event: "", data: "" },
  { event: "", data: "[DONE]" },
];

test("a stream reads the same wherever it is cut in two", () => {
  for (let cut = 0; cut <= bytes.length; cut += 1) {
    const parser = new SseParser();
    const read = [...parser.push(bytes.subarray(0, cut)), ...parser.push(bytes.subarray(cut))];
    assert.deepEqual(read, events, `cut at byte ${cut}`);
  }
});

test("a byte order mark at the beginning is no part of the first line", () => {
  assert.deepEqual(new SseParser().push(Buffer.from("\ufeffdata: \ufeffone\n\n")), [
    { event: "", data: "\ufeffone" },
  ]);
});

test("a stream reads the same when it comes byte by byte", () => {
  const parser = new SseParser();
  assert.deepEqual(
    [...bytes].flatMap((byte) => parser.push(Buffer.of(byte))),
    events,
  );
});

test("an event that was cut off does not count", () => {
  assert.deepEqual(new SseParser().push(Buffer.from("data: [DONE]\n")), []);
});

test("a line that never ends is refused", () => {
  const parser = new SseParser();
  const piece = Buffer.alloc(1024 * 1024, "x");
  assert.throws(
    () => {
      for (let i = 0; i < 6; i += 1) parser.push(piece);
    },
    { code: "upstream-invalid" },
  );
});
