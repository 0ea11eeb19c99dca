import assert from "node:assert/strict";
import { test } from "node:test";
import type { Said } from "./chunk.ts";
import { type Delta, Separator, type SeparatorOptions, usuallyThinks } from "./reasoning.ts";

const standard = { untagged: "hold", json: false } as const;

function separate(
  chunks: readonly { readonly content?: string; readonly reasoning?: string }[],
  options: SeparatorOptions = standard,
) {
  const separator = new Separator(options);
  const deltas = chunks.flatMap(({ content = "", reasoning = "" }) =>
    pushed(separator, { content, reasoning }),
  );
  const all = [...deltas, ...separator.end()];
  const join = (field: "text" | "reasoning") => all.map((delta) => delta[field] ?? "").join("");
  return { text: join("text"), reasoning: join("reasoning"), deltas, tokens: separator.reasoningTokens };
}

/** What a chunk settles. */
function pushed(separator: Separator, said: Partial<Said>): Delta[] {
  const deltas: Delta[] = [];
  separator.push({ content: "", reasoning: "", toolCalls: undefined, ...said }, deltas);
  return deltas;
}

/** The text cut into two and into three at every place, and into single characters. */
function* cuts(text: string) {
  yield [...text].map((content) => ({ content }));
  for (let i = 0; i <= text.length; i += 1) {
    for (let j = i; j <= text.length; j += 1) {
      yield [text.slice(0, i), text.slice(i, j), text.slice(j)].map((content) => ({ content }));
    }
  }
}

for (const [form, whole] of [
  ["with both tags", "<think>\nIs 1 < 2? </b>\n</think>\n\nYes: <think> is a tag."],
  ["with both tags after white space", "\n <think>Is 1 < 2? </b></think>Yes: <think> is a tag."],
  ["without its first tag", "Is 1 < 2? </b>\n</think>\n\nYes: <think> is a tag."],
  [
    "without its first tag, the last one at the end of a line",
    "Is 1 < 2? </b></think>\nYes: <think> is a tag.",
  ],
] as const) {
  test(`thinking ${form} is told apart wherever it is cut`, () => {
    for (const chunks of cuts(whole)) {
      const { text, reasoning } = separate(chunks);
      assert.deepEqual(
        { text, reasoning },
        { text: "Yes: <think> is a tag.", reasoning: "Is 1 < 2? </b>" },
        JSON.stringify(chunks),
      );
    }
  });
}

test("thinking in a field of its own is passed on, and tags in the text are text then", () => {
  const { text, reasoning, tokens } = separate([
    { reasoning: "hm, " },
    { reasoning: "yes" },
    { content: "\n\n<think> is a tag" },
  ]);
  assert.deepEqual([text, reasoning, tokens], ["<think> is a tag", "hm, yes", 2]);
});

test("an answer without thinking is the same wherever it is cut, white space included", () => {
  for (const untagged of ["hold", "text", "think"] as const) {
    for (const chunks of cuts(" <thin ice>\n ")) {
      assert.equal(separate(chunks, { untagged, json: false }).text, " <thin ice>\n ");
    }
  }
});

test("a model that does not usually think is passed on as it speaks", () => {
  const { deltas } = separate([{ content: "Yes" }, { content: " sir" }], { untagged: "text", json: false });
  assert.deepEqual(deltas, [{ text: "Yes" }, { text: " sir" }]);
});

test("thinking without its first tag can be passed on as it comes, wherever it is cut", () => {
  const think = { untagged: "think", json: false } as const;
  for (const chunks of cuts("Is 1 < 2? </b>\n</think>\n\nYes.")) {
    const { text, reasoning } = separate(chunks, think);
    assert.deepEqual([text, reasoning], ["Yes.", "Is 1 < 2? </b>"]);
  }
  const { deltas } = separate([{ content: "a" }, { content: " b" }, { content: "</think>" }], think);
  assert.deepEqual(deltas, [{ reasoning: "a" }, { reasoning: " b" }]);
});

test("an answer that speaks of the tag that ends thinking stays whole, wherever it is cut", () => {
  const whole = "Until `</think>` it thinks, </think> and then </think>";
  for (const chunks of cuts(whole)) {
    const { text, reasoning } = separate(chunks);
    assert.deepEqual([text, reasoning], [whole, ""]);
  }
});

test("thinking that may be none is thinking where the answer was cut off", () => {
  for (const isCutOff of [true, false]) {
    const separator = new Separator({ untagged: "think", json: false });
    const deltas = [...pushed(separator, { content: "Let me " }), ...pushed(separator, { content: "lo " })];
    deltas.push(...separator.end({ isCutOff }));
    assert.deepEqual(
      deltas.filter(({ text }) => text),
      isCutOff ? [] : [{ text: "Let me lo " }],
    );
    assert.equal(separator.reasoningTokens, isCutOff ? 2 : 0);
  }
});

