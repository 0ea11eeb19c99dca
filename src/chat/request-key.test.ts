import assert from "node:assert/strict";
import { test } from "node:test";
import { type Question, requestKey } from "./request-key.ts";

const question = {
  endpoint: "chat",
  caller: "local",
  separates: true,
  body: { model: "m", messages: [{ role: "user", content: "Hi" }], temperature: 0 },
} satisfies Question;

const keyOf = (change: Partial<Question>) => requestKey({ ...question, ...change }).key;
const withBody = (more: object) => keyOf({ body: { ...question.body, ...more } });

test("the order of keys and how an answer travels make no other question", () => {
  const reordered = { temperature: 0, messages: [{ content: "Hi", role: "user" }], model: "m" };
  assert.equal(keyOf({ body: reordered }), keyOf({}));
  assert.equal(withBody({ stream: true, stream_options: {}, user: "u", metadata: {}, ttl: 5 }), keyOf({}));
  assert.equal(withBody({ seed: undefined }), keyOf({}));
});

test("a response says who asked, so that another's is another one", () => {
  const response = (more: object) =>
    keyOf({ endpoint: "responses", body: { model: "m", input: "Hi", ...more } });
  const keys = [response({}), response({ user: "u" }), response({ metadata: { a: "b" } })];
  assert.equal(new Set(keys).size, keys.length);
  assert.equal(response({ stream: true }), response({}));
});

test("whatever the model sees makes another question", () => {
  const keys = [
    keyOf({}),
    keyOf({ endpoint: "text", body: { ...question.body, prompt: "Hi" } }),
    keyOf({ caller: "phone" }),
    keyOf({ shownKey: "k1" }),
    keyOf({ shownKey: "k2" }),
    keyOf({ separates: false }),
    withBody({ model: "other" }),
    withBody({ temperature: 0.1 }),
    withBody({ max_tokens: 5 }),
    withBody({ stop: ["\n"] }),
    withBody({ messages: [{ role: "user", content: "Hi " }] }),
    withBody({ messages: [{ role: "system", content: "Hi" }] }),
    withBody({ response_format: { type: "json_schema", json_schema: { schema: { a: {}, b: {} } } } }),
    // The order of properties is the order in which the model writes them.
    withBody({ response_format: { type: "json_schema", json_schema: { schema: { b: {}, a: {} } } } }),
  ];
  assert.equal(new Set(keys).size, keys.length);
});

test("values nested without end are refused, wherever they are", () => {
  let deep: unknown = 1;
  for (let i = 0; i < 5_000; i += 1) deep = [deep];
  for (const name of ["messages", "tools", "logit_bias", "metadata", "user", "ttl"]) {
    assert.throws(() => withBody({ [name]: deep }), { code: "request-too-deep" });
  }
});

test("a key begins with its endpoint and model, whatever that is called", () => {
  assert.match(keyOf({}), /^chat\/m\/[\w-]{43}$/);
  assert.match(withBody({ model: "qwen/qwq-32b" }), /^chat\/qwen\/qwq-32b\/[\w-]{43}$/);
});

test("the canonical prompt is the prompt", () => {
  assert.deepEqual(JSON.parse(requestKey(question).prompt), question.body.messages);
});
