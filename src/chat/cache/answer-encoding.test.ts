import assert from "node:assert/strict";
import { test } from "node:test";
import { type Completion, joinDeltas } from "../completion.ts";
import type { Delta } from "../lm-studio/reasoning.ts";
import { aboutCharsMax, decodeAbout, decodeAnswer, encodeAnswer } from "./answer-encoding.ts";
import type { KeptAnswer } from "./kept-answer.ts";

function answer(deltas: readonly Delta[], more: Partial<Completion> = {}): KeptAnswer {
  const head = { id: "chatcmpl-1", created: 1_785_472_762, model: "qwen/qwq-32b", system_fingerprint: "f" };
  const usage = { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 };
  const completion = { head, deltas, ...joinDeltas(deltas), finishReason: "stop", usage, ...more };
  return { completion, about: { model: "qwen/qwq-32b", caller: "phone" }, storedAt: 1_785_472_762_123 };
}

const call = { index: 0, id: "1", type: "function", function: { name: "f", arguments: "{" } };
const rest = { index: 0, function: { arguments: "}" } };

for (const [what, kept] of [
  ["text", answer([{ text: "Tĥe \u0000 \ud800 cat\n" }, { text: " sat" }])],
  ["thinking and text", answer([{ reasoning: "hm" }, { reasoning: "\n" }, { text: "Yes" }])],
  ["both in one piece", answer([{ reasoning: "hm", text: "Yes" }])],
  ["tool calls", answer([{ toolCalls: [call] }, { toolCalls: [rest] }], { finishReason: "tool_calls" })],
  ["nothing, and no usage", answer([], { usage: undefined })],
  [
    "events of a response",
    answer([{ event: "event: a\ndata: {}\n\n", text: "Ye" }, { event: "event: b\ndata: {}\n\n" }], {
      text: "Yes",
      reasoning: "said elsewhere",
      raw: { type: "response.completed", response: { output: [] } },
    }),
  ],
  ["embeddings", answer([], { text: "1 × 2 numbers", raw: { data: [{ embedding: [0.1, -1e-9] }] } })],
] as const) {
  test(`an answer with ${what} is the same after it was encoded`, () => {
    const encoded = encodeAnswer(kept);
    assert.deepEqual(decodeAnswer(encoded), kept);
    assert.deepEqual(decodeAbout(encoded.slice(0, aboutCharsMax)), kept.about);
  });
}

test("the longest names fit the part that tells whose an answer is", () => {
  const { completion, storedAt } = answer([{ text: "Yes" }]);
  const about = { caller: "c".repeat(64), model: "\u0001".repeat(256) };
  const encoded = encodeAnswer({ completion, about, storedAt });
  assert.deepEqual(decodeAbout(encoded.slice(0, aboutCharsMax)), about);
});

test("an answer is not much longer encoded than its text", () => {
  const deltas = Array.from({ length: 1_000 }, () => ({ text: " word" }));
  assert.ok(encodeAnswer(answer(deltas)).length < 8 * 1_000 + 500);
});

test("cut anywhere, an answer is none", () => {
  const encoded = encodeAnswer(answer([{ reasoning: "hm" }, { text: "Yes" }, { toolCalls: [call] }]));
  for (let length = 0; length < encoded.length; length += 1) {
    assert.equal(decodeAnswer(encoded.slice(0, length)), undefined, String(length));
  }
});

test("what is not ours, of another version or damaged is no answer", () => {
  const whole = answer([{ text: "Yes" }]);
  const [first = "", body = ""] = encodeAnswer(whole).split("\n");
  const damaged = (change: object) => `${first}\n${JSON.stringify({ ...JSON.parse(body), ...change })}`;
  assert.deepEqual(decodeAnswer(damaged({})), whole);
  for (const text of [
    "",
    "\n",
    "OK",
    "null\nnull",
    `${first}\nnull`,
    `${first}\n[]`,
    `${first.replace("[1,", "[2,")}\n${body}`,
    `${first.replace('"phone"', "7")}\n${body}`,
    damaged({ deltas: "Yes" }),
    damaged({ deltas: [7] }),
    damaged({ deltas: [null] }),
    damaged({ deltas: [[]] }),
    damaged({ deltas: [{ text: 7 }] }),
    damaged({ deltas: [{ toolCalls: [null] }] }),
    damaged({ head: { id: "x" } }),
    damaged({ head: undefined }),
    damaged({ finishReason: undefined }),
    damaged({ usage: null }),
    damaged({ raw: {} }),
  ]) {
    assert.equal(decodeAnswer(text), undefined, text);
  }
});
