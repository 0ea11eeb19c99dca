import assert from "node:assert/strict";
import { test } from "node:test";
import type { AnswerEvent, ReaderOptions } from "./answer-reader.ts";
import { ChatAnswer } from "./chat-answer.ts";
import { ThinkingForms } from "./thinking-forms.ts";

const options = (more: Partial<ReaderOptions> = {}): ReaderOptions => ({
  model: "qwen",
  separates: true,
  json: false,
  isRead: true,
  forms: new ThinkingForms(),
  ...more,
});
const head = { id: "chatcmpl-1", created: 1_785_472_762, model: "qwen" };
const usage = { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 };
const chunk = (delta: object, finish_reason: string | null = null): AnswerEvent => ({
  event: "",
  value: { ...head, choices: [{ index: 0, delta, finish_reason }] },
});
const words = (...all: readonly string[]) => all.map((content) => chunk({ content }));
const ending = [chunk({}, "stop"), { event: "", value: { ...head, choices: [], usage } }];

function read(reader: ChatAnswer, events: readonly AnswerEvent[]) {
  reader.events(events);
  reader.end();
  return reader.completion();
}

test("an answer is made of its chunks, its usage included", () => {
  const completion = read(new ChatAnswer(options()), [...words("Four", "."), ...ending]);
  assert.deepEqual(completion, {
    head,
    deltas: [{ text: "Four" }, { text: "." }],
    text: "Four.",
    reasoning: "",
    toolCalls: [],
    finishReason: "stop",
    usage,
  });
});

test("thinking in the text is told apart and counted, unless the text is to stay as it is", () => {
  const events = [...words("<think>", "two", "</think>", "Four."), ...ending];
  const apart = read(new ChatAnswer(options()), events);
  assert.deepEqual([apart.text, apart.reasoning], ["Four.", "two"]);
  assert.equal(apart.usage?.completion_tokens_details?.reasoning_tokens, 3);
  const raw = read(new ChatAnswer(options({ separates: false })), events);
  assert.deepEqual([raw.text, raw.usage], ["<think>two</think>Four.", usage]);
});

test("an answer that came in one piece is not counted by its pieces", () => {
  const message = { content: "<think>two and two</think>Four." };
  const value = { ...head, choices: [{ index: 0, message, finish_reason: "stop" }], usage };
  const completion = read(new ChatAnswer(options()), [{ event: "whole", value }]);
  assert.deepEqual([completion.text, completion.reasoning], ["Four.", "two and two"]);
  assert.deepEqual(completion.usage, usage);
});

test("how a model thinks is remembered for its next answer", () => {
  const forms = new ThinkingForms();
  const events = [...words("two", "\n", "</think>", "Four."), ...ending];
  assert.equal(read(new ChatAnswer(options({ forms })), events).text, "two\n</think>Four.");
  assert.equal(read(new ChatAnswer(options({ forms })), events).text, "Four.");
});

test("thinking that ran into the limit is no answer, and says nothing of how the model thinks", () => {
  const forms = new ThinkingForms();
  const thinks = { forms, model: "deepseek-r1-distill-qwen-7b" };
  const cut = [...words("two ", "and"), chunk({}, "length")];
  for (const isRead of [true, false]) {
    const { text, reasoning } = read(new ChatAnswer(options({ ...thinks, isRead })), cut);
    assert.deepEqual([text, reasoning], ["", "two and"]);
  }
  assert.equal(read(new ChatAnswer(options(thinks)), ending).text, "");
  assert.equal(forms.isKnown(thinks.model), false);
});

test("a model that spoke of the tag that ends thinking does not think for that", () => {
  const forms = new ThinkingForms();
  read(new ChatAnswer(options({ forms })), [...words("It is ", "`</think>`", "."), ...ending]);
  assert.equal(forms.isUnopened("qwen"), false);
});

test("what is no chunk is refused, and what came before it is still there", () => {
  const reader = new ChatAnswer(options());
  const broken = [...words("Fo"), { event: "", value: { hello: 1 } }];
  assert.throws(() => reader.events(broken), { code: "upstream-invalid" });
  assert.deepEqual(reader.deltas, [{ text: "Fo" }]);
});

test("a stream without a reason to end is no answer", () => {
  const reader = new ChatAnswer(options());
  reader.events(words("Four"));
  reader.end();
  assert.throws(() => reader.completion(), { code: "upstream-invalid" });
});

test("a tool call that is none is no part of an answer", () => {
  const piece = { index: 0, id: "1", function: { name: "find", arguments: "{}" } };
  const read = (call: unknown) => {
    const reader = new ChatAnswer(options());
    reader.events([chunk({ tool_calls: [call] })]);
    return reader.deltas;
  };
  assert.deepEqual(read(piece), [{ toolCalls: [piece] }]);
  assert.deepEqual(read({ id: null, function: { arguments: "{}" } }).length, 1);
  for (const broken of [
    5,
    { ...piece, index: "first" },
    { ...piece, id: 7 },
    { ...piece, function: "find" },
    { ...piece, function: { name: "find", arguments: { text: "pond" } } },
  ]) {
    assert.throws(() => read(broken), { code: "upstream-invalid" });
  }
});

test("all that is taken in counts towards its length, held back or not", () => {
  const reader = new ChatAnswer(options({ isRead: false, json: true }));
  reader.events([chunk({ reasoning_content: "abc" }), chunk({ content: "defgh" })]);
  assert.equal(reader.chars, 8);
  const call = { index: 0, id: "1", function: { name: "find", arguments: "x".repeat(1_000) } };
  reader.events([chunk({ tool_calls: [call] })]);
  assert.ok(reader.chars > 1_008);
});
