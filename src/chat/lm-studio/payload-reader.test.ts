import assert from "node:assert/strict";
import { test } from "node:test";
import type { AnswerEvent } from "../answers/answer-reader.ts";
import { PayloadReader } from "./payload-reader.ts";

const head = { id: "chatcmpl-1", object: "chat.completion.chunk", created: 1, model: "m" };
const chunk = (delta: unknown, finish_reason: string | null = null, more = {}) =>
  JSON.stringify({ ...head, choices: [{ index: 0, delta, logprobs: null, finish_reason }], ...more });

/** Reads all of them as one stream, and says whether each came out as JSON.parse gives it. */
function assertRead(payloads: readonly string[]): void {
  const reader = new PayloadReader();
  for (const payload of payloads) {
    let value: unknown;
    try {
      value = JSON.parse(payload);
    } catch {
      value = undefined;
    }
    assert.deepEqual(wholeValue(reader.read("", payload)), value, payload);
  }
}

function wholeValue(event: AnswerEvent | undefined): unknown {
  if (event?.delta === undefined) return event?.value;
  const { choices, ...rest } = event.value as { choices: readonly object[] };
  return { ...rest, choices: [{ ...choices[0], delta: event.delta }] };
}

test("chunks are what they would be, parsed one by one", () => {
  assertRead([
    chunk({ role: "assistant", content: "Hi" }),
    chunk({ role: "assistant", content: ' "there" \n\u2028 ü 🐾 "delta":{}' }),
    chunk({ reasoning_content: "hm" }),
    chunk({ tool_calls: [{ index: 0, function: { arguments: '{"a":' } }] }),
    chunk(null),
    chunk({}),
    chunk({}, "stop"),
    chunk({ content: "late" }, "stop"),
    JSON.stringify({ ...head, choices: [], usage: { prompt_tokens: 1 } }),
    chunk({ content: "on" }),
  ]);
});

test("words that need no parser are what the parser makes of them, and what needs one gets it", () => {
  const said = (content: string) => chunk({ role: "assistant", content });
  const odd = (inside: string) => said("x").replace(/"content":"x"/, inside);
  assertRead([
    ...[
      "Hi",
      "",
      " the",
      "ü",
      "\u2028",
      "🐾",
      "\ud83d",
      "twelve chars",
      "thirteen char",
      '"',
      "\\",
      "\n",
      "\u007f",
      "}",
      '"}',
    ].map(said),
    odd('"content":"a\tb"'),
    odd('"content":"'),
    odd('"content":"a","b":"c"'),
    odd('"content":"a","content":"b"'),
    odd('"content":"a\\"'),
    odd('"content":"}'),
    odd('"content": "a"'),
    odd('"content":"a" '),
    said("end"),
  ]);
});

test("what only looks like the chunk before is read anew", () => {
  assertRead([
    chunk({ content: "a" }),
    chunk({ content: "b" }, null, { extra: 1 }),
    chunk({ content: "c" }).replace("chatcmpl-1", "chatcmpl-2"),
    // More beside the delta, and text that ends as a chunk does.
    chunk({ content: "d" }).replace('"d"}', '"d"},"more":{"x":1}'),
    chunk({ content: "e" }).replace('"e"', '"e'),
    `${chunk({ content: "f" })}${chunk({ content: "f" })}`,
    "[]",
    "null",
    '"delta":',
    "",
  ]);
});

test("a chunk that is written with spaces or escapes, or says delta twice, is read as well", () => {
  const spaced = JSON.stringify(JSON.parse(chunk({ content: "a" })), null, 1);
  const escaped = chunk({ content: "X" }).replace("X", "\\u0041");
  const twice = JSON.stringify({ delta: "x", ...JSON.parse(chunk({ content: "a" })) });
  assertRead([
    spaced,
    spaced,
    escaped,
    escaped,
    chunk({ content: "b" }),
    twice,
    twice,
    chunk({ content: "c" }),
  ]);
});

test("of a chunk like the one before only the delta is read", () => {
  const reader = new PayloadReader();
  const [first, second] = ["a", "b"].map((content) => reader.read("", chunk({ content })));
  assert.equal(first?.delta, undefined);
  assert.equal(second?.value, first?.value);
  assert.deepEqual(second?.delta, { content: "b" });
});
