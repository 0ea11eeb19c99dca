import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { freePort } from "../support/ports.ts";
import { type LmStudio, startLmStudio } from "./lm-studio.ts";
import { faults, type Reply } from "./reply.ts";

const hello = { model: "deepseek-r1-distill-qwen-7b", messages: [{ role: "user", content: "Hello" }] };
const tool = {
  type: "function",
  function: {
    name: "last_position",
    description: "Where a subject was seen last",
    parameters: { type: "object", properties: { subject: { type: "string" } }, required: ["subject"] },
  },
};

function post(lm: LmStudio, body: unknown, path = "/v1/chat/completions", init: RequestInit = {}) {
  return fetch(`${lm.url}${path}`, { method: "POST", body: JSON.stringify(body), ...init });
}

async function ask(lm: LmStudio, body: unknown, path?: string) {
  const response = await post(lm, body, path);
  // biome-ignore lint/suspicious/noExplicitAny: any shape may come back, and each test says which
  return { status: response.status, body: (await response.json()) as any };
}

async function chunksOf(response: Response) {
  const text = await response.text();
  const data = [...text.matchAll(/^data: (.*)$/gm)].map(([, line]) => line ?? "");
  // biome-ignore lint/suspicious/noExplicitAny: as above
  const chunks: any[] = data.filter((line) => line !== "[DONE]").map((line) => JSON.parse(line));
  return { text, done: data.at(-1) === "[DONE]", chunks };
}

test("an answer has every field that LM Studio sends, and an id of its own", async () => {
  await using lm = await startLmStudio();
  lm.script({ text: "Good day" }, { text: "Good day" });
  const first = await ask(lm, hello);
  const second = await ask(lm, hello);
  assert.match(first.body.id, /^chatcmpl-[0-9a-z]{22}$/);
  assert.notEqual(first.body.id, second.body.id);
  assert.equal(first.body.object, "chat.completion");
  assert.deepEqual(first.body.choices, [
    {
      index: 0,
      message: { role: "assistant", content: "Good day", reasoning_content: "", tool_calls: [] },
      logprobs: null,
      finish_reason: "stop",
    },
  ]);
  assert.equal(first.body.usage.completion_tokens, 2);
  assert.deepEqual(first.body.stats, {});
  assert.equal(first.body.system_fingerprint, hello.model);
});

test("a stream ends with [DONE], and has usage only for those who ask", async () => {
  await using lm = await startLmStudio();
  const plain = await chunksOf(await post(lm, { ...hello, stream: true }));
  assert.ok(plain.done);
  assert.ok(plain.chunks.every((chunk) => chunk.usage === undefined));
  assert.equal(plain.chunks.at(-1).choices[0].finish_reason, "stop");
  const counted = await chunksOf(
    await post(lm, { ...hello, stream: true, stream_options: { include_usage: true } }),
  );
  assert.deepEqual(counted.chunks.at(-1).choices, []);
  assert.ok(counted.chunks.at(-1).usage.total_tokens > 0);
});

test("thinking comes inline, without its first tag, or as reasoning_content", async () => {
  await using lm = await startLmStudio();
  const said = { thinking: "hm", text: "Yes." } as const;
  lm.script(
    { ...said, thinkingAs: "inline" },
    { ...said, thinkingAs: "unopened" },
    { ...said, thinkingAs: "separate" },
  );
  assert.equal((await ask(lm, hello)).body.choices[0].message.content, "<think>\nhm\n</think>\n\nYes.");
  assert.equal((await ask(lm, hello)).body.choices[0].message.content, "hm\n</think>\n\nYes.");
  const separate = (await ask(lm, hello)).body.choices[0].message;
  assert.deepEqual([separate.reasoning_content, separate.content], ["hm", "Yes."]);
});

test("without a script it calls the fitting tool, then answers from what the tool returned", async () => {
  await using lm = await startLmStudio();
  const question = { role: "user", content: "What is the last position of the leopard?" };
  const { choices } = (await ask(lm, { ...hello, messages: [question], tools: [tool] })).body;
  assert.equal(choices[0].finish_reason, "tool_calls");
  const [call] = choices[0].message.tool_calls;
  assert.equal(call.function.name, "last_position");
  assert.equal(typeof JSON.parse(call.function.arguments).subject, "string");
  const result = { role: "tool", tool_call_id: call.id, content: '{"lat":1.5}' };
  const then = await ask(lm, {
    ...hello,
    messages: [question, choices[0].message, result],
    tools: [tool],
  });
  assert.match(then.body.choices[0].message.content, /"lat":1.5/);
});