test("what was wrongly passed on as thinking comes once more as text", () => {
  const separator = new Separator({ untagged: "think", json: false });
  const call = { index: 0, id: "1", type: "function", function: { name: "f", arguments: "" } };
  const push = (content: string, toolCalls?: readonly (typeof call)[]) =>
    pushed(separator, { content, toolCalls });
  assert.deepEqual(
    [...push("Let me "), ...push("look."), ...push("", [call]), ...separator.end()],
    [{ reasoning: "Let me" }, { reasoning: " look." }, { text: "Let me look." }, { toolCalls: [call] }],
  );
  assert.deepEqual([separator.mistaken, separator.reasoningTokens], [["Let me ", "look."], 0]);
});

test("open thinking is passed on as it comes, without waiting for its end", () => {
  const { deltas } = separate([{ content: "<think>" }, { content: "a" }, { content: " b" }]);
  assert.deepEqual(deltas, [{ reasoning: "a" }, { reasoning: " b" }]);
});

test("thinking that does not end leaves no answer", () => {
  const { text, reasoning } = separate([{ content: "<think>\nwell, " }, { content: "well </thi" }]);
  assert.deepEqual([text, reasoning], ["", "well, well </thi"]);
});

test("thinking inside the text is counted, since LM Studio does not", () => {
  assert.equal(
    separate([{ content: "<think>" }, { content: "a" }, { content: "</think>" }, { content: "b" }]).tokens,
    3,
  );
  assert.equal(separate([{ content: "a" }, { content: "\n</think>" }, { content: "b" }]).tokens, 2);
  assert.equal(separate([{ content: "a" }]).tokens, 0);
});

test("JSON that landed in the thinking is the answer where JSON was asked for", () => {
  const json = { untagged: "hold", json: true } as const;
  const rescued = separate([{ reasoning: '{"a"' }, { reasoning: ":1}" }], json);
  assert.deepEqual([rescued.text, rescued.reasoning], ['{"a":1}', ""]);
  const inTags = separate([{ content: '<think>{"a":1}</think>' }], json);
  assert.deepEqual([inTags.text, inTags.reasoning], ['{"a":1}', ""]);
});

test("thinking is not passed off as an answer otherwise", () => {
  const json = { untagged: "hold", json: true } as const;
  for (const [chunks, options] of [
    [[{ reasoning: '{"a":1}' }], standard],
    [[{ reasoning: '{"a":' }], json],
    [[{ reasoning: "It is 4." }], json],
  ] as const) {
    const { text, reasoning } = separate(chunks, options);
    assert.deepEqual([text, reasoning], ["", chunks.map((chunk) => chunk.reasoning).join("")]);
  }
  const both = separate([{ reasoning: '{"draft":1}' }, { content: '{"a":1}' }], json);
  assert.deepEqual([both.text, both.reasoning], ['{"a":1}', '{"draft":1}']);
});

test("JSON that was asked for streams at once", () => {
  const { deltas } = separate([{ content: '{"a"' }, { content: ":1}" }], { untagged: "hold", json: true });
  assert.equal(deltas.length, 2);
});

test("tool calls end the waiting", () => {
  const separator = new Separator(standard);
  const call = { index: 0, id: "1", type: "function", function: { name: "f", arguments: "" } };
  assert.deepEqual(
    [...pushed(separator, { content: "Let me look." }), ...pushed(separator, { toolCalls: [call] })],
    [{ text: "Let me look." }, { toolCalls: [call] }],
  );
});

test("models that think are known by name", () => {
  for (const name of [
    "deepseek-r1-distill-qwen-7b",
    "qwen/qwq-32b",
    "openai/gpt-oss-20b",
    "phi-4-reasoning",
  ]) {
    assert.ok(usuallyThinks(name), name);
  }
  for (const name of ["qwen2.5-7b-instruct", "llama-3.2-3b", "gemma-3-12b"])
    assert.ok(!usuallyThinks(name), name);
});

test("released at any place, an answer without thinking stays what it is", () => {
  const whole = " <thin ice>\n ";
  for (let cut = 0; cut <= whole.length; cut += 1) {
    const separator = new Separator(standard);
    const push = (content: string) => pushed(separator, { content });
    const deltas = [...push(whole.slice(0, cut)), ...separator.release(), ...push(whole.slice(cut))];
    assert.equal([...deltas, ...separator.end()].map(({ text }) => text).join(""), whole, `at ${cut}`);
  }
});
