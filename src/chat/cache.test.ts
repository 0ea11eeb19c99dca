import assert from "node:assert/strict";
import { test } from "node:test";
import { AnswerCache } from "./cache.ts";
import { type Completion, joinDeltas } from "./completion.ts";

function answer(text: string): Completion {
  const deltas = [{ text }];
  const head = { id: "chatcmpl-1", created: 1, model: "m" };
  return { head, deltas, ...joinDeltas(deltas), finishReason: "stop", usage: undefined };
}

test("an answer is good until its time is over, and says how old it is", () => {
  let now = 1_000_000;
  const cache = new AnswerCache({ ttlMs: 10_000, clock: () => now });
  cache.set("a", answer("yes"));
  now += 9_999;
  assert.equal(cache.get("a")?.ageS, 9);
  now += 1;
  assert.equal(cache.get("a"), undefined);
  assert.equal(cache.stats.entries, 0);
  assert.equal(cache.stats.bytes, 0);
});

test("a clock that steps back makes no answer older than it is", () => {
  let now = 1_000_000;
  const cache = new AnswerCache({ ttlMs: 10_000, clock: () => now });
  cache.set("a", answer("yes"));
  now -= 500_000;
  assert.equal(cache.get("a")?.ageS, 0);
});

test("where memory is full, the answer that was not asked for the longest goes", () => {
  const cache = new AnswerCache({ ttlMs: 10_000, bytesMax: 100_000 });
  for (const key of ["a", "b", "c"]) cache.set(key, answer("x".repeat(2_500)));
  cache.get("a");
  for (const key of ["d", "e", "f", "g", "h", "i", "j"]) cache.set(key, answer("x".repeat(2_500)));
  assert.ok(cache.stats.bytes <= 100_000);
  assert.ok(cache.get("a"));
  assert.equal(cache.get("b"), undefined);
});

test("one answer cannot push out all others", () => {
  const cache = new AnswerCache({ ttlMs: 10_000, bytesMax: 100_000 });
  cache.set("a", answer("yes"));
  cache.set("huge", answer("x".repeat(20_000)));
  assert.equal(cache.get("huge"), undefined);
  assert.ok(cache.get("a"));
});

test("keeping an answer again counts it once, and forgetting leaves nothing", () => {
  const cache = new AnswerCache({ ttlMs: 10_000 });
  cache.set("a", answer("yes"));
  const { bytes } = cache.stats;
  cache.set("a", answer("yes"));
  assert.equal(cache.stats.bytes, bytes);
  assert.equal(cache.clear(), 1);
  assert.deepEqual([cache.stats.entries, cache.stats.bytes], [0, 0]);
});

test("no time to live means no cache", () => {
  const cache = new AnswerCache({ ttlMs: 0 });
  cache.set("a", answer("yes"));
  assert.equal(cache.isOn, false);
  assert.equal(cache.get("a"), undefined);
});