test("a streamed tool call comes in pieces that join to its arguments", async () => {
  await using lm = await startLmStudio();
  lm.script({ toolCalls: [{ name: "last_position", arguments: { subject: "the old leopard" } }] });
  const { chunks } = await chunksOf(await post(lm, { ...hello, stream: true, tools: [tool] }));
  const calls = chunks.flatMap((chunk) => chunk.choices[0].delta.tool_calls ?? []);
  assert.deepEqual(
    [calls[0].type, calls[0].function],
    ["function", { name: "last_position", arguments: "" }],
  );
  assert.ok(calls.length > 2);
  assert.equal(calls.map((call) => call.function.arguments).join(""), '{"subject":"the old leopard"}');
});

test("a call that LM Studio cannot parse stays in the text", async () => {
  await using lm = await startLmStudio();
  lm.script({ toolCalls: [{ name: "last_position", arguments: "{broken" }], toolsAs: "text" });
  const { message, finish_reason } = (await ask(lm, hello)).body.choices[0];
  assert.match(message.content, /^\[TOOL_REQUEST\]\{"name": "last_position".*\[END_TOOL_REQUEST\]$/);
  assert.equal(finish_reason, "stop");
});

test("a JSON schema is filled in, and a planner's turn calls once and then answers", async () => {
  await using lm = await startLmStudio();
  const schema = {
    type: "object",
    required: ["thought", "action", "tool", "args", "answer"],
    properties: {
      thought: { type: "string" },
      action: { enum: ["call", "answer"] },
      tool: { anyOf: [{ type: "string", enum: ["last_position"] }, { type: "null" }] },
      args: { anyOf: [{ type: "object" }, { type: "null" }] },
      answer: { type: ["string", "null"] },
    },
  };
  const format = { response_format: { type: "json_schema", json_schema: { name: "turn", schema } } };
  const first = JSON.parse((await ask(lm, { ...hello, ...format })).body.choices[0].message.content);
  assert.deepEqual([first.action, first.tool], ["call", "last_position"]);
  const messages = [
    ...hello.messages,
    { role: "assistant", content: "{}" },
    { role: "user", content: "found" },
  ];
  const last = JSON.parse((await ask(lm, { ...hello, messages, ...format })).body.choices[0].message.content);
  assert.equal(last.action, "answer");
  lm.script({ text: "{}", textInReasoning: true });
  const { message } = (await ask(lm, { ...hello, ...format })).body.choices[0];
  assert.deepEqual([message.content, message.reasoning_content], ["", "{}"]);
});

test("max_tokens cuts the answer and says so", async () => {
  await using lm = await startLmStudio();
  lm.script({ text: "one two three" });
  const { choices } = (await ask(lm, { ...hello, max_tokens: 2 })).body;
  assert.deepEqual([choices[0].message.content, choices[0].finish_reason], ["one two", "length"]);
});

test("the completions endpoint continues a prompt", async () => {
  await using lm = await startLmStudio();
  lm.script({ text: "in the hills" });
  const { body } = await ask(lm, { model: hello.model, prompt: "They live" }, "/v1/completions");
  assert.deepEqual([body.object, body.choices[0].text], ["text_completion", "in the hills"]);
  assert.match(body.id, /^cmpl-/);
});

test("anything it does not know is answered 200 with an error", async () => {
  await using lm = await startLmStudio();
  const { status, body } = await ask(lm, {}, "/v1/moderations");
  assert.equal(status, 200);
  assert.deepEqual(body, { error: "Unexpected endpoint or method. (POST /v1/moderations)" });
});

test("the native list tells state, abilities and context of each model", async () => {
  await using lm = await startLmStudio({
    models: [
      { id: "qwen", capabilities: ["tool_use"], loadedContextLength: 8_192 },
      { id: "deepseek", state: "not-loaded" },
    ],
  });
  const { data } = (await (await fetch(`${lm.url}/api/v0/models`)).json()) as { data: unknown[] };
  const shown = data.map((model) => {
    const { state, capabilities, loaded_context_length } = model as Record<string, unknown>;
    return [state, capabilities, loaded_context_length];
  });
  assert.deepEqual(shown, [
    ["loaded", ["tool_use"], 8_192],
    ["not-loaded", [], undefined],
  ]);
  const one = (await (await fetch(`${lm.url}/api/v0/models/qwen`)).json()) as { id: string };
  assert.equal(one.id, "qwen");
});

test("a model that is not loaded is loaded when asked for", async () => {
  await using lm = await startLmStudio({ models: [{ id: "m", state: "not-loaded" }], loadMs: 5 });
  const { done } = await chunksOf(await post(lm, { ...hello, model: "m", stream: true }));
  assert.ok(done);
  const { data } = (await (await fetch(`${lm.url}/api/v0/models`)).json()) as { data: { state: string }[] };
  assert.equal(data[0]?.state, "loaded");
});

test("an unknown model is answered by the one loaded, and refused where several are", async () => {
  await using one = await startLmStudio();
  assert.equal((await ask(one, { ...hello, model: "gone" })).body.model, hello.model);
  await using two = await startLmStudio({ models: [{ id: "a" }, { id: "b" }] });
  assert.equal((await ask(two, { ...hello, model: "gone" })).status, 404);
  await using none = await startLmStudio({ models: [{ id: "a", state: "not-loaded" }], jit: false });
  assert.match((await ask(none, hello)).body.error.message, /^No models loaded/);
});

test("refusals have the shape that LM Studio gives them", async () => {
  await using lm = await startLmStudio({ models: [{ id: "m", loadedContextLength: 100 }], token: "sk-lm-x" });
  const headers = { authorization: "Bearer sk-lm-x" };
  const status = async (body: string, init: RequestInit = { headers }) => {
    const response = await fetch(`${lm.url}/v1/chat/completions`, { method: "POST", body, ...init });
    const { error } = (await response.json()) as { error: unknown };
    return [response.status, typeof error];
  };
  assert.deepEqual(await status(JSON.stringify(hello), {}), [401, "object"]);
  assert.deepEqual(await status("{nonsense"), [400, "object"]);
  assert.deepEqual(await status("{}"), [400, "string"]);
  const jsonObject = { ...hello, response_format: { type: "json_object" } };
  assert.deepEqual(await status(JSON.stringify(jsonObject)), [400, "string"]);
  const long = { ...hello, messages: [{ role: "user", content: "x".repeat(1_000) }] };
  assert.deepEqual(await status(JSON.stringify(long)), [400, "string"]);
});

test("every fault that comes before the headers answers or breaks as scripted", async () => {
  await using lm = await startLmStudio();
  for (const [name, reply] of Object.entries(faults)) {
    if ("text" in reply || name === "hang") continue;
    lm.script(reply);
    const outcome = await post(lm, { ...hello, stream: true }).then(
      async (response) => ({ status: response.status, body: await response.text() }),
      () => "broken" as const,
    );
    const { failure } = reply as Required<Pick<Reply, "failure">>;
    if (failure.how === "answer") assert.equal((outcome as { status: number }).status, failure.status, name);
    else if (failure.how !== "error-event") assert.equal(outcome, "broken", name);
  }
});

test("a stream that fails in the middle never ends with [DONE], except for the one that is garbled", async () => {
  await using lm = await startLmStudio();
  for (const name of ["reset-mid", "cut-mid", "crash-mid", "overflow-mid"] as const) {
    lm.script(faults[name]);
    const text = await (await post(lm, { ...hello, stream: true })).text().catch(() => "broken");
    assert.doesNotMatch(text, /\[DONE\]/, name);
    assert.equal(text.includes("event: error"), name === "crash-mid" || name === "overflow-mid", name);
  }
});

test("it notices a client that leaves", async () => {
  await using lm = await startLmStudio();
  lm.script(faults["stall-mid"]);
  const client = new AbortController();
  await post(lm, { ...hello, stream: true }, undefined, { signal: client.signal });
  const seen = await lm.generation(1);
  client.abort();
  assert.equal(await seen.ended, "aborted");
  assert.equal(seen.aborted, true);
});

test("it can go away and come back on the same port", async () => {
  await using lm = await startLmStudio();
  await lm.goAway();
  await assert.rejects(ask(lm, hello));
  await lm.comeBack();
  assert.equal((await ask(lm, hello)).status, 200);
});

test("it can be started by hand, and ends when told to", async () => {
  const port = await freePort();
  const main = fileURLToPath(new URL("main.ts", import.meta.url));
  const child = spawn(process.execPath, [main, "--port", String(port)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  const { status } = await fetch(`http://127.0.0.1:${port}/v1/models`);
  assert.equal(status, 200);
  child.kill("SIGTERM");
  const [code] = await once(child, "exit");
  assert.equal(code, 0);
});
