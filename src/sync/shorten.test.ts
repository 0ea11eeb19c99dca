import assert from "node:assert/strict";
import { test } from "node:test";
import { fieldBytesMax, shorten } from "./shorten.ts";

test("a row of ordinary size stays as it is written, down to its numbers", () => {
  const row = '{"id":"a","parameters":{"temperature":1.0,"seed":12345678901234567890}}';
  assert.equal(shorten(row), row);
  const large = `{"prompt":"${"x".repeat(fieldBytesMax - 10)}","seed":1.0}`;
  assert.equal(shorten(large), large);
});

test("a text that is too long keeps its beginning and says how long it was", () => {
  const { id, response } = JSON.parse(shorten(JSON.stringify({ id: "a", response: "é".repeat(200_000) })));
  assert.equal(id, "a");
  assert.match(response, /^é{65536} \[…cut by Pugmark's mirror: 400002 bytes in all\]$/);
});

test("a value that is no text is replaced by an object that says how long it was", () => {
  const prompt = [{ role: "user", content: "x".repeat(300_000) }];
  const { prompt: kept } = JSON.parse(shorten(JSON.stringify({ prompt })));
  assert.deepEqual(kept, { pugmark_cut: { bytes: JSON.stringify(prompt).length } });
});
