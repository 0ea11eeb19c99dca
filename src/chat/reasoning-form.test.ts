import assert from "node:assert/strict";
import { test } from "node:test";
import type { Completion } from "./completion.ts";
import type { Delta } from "./lm-studio/reasoning.ts";
import { DeltaShaper, type ReasoningForm, shapedCompletion } from "./reasoning-form.ts";

const calls = [{ index: 0, id: "1", function: { name: "f", arguments: "" } }];
const completion: Completion = {
  head: { id: "1", created: 1, model: "m" },
  deltas: [],
  text: "Four.",
  reasoning: "two and two",
  toolCalls: [],
  finishReason: "stop",
  usage: undefined,
};

function shaped(form: ReasoningForm, deltas: readonly Delta[]): Delta[] {
  const shaper = new DeltaShaper(form);
  return [...deltas.flatMap((delta) => shaper.push(delta)), ...shaper.end()];
}

const textOf = (deltas: readonly Delta[]) => deltas.map(({ text = "" }) => text).join("");
const deltas = [{ reasoning: "two " }, { reasoning: "and two" }, { text: "Fo" }, { text: "ur." }];

test("thinking in the text is the same, whole and in pieces", () => {
  const inline = "<think>\ntwo and two\n</think>\n\nFour.";
  const { text, reasoning } = shapedCompletion("inline", completion);
  assert.deepEqual([text, reasoning], [inline, ""]);
  const pieces = shaped("inline", deltas);
  assert.equal(textOf(pieces), inline);
  assert.ok(pieces.every((delta) => delta.reasoning === undefined));
});

test("thinking that is not wanted leaves the answer as it is", () => {
  const { text, reasoning } = shapedCompletion("drop", completion);
  assert.deepEqual([text, reasoning], ["Four.", ""]);
  assert.deepEqual(shaped("drop", deltas), [{ text: "Fo" }, { text: "ur." }]);
});

test("thinking that is told apart is left so", () => {
  assert.equal(shapedCompletion("separate", completion), completion);
  assert.deepEqual(shaped("separate", deltas), deltas);
});

test("thinking that ends in a call of a tool, or in nothing, is closed", () => {
  assert.deepEqual(shaped("inline", [{ reasoning: "hm" }, { toolCalls: calls }]), [
    { text: "<think>\nhm" },
    { text: "\n</think>\n\n" },
    { toolCalls: calls },
  ]);
  assert.equal(textOf(shaped("inline", [{ reasoning: "hm" }])), "<think>\nhm\n</think>\n\n");
});

test("an answer without thinking has no tags", () => {
  assert.equal(shapedCompletion("inline", { ...completion, reasoning: "" }).text, "Four.");
  assert.deepEqual(shaped("inline", [{ text: "Four." }]), [{ text: "Four." }]);
});
