import assert from "node:assert/strict";
import { test } from "node:test";
import { ResponsesAnswer } from "./responses-answer.ts";

const message = {
  type: "message",
  id: "msg_1",
  role: "assistant",
  status: "completed",
  content: [{ type: "output_text", text: "Four.", annotations: [] }],
};
const response = {
  id: "resp_1",
  object: "response",
  created_at: 1_785_472_762,
  model: "qwen",
  status: "completed",
  error: null,
  output: [
    { type: "reasoning", id: "rs_1", summary: [], content: [{ type: "reasoning_text", text: "two" }] },
    message,
  ],
  usage: {
    input_tokens: 3,
    output_tokens: 5,
    output_tokens_details: { reasoning_tokens: 2 },
    total_tokens: 8,
  },
};
const begun = { ...response, status: "in_progress", output: [], usage: null };
const event = (type: string, rest: object) => ({ event: type, value: { type, ...rest } });
const events = [
  event("response.created", { sequence_number: 0, response: begun }),
  event("response.reasoning_text.delta", { sequence_number: 1, delta: "two" }),
  event("response.output_text.delta", { sequence_number: 2, delta: "Four." }),
  event("response.output_text.done", { sequence_number: 3, text: "Four." }),
];
const last = event("response.completed", { sequence_number: 4, response });

test("each event is passed on as it came, and the last one is kept for the end", () => {
  const reader = new ResponsesAnswer();
  reader.events([...events, last]);
  const { deltas } = reader;
  assert.deepEqual(
    deltas.map((delta) => delta.event),
    events.map(({ event, value }) => `event: ${event}\ndata: ${JSON.stringify(value)}\n\n`),
  );
  assert.deepEqual(
    deltas.map(({ text, reasoning }) => text ?? reasoning),
    [undefined, "two", "Four.", undefined],
  );
  const completion = reader.completion();
  assert.equal(completion.raw, last.value);
  assert.deepEqual(completion.head, { id: "resp_1", created: 1_785_472_762, model: "qwen" });
  assert.deepEqual(
    [completion.text, completion.reasoning, completion.finishReason],
    ["Four.", "two", "stop"],
  );
  assert.deepEqual(completion.usage, {
    prompt_tokens: 3,
    completion_tokens: 5,
    total_tokens: 8,
    completion_tokens_details: { reasoning_tokens: 2 },
  });
});

test("a response is announced only once there is something of it", () => {
  const reader = new ResponsesAnswer();
  reader.events(events.slice(0, 1));
  assert.deepEqual([reader.deltas, reader.head], [[], undefined]);
  reader.events(events.slice(1, 2));
  assert.equal(reader.deltas.length, 2);
  assert.equal(reader.head?.id, "resp_1");
});

test("the log has calls of functions, and thinking apart from the text", () => {
  const output = [
    { ...message, content: [{ type: "output_text", text: "<think>two</think>Let me look." }] },
    { type: "function_call", id: "fc_1", call_id: "call_1", name: "where", arguments: '{"a":1}' },
    { type: "mcp_call", id: "mcp_1", name: "elsewhere", arguments: "{}" },
  ];
  const reader = new ResponsesAnswer();
  reader.events([...events, event("response.completed", { response: { ...response, output } })]);
  const { text, reasoning, toolCalls, finishReason } = reader.completion();
  assert.deepEqual([text, reasoning, finishReason], ["Let me look.", "two", "tool_calls"]);
  assert.deepEqual(toolCalls, [
    { id: "call_1", type: "function", function: { name: "where", arguments: '{"a":1}' } },
  ]);
});

test("a message whose content is no list is one without words", () => {
  const reader = new ResponsesAnswer();
  const odd = { ...response, output: [{ ...message, content: 7 }, message] };
  reader.events([...events, event("response.completed", { response: odd })]);
  assert.equal(reader.completion().text, "Four.");
});

test("a response that ran out of tokens says so", () => {
  const reader = new ResponsesAnswer();
  const cut = { ...response, status: "incomplete", incomplete_details: { reason: "max_output_tokens" } };
  reader.events([...events, event("response.incomplete", { response: cut })]);
  assert.equal(reader.completion().finishReason, "length");
});

test("a response that came whole has the events that it would have come in", () => {
  const reader = new ResponsesAnswer();
  reader.events([{ event: "whole", value: response }]);
  const { deltas } = reader;
  const types = deltas.map((delta) => /^event: (.*)$/m.exec(delta.event ?? "")?.[1]);
  assert.deepEqual(types, [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.output_item.done",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
  ]);
  assert.deepEqual(reader.completion().raw, {
    type: "response.completed",
    sequence_number: 10,
    response,
  });
});

for (const [what, bad, code] of [
  [
    "a response that failed",
    event("response.failed", { response: { ...response, error: { message: "Channel Error" } } }),
    "model-crashed",
  ],
  ["an error event", event("error", { message: "n_keep: 13055>= n_ctx: 4096" }), "context-length-exceeded"],
  ["a chunk of another endpoint", { event: "", value: { choices: [] } }, "upstream-invalid"],
  ["a whole answer of another endpoint", { event: "whole", value: { data: [] } }, "upstream-invalid"],
  ["nothing", { event: "", value: null }, "upstream-invalid"],
  [
    "an end without its output",
    event("response.completed", { response: { model: "qwen" } }),
    "upstream-invalid",
  ],
] as const) {
  test(`${what} is ${code}, and what came before it is still there`, () => {
    const reader = new ResponsesAnswer();
    assert.throws(() => reader.events([...events, bad]), { code });
    assert.equal(reader.deltas.length, events.length);
    assert.throws(() => reader.completion(), { code: "upstream-invalid" });
  });
}
