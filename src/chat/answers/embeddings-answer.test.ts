import assert from "node:assert/strict";
import { test } from "node:test";
import { EmbeddingsAnswer } from "./embeddings-answer.ts";

const list = {
  object: "list",
  model: "nomic",
  data: [
    { object: "embedding", index: 0, embedding: [0.5, -1] },
    { object: "embedding", index: 1, embedding: [1, 0] },
  ],
  usage: { prompt_tokens: 0, total_tokens: 0 },
};

test("embeddings are kept whole, and the log gets their number", () => {
  const reader = new EmbeddingsAnswer();
  reader.events([{ event: "whole", value: list }]);
  reader.end();
  assert.deepEqual(reader.deltas, []);
  const { head, text, raw, usage, deltas } = reader.completion();
  assert.equal(head.model, "nomic");
  assert.equal(text, "2 × 2 numbers");
  assert.equal(raw, list);
  assert.deepEqual([usage?.completion_tokens, deltas], [0, []]);
});

test("what is no list of numbers is refused", () => {
  for (const value of [
    null,
    {},
    { ...list, data: [] },
    { ...list, model: undefined },
    { ...list, data: [{ ...list.data[0], embedding: "AAAAPwAAgL8=" }] },
    { ...list, data: [list.data[0], null] },
    { ...list, data: [{ ...list.data[0], embedding: [0.5, null] }] },
  ]) {
    const reader = new EmbeddingsAnswer();
    assert.throws(() => reader.events([{ event: "whole", value }]), { code: "upstream-invalid" });
    assert.throws(() => reader.completion(), { code: "upstream-invalid" });
  }
});
