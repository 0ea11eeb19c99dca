import assert from "node:assert/strict";
import { test } from "node:test";
import { type Completion, joinDeltas } from "../completion.ts";
import type { KeptAnswer } from "./kept-answer.ts";
import { MemoryTier } from "./memory-tier.ts";

const start = 1_000_000;

function answer(text: string, about: Partial<KeptAnswer["about"]> = {}): KeptAnswer {
  const deltas = [{ text }];
  const head = { id: "chatcmpl-1", created: 1, model: "m" };
  const completion: Completion = {
    head,
    deltas,
    ...joinDeltas(deltas),
    finishReason: "stop",
    usage: undefined,
  };
  return { completion, about: { model: "m", caller: "local", ...about }, storedAt: start };
}

function memory({ ttlMs = 10_000, bytesMax = 100_000 } = {}) {
  const time = { now: start };
  return { time, tier: new MemoryTier({ ttlMs, bytesMax, clock: () => time.now }) };
}

test("an answer is good until its time is over, and says how old it is", () => {
  const { tier, time } = memory();
  tier.set("a", answer("yes"));
  time.now += 9_999;
  assert.equal(tier.get("a")?.ageS, 9);
  time.now += 1;
  assert.equal(tier.get("a"), undefined);
  assert.deepEqual([tier.entries, tier.bytes], [0, 0]);
});

test("whoever wants a young answer gets no older one, which others still get", () => {
  const { tier, time } = memory();
  tier.set("a", answer("yes"));
  time.now += 2_001;
  assert.equal(tier.get("a", 2), undefined);
  assert.ok(tier.get("a", 3));
  assert.ok(tier.get("a"));
});

test("a clock that steps back makes an answer new, and not everlasting", () => {
  const { tier, time } = memory();
  tier.set("a", answer("yes"));
  time.now -= 500_000;
  assert.equal(tier.get("a")?.ageS, 0);
  time.now += 9_999;
  assert.equal(tier.get("a")?.ageS, 9);
  time.now += 1;
  assert.equal(tier.get("a"), undefined);
});

test("where memory is full, the answer that was not asked for the longest goes", () => {
  const { tier } = memory();
  for (const key of ["a", "b", "c"]) tier.set(key, answer("x".repeat(2_500)));
  tier.get("a");
  for (const key of ["d", "e", "f", "g", "h", "i", "j"]) tier.set(key, answer("x".repeat(2_500)));
  assert.ok(tier.bytes <= 100_000);
  assert.ok(tier.entries >= 8);
  assert.ok(tier.get("a"));
  assert.equal(tier.get("b"), undefined);
});

test("one answer cannot push out all others", () => {
  const { tier } = memory();
  tier.set("a", answer("yes"));
  tier.set("huge", answer("x".repeat(20_000)));
  assert.equal(tier.get("huge"), undefined);
  assert.ok(tier.get("a"));
});

test("what only other endpoints answer takes its room too", () => {
  const { tier } = memory();
  const plain = answer("yes");
  tier.set("plain", plain);
  const raw = { data: [{ embedding: Array.from({ length: 200 }, (_, n) => n / 7) }] };
  tier.set("embeddings", { ...plain, completion: { ...plain.completion, raw } });
  const deltas = [{ text: "yes", event: "x".repeat(1_000) }];
  tier.set("responses", { ...plain, completion: { ...plain.completion, deltas, raw: {} } });
  const [responses = 0, embeddings = 0, text = 0] = tier.list({}).map(({ bytes }) => bytes);
  assert.ok(responses >= text + 2_000 && embeddings >= text + 200 * 8);
});

test("keeping an answer again counts it once, and forgetting leaves nothing", () => {
  const { tier } = memory();
  tier.set("a", answer("yes"));
  const { bytes } = tier;
  tier.set("a", answer("yes"));
  assert.equal(tier.bytes, bytes);
  assert.deepEqual(tier.remove({}), ["a"]);
  assert.deepEqual([tier.entries, tier.bytes], [0, 0]);
});

test("answers are forgotten by model, by the beginning of their keys and by caller", () => {
  const filled = () => {
    const { tier } = memory();
    tier.set("chat/m/1", answer("yes"));
    tier.set("chat/m/2", answer("yes", { caller: "phone" }));
    tier.set("chat/m/x/3", answer("yes", { model: "m/x" }));
    tier.set("text/m/4", answer("yes"));
    return tier;
  };
  assert.deepEqual(filled().remove({ model: "m" }), ["chat/m/1", "chat/m/2", "text/m/4"]);
  assert.deepEqual(filled().remove({ prefix: "chat/m/" }), ["chat/m/1", "chat/m/2", "chat/m/x/3"]);
  assert.deepEqual(filled().remove({ caller: "phone" }), ["chat/m/2"]);
  assert.deepEqual(filled().remove({ model: "m", prefix: "chat/", caller: "local" }), ["chat/m/1"]);
  assert.deepEqual(filled().remove({ model: "M" }), []);
});

test("the list tells what is kept and how often it was asked for, without any text", () => {
  const { tier, time } = memory();
  tier.set("chat/m/1", answer("secret"));
  tier.set("chat/m/2", answer("secret"));
  time.now += 5_000;
  tier.get("chat/m/1");
  const [first, second] = tier.list({});
  assert.deepEqual([first?.key, first?.hits, first?.age_s], ["chat/m/1", 1, 5]);
  assert.deepEqual([second?.key, second?.hits], ["chat/m/2", 0]);
  assert.equal(
    tier.list({}).reduce((sum, { bytes }) => sum + bytes, 0),
    tier.bytes,
  );
  assert.doesNotMatch(JSON.stringify(tier.list({})), /secret/);
  time.now += 5_000;
  assert.deepEqual(tier.list({}), []);
  assert.equal(tier.bytes, 0);
});

test("what an answer has beside its text counts as well: numbers, and events", () => {
  const { tier } = memory();
  const plain = answer("yes");
  const holding = (more: Partial<Completion>) => ({ ...plain, completion: { ...plain.completion, ...more } });
  tier.set("numbers", holding({ raw: { data: Array.from({ length: 5_000 }, () => 0.25) } }));
  tier.set("events", holding({ raw: {}, deltas: [{ event: "x".repeat(20_000) }] }));
  assert.equal(tier.entries, 0);
  tier.set("few", holding({ raw: { data: [0.25] } }));
  assert.equal(tier.entries, 1);
});
