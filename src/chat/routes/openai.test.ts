import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventsOf, startChat, type TestChat } from "../../../test/lm-studio/chat-server.ts";
import { type LmStudio, startLmStudio } from "../../../test/lm-studio/lm-studio.ts";
import { type TestDatabase, testDatabase } from "../../../test/support/postgres.ts";

let database: TestDatabase;
let lm: LmStudio;
let chat: TestChat;
const path = "/v1/chat/completions";
const hello = { model: "qwen2.5-7b-instruct", messages: [{ role: "user", content: "Hello" }] };
const tools = [
  { type: "function", function: { name: "where", parameters: { type: "object", properties: {} } } },
];

before(async () => {
  database = await testDatabase();
  lm = await startLmStudio({
    models: [
      { id: "qwen2.5-7b-instruct", capabilities: ["tool_use"], loadedContextLength: 8_192 },
      { id: "deepseek-r1-distill-qwen-7b", state: "not-loaded" },
      { id: "qwq-32b" },
    ],
  });
  chat = await startChat(lm, database.url);
});
after(async () => {
  await chat[Symbol.asyncDispose]();
  await lm[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

// biome-ignore lint/suspicious/noExplicitAny: each test says what it expects
const complete = async (body: object): Promise<any> => (await chat.post(path, body)).json();

test("every parameter reaches LM Studio, and the answer has OpenAI's form", async () => {
  const parameters = {
    temperature: 0.2,
    top_k: 40,
    stop: ["END"],
    logit_bias: { "7": -100 },
    seed: 7,
    max_tokens: 300,
    draft_model: "small",
    tools,
    tool_choice: "auto",
  };
  lm.script({ text: "Hi." });
  const { id, object, choices, usage, model } = await complete({ ...hello, ...parameters });
  const { stream, stream_options, ...sent } = lm.generations.at(-1)?.body ?? {};
  assert.deepEqual(sent, { ...hello, ...parameters });
  assert.deepEqual([stream, stream_options], [true, { include_usage: true }]);
  assert.match(id, /^chatcmpl-/);
  assert.deepEqual([object, model], ["chat.completion", hello.model]);
  assert.deepEqual(choices, [
    {
      index: 0,
      message: { role: "assistant", content: "Hi.", reasoning_content: "" },
      logprobs: null,
      finish_reason: "stop",
    },
  ]);
  assert.equal(usage.completion_tokens, 1);
});

test("a prompt's order of keys in a schema is kept, since it is the order the model answers in", async () => {
  const schema = { type: "object", properties: { thought: {}, action: {} }, required: ["thought", "action"] };
  lm.script({ text: "{}" });
  await complete({ ...hello, response_format: { type: "json_schema", json_schema: { name: "t", schema } } });
  const sent = lm.generations.at(-1)?.body.response_format?.json_schema?.schema;
  assert.equal(JSON.stringify(sent), JSON.stringify(schema));
});

test("json_object, which LM Studio refuses, is asked for as a schema", async () => {
  lm.script({ text: '{"a":1}' });
  const { choices } = await complete({ ...hello, response_format: { type: "json_object" } });
  assert.equal(choices[0].message.content, '{"a":1}');
});

test("JSON that LM Studio put into the reasoning comes as the content", async () => {
  const format = { type: "json_schema", json_schema: { name: "t", schema: { type: "object" } } };
  lm.script({ text: '{"rescued":true}', textInReasoning: true });
  const { choices } = await complete({ ...hello, response_format: format });
  assert.deepEqual(
    [choices[0].message.content, choices[0].message.reasoning_content],
    ['{"rescued":true}', ""],
  );
});

test("JSON in the reasoning stays there where plain text was asked for by name", async () => {
  lm.script({ text: '{"a":"plan"}', textInReasoning: true });
  const { choices } = await complete({ ...hello, response_format: { type: "text" } });
  assert.deepEqual([choices[0].message.content, choices[0].message.reasoning_content], ["", '{"a":"plan"}']);
});

test("tool calls come whole, and streamed in pieces that join to the same", async () => {
  const call = { name: "where", arguments: { subject: "the old leopard" }, id: "call-1" };
  lm.script({ toolCalls: [call, { ...call, id: "call-2" }] });
  const body = { ...hello, tools, messages: [{ role: "user", content: "Where?" }] };
  const { choices } = await complete(body);
  assert.equal(choices[0].finish_reason, "tool_calls");
  assert.deepEqual(
    // biome-ignore lint/suspicious/noExplicitAny: as above
    choices[0].message.tool_calls.map((each: any) => [each.id, each.type, each.function]),
    ["call-1", "call-2"].map((id) => [
      id,
      "function",
      { name: "where", arguments: '{"subject":"the old leopard"}' },
    ]),
  );
  const events = await eventsOf(await chat.post(path, { ...body, stream: true }));
  const pieces = events.flatMap(({ data }) => data.choices?.[0]?.delta.tool_calls ?? []);
  assert.deepEqual(
    pieces.flatMap(({ id }) => id ?? []),
    ["call-1", "call-2"],
  );
  const second = pieces.filter(({ index }) => index === 1).map((piece) => piece.function.arguments);
  assert.equal(second.join(""), '{"subject":"the old leopard"}');
});

test("a stream has its usage for those who ask, and none for the others", async () => {
  const stream = async (more: object) => eventsOf(await chat.post(path, { ...hello, stream: true, ...more }));
  const plain = await stream({});
  assert.ok(plain.every(({ data }) => data.usage === undefined));
  assert.equal(plain.at(-1)?.data, "[DONE]");
  assert.equal(plain.at(-2)?.data.choices[0].finish_reason, "stop");
  const counted = await stream({ stream_options: { include_usage: true } });
  assert.deepEqual(counted.at(-2)?.data.choices, []);
  assert.ok(counted.at(-2)?.data.usage.total_tokens > 0);
});

for (const thinkingAs of ["inline", "unopened", "separate"] as const) {
  test(`thinking that LM Studio gives ${thinkingAs} is kept apart, whole, streamed and replayed`, async () => {
    const body = {
      model: "deepseek-r1-distill-qwen-7b",
      messages: [{ role: "user", content: thinkingAs }],
    };
    lm.script({ thinking: "Two and two.", text: "Four.", thinkingAs });
    const first = await eventsOf(await chat.post(path, { ...body, stream: true }));
    const join = (name: string) => first.map(({ data }) => data.choices?.[0]?.delta[name] ?? "").join("");
    assert.deepEqual([join("reasoning_content"), join("content")], ["Two and two.", "Four."]);
    const whole = await complete(body);
    assert.equal(whole.choices[0].message.content, "Four.");
    assert.equal(whole.choices[0].message.reasoning_content, "Two and two.");
    assert.ok(whole.usage.completion_tokens_details.reasoning_tokens > 0);
    const again = await chat.post(path, { ...body, stream: true });
    assert.equal(again.headers.get("x-cache"), "HIT");
    assert.deepEqual(await eventsOf(again), first);
    assert.deepEqual(await complete(body), whole);
  });
}

test("a model of any name that leaves out its first tag is known by it after one answer", async () => {
  const ask = (content: string) => ({ model: hello.model, messages: [{ role: "user", content }] });
  const stream = async (content: string) => {
    const events = await eventsOf(await chat.post(path, { ...ask(content), stream: true }));
    return events.flatMap(({ data }) => data.choices?.[0]?.delta.content ?? []);
  };
  const unopened = { thinking: "hm", text: "Yes.", thinkingAs: "unopened" } as const;
  lm.script({ text: "Yes sir." }, unopened, unopened);
  assert.deepEqual(await stream("a model that does not think is live"), ["Yes", " sir."]);
  assert.equal((await complete(ask("now it thinks"))).choices[0].message.content, "Yes.");
  assert.deepEqual(await stream("and is known for it"), ["Yes."]);
});

test("a model that may think, and was seen not to, is streamed as it speaks", async () => {
  const model = "qwq-32b";
  const stream = async (content: string) => {
    const body = { model, messages: [{ role: "user", content }], stream: true };
    const events = await eventsOf(await chat.post(path, body));
    return events.flatMap(({ data }) => data.choices?.[0]?.delta.content ?? []);
  };
  lm.script({ text: "One two." }, { text: "Three four." });
  assert.deepEqual(await stream("the first answer may still be thinking"), ["One two."]);
  assert.deepEqual(await stream("the second is live"), ["Three", " four."]);
});

test("an answer that comes whole, though a stream was asked for, is as good", async () => {
  const body = {
    id: "chatcmpl-whole",
    object: "chat.completion",
    created: 1_785_472_762,
    model: hello.model,
    choices: [{ index: 0, message: { role: "assistant", content: "Whole." }, finish_reason: "stop" }],
    usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 },
  };
  lm.script({ failure: { how: "answer", status: 200, body } });
  const answer = await complete({ ...hello, messages: [{ role: "user", content: "not in pieces" }] });
  assert.equal(answer.choices[0].message.content, "Whole.");
  assert.equal(answer.usage.total_tokens, 5);
});

test("a raw prompt is continued as it is", async () => {
  lm.script({ thinking: "hm", text: "in the hills" });
  const body = { model: hello.model, prompt: "They live" };
  const whole = (await (await chat.post("/v1/completions", body)).json()) as {
    object: string;
    choices: { text: string }[];
  };
  assert.equal(whole.object, "text_completion");
  assert.equal(whole.choices[0]?.text, "<think>\nhm\n</think>\n\nin the hills");
  const events = await eventsOf(await chat.post("/v1/completions", { ...body, stream: true }));
  assert.equal(events.map(({ data }) => data.choices?.[0]?.text ?? "").join(""), whole.choices[0]?.text);
});

test("models are listed with what LM Studio's own API knows of them", async () => {
  const { object, data } = (await (await chat.get("/v1/models")).json()) as {
    object: string;
    data: unknown[];
  };
  assert.equal(object, "list");
  assert.deepEqual(data[0], {
    id: "qwen2.5-7b-instruct",
    object: "model",
    created: 0,
    owned_by: "organization_owner",
    state: "loaded",
    capabilities: ["tool_use"],
    max_context_length: 131_072,
    loaded_context_length: 8_192,
  });
});

test("errors have OpenAI's form, also for what is not there", async () => {
  const refused = async (response: Response) => {
    const { error } = (await response.json()) as { error: Record<string, unknown> };
    assert.equal(typeof error.message, "string");
    assert.deepEqual(Object.keys(error), ["message", "type", "param", "code"]);
    return [response.status, error.type, error.code, error.param];
  };
  assert.deepEqual(await refused(await chat.post(path, { ...hello, max_tokens: 9_999 })), [
    400,
    "invalid_request_error",
    "max_tokens_exceeded",
    "max_tokens",
  ]);
  assert.deepEqual(await refused(await chat.post(path, { model: "m" })), [
    400,
    "invalid_request_error",
    "request_invalid",
    "messages",
  ]);
  const nameless = { messages: [{ role: "user", content: "Hi" }, { role: 5 }] };
  assert.deepEqual((await refused(await chat.post(path, nameless))).at(-1), "messages[1].role");
  assert.deepEqual(await refused(await chat.post("/v1/moderations", {})), [
    404,
    "invalid_request_error",
    "route_unknown",
    null,
  ]);
  for (const name of ["%zz", "x".repeat(300)]) {
    assert.deepEqual(await refused(await chat.get(`/v1/models/${name}`)), [
      400,
      "invalid_request_error",
      "request_invalid",
      null,
    ]);
  }
  const elsewhere = await chat.get("/sessions/%zz");
  assert.match(elsewhere.headers.get("content-type") ?? "", /^application\/problem\+json/);
  const deep = `${"[".repeat(20_000)}${"]".repeat(20_000)}`;
  const body = `{"messages":[{"role":"user","content":${deep}}]}`;
  const headers = { "content-type": "application/json" };
  const response = await fetch(chat.url + path, { method: "POST", body, headers });
  assert.deepEqual(await refused(response), [400, "invalid_request_error", "request_too_deep", null]);
});

test("without keys to check, callers who show different ones do not share an answer either", async () => {
  lm.script(() => ({ text: "Theirs." }));
  const ask = async (key?: string) => {
    const headers: Record<string, string> = key ? { authorization: `Bearer ${key}` } : {};
    const body = { messages: [{ role: "user", content: "Whose?" }] };
    return (await chat.post(path, body, { headers })).headers.get("x-cache");
  };
  assert.deepEqual(
    [await ask("a"), await ask("b"), await ask("a"), await ask("b"), await ask()],
    ["MISS", "MISS", "HIT", "HIT", "MISS"],
  );
});

test("two callers never share an answer", async () => {
  const keys = "one:0123456789abcdef:write,two:fedcba9876543210:write";
  await using guarded = await startChat(lm, database.url, { PUGMARK_API_KEYS: keys });
  const ask = async (key: string) => {
    const headers = { authorization: `Bearer ${key}` };
    return (await guarded.post(path, hello, { headers })).headers.get("x-cache");
  };
  assert.equal(await ask("0123456789abcdef"), "MISS");
  assert.equal(await ask("fedcba9876543210"), "MISS");
  assert.equal(await ask("0123456789abcdef"), "HIT");
  const stranger = await guarded.post(path, hello);
  assert.equal(stranger.status, 401);
  assert.equal(((await stranger.json()) as { error: { type: string } }).error.type, "authentication_error");
});
