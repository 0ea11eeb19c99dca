import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI, {
  APIConnectionError,
  APIError,
  APIUserAbortError,
  AuthenticationError,
  BadRequestError,
  InternalServerError,
  NotFoundError,
} from "openai";
import type { ChatCompletionMessageParam, ChatCompletionTool } from "openai/resources/chat/completions";
import { startChat, type TestChat } from "../../../test/lm-studio/chat-server.ts";
import { type LmStudio, startLmStudio } from "../../../test/lm-studio/lm-studio.ts";
import { faults } from "../../../test/lm-studio/reply.ts";
import { type TestDatabase, testDatabase } from "../../../test/support/postgres.ts";

let database: TestDatabase;
let lm: LmStudio;
let chat: TestChat;
let client: OpenAI;
/** Requests that the client has made. */
let sent = 0;

const model = "qwen/qwen2.5-7b-instruct";
const embedder = "text-embedding-nomic-embed-text-v1.5";
const ask = (content: string) => ({ model, messages: [{ role: "user" as const, content }] });
const where = { type: "object", properties: { subject: { type: "string" } }, required: ["subject"] };
const tools: ChatCompletionTool[] = [
  { type: "function", function: { name: "where", description: "Where it is", parameters: where } },
];
const call = { name: "where", arguments: { subject: "the old leopard" }, id: "call_1" };

before(async () => {
  database = await testDatabase();
  lm = await startLmStudio({ models: [{ id: model }, { id: embedder }, { id: "deepseek-r1" }] });
  chat = await startChat(lm, database.url);
  client = new OpenAI({
    baseURL: `${chat.url}/v1`,
    apiKey: "unused",
    fetch: (...request) => {
      sent += 1;
      return fetch(...request);
    },
  });
});
after(async () => {
  await chat[Symbol.asyncDispose]();
  await lm[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

const lastBody = (): Record<string, unknown> => lm.generations.at(-1)?.body ?? {};

// --- chat.completions

test("a chat completion has all that the client's types promise", async () => {
  lm.script({ text: "Four." });
  const answer = await client.chat.completions.create(ask("2 + 2?"));
  assert.equal(answer.object, "chat.completion");
  assert.equal(answer.model, model);
  assert.equal(answer.choices[0]?.message.content, "Four.");
  assert.equal(answer.choices[0]?.finish_reason, "stop");
  assert.equal(answer.usage?.total_tokens, (answer.usage?.prompt_tokens ?? 0) + 1);
  assert.ok(answer._request_id);
});

test("what LM Studio gets is what the client sent, new and unknown parameters included", async () => {
  const body = {
    model,
    messages: [
      { role: "developer", content: "Be short." },
      {
        role: "user",
        content: [
          { type: "text", text: "What is this?" },
          { type: "image_url", image_url: { url: "data:image/png;base64,iVBORw0KGgo=", detail: "low" } },
        ],
      },
    ] satisfies ChatCompletionMessageParam[],
    temperature: 0.2,
    top_p: 0.9,
    top_k: 40,
    min_p: 0.05,
    stop: ["END"],
    seed: 7,
    n: 1,
    logprobs: false,
    logit_bias: { "7": -100 },
    presence_penalty: 0.1,
    frequency_penalty: 0.2,
    repeat_penalty: 1.1,
    max_tokens: 300,
    tools,
    tool_choice: "auto" as const,
    parallel_tool_calls: false,
    reasoning_effort: "low" as const,
    user: "u-1",
    draft_model: "small",
    ttl: 300,
    something_of_next_year: { deep: [1, null, "x"] },
  };
  lm.script({ text: "A pugmark." });
  await client.chat.completions.create(body);
  assert.deepEqual(lastBody(), { ...body, stream: true, stream_options: { include_usage: true } });
});

test("max_completion_tokens reaches LM Studio under the name it knows", async () => {
  lm.script({ text: "one two three" });
  const answer = await client.chat.completions.create({ ...ask("Count"), max_completion_tokens: 2 });
  assert.deepEqual([lastBody().max_tokens, "max_completion_tokens" in lastBody()], [2, false]);
  assert.deepEqual(
    [answer.choices[0]?.message.content, answer.choices[0]?.finish_reason],
    ["one two", "length"],
  );
});

test("a stream comes in pieces, with its usage for those who ask", async () => {
  lm.script({ text: "one two three" });
  const stream = await client.chat.completions.create({
    ...ask("Count aloud"),
    stream: true,
    stream_options: { include_usage: true },
  });
  const pieces: string[] = [];
  let total: number | undefined;
  for await (const chunk of stream) {
    pieces.push(chunk.choices[0]?.delta.content ?? "");
    total = chunk.usage?.completion_tokens ?? total;
  }
  assert.deepEqual(pieces.filter(Boolean), ["one", " two", " three"]);
  assert.equal(total, 3);
});

test("the client's stream helper gives the same answer as no stream at all", async () => {
  lm.script({ text: "one two three", thinking: "They want to count.", thinkingAs: "separate" });
  const helper = client.chat.completions.stream(ask("Count with the helper"));
  let heard = "";
  helper.on("content", (delta) => {
    heard += delta;
  });
  const streamed = await helper.finalChatCompletion();
  const whole = await client.chat.completions.create(ask("Count with the helper"));
  assert.equal(heard, "one two three");
  assert.equal(streamed.choices[0]?.message.content, whole.choices[0]?.message.content);
  assert.equal(streamed.id, whole.id);
});

test("tools are called, whole and streamed, and a run goes on with what they gave", async () => {
  lm.script({ toolCalls: [call] });
  const answer = await client.chat.completions.create({ ...ask("Where is it?"), tools });
  assert.equal(answer.choices[0]?.finish_reason, "tool_calls");
  const [called] = answer.choices[0]?.message.tool_calls ?? [];
  assert.deepEqual([called?.id, called?.type], ["call_1", "function"]);

  lm.script({ toolCalls: [call] }, { text: "In the hills." });
  const seen: unknown[] = [];
  const runner = client.chat.completions.runTools({
    ...ask("Where is the old leopard?"),
    stream: true,
    tools: [
      {
        type: "function",
        function: {
          name: "where",
          description: "Where it is",
          parameters: where,
          parse: (text: string): object => JSON.parse(text),
          function: async (given: object) => {
            seen.push(given);
            return "the hills";
          },
        },
      },
    ],
  });
  assert.equal(await runner.finalContent(), "In the hills.");
  assert.deepEqual(seen, [{ subject: "the old leopard" }]);
  const messages = lastBody().messages as { role: string; content: string }[];
  assert.deepEqual(
    messages.map(({ role }) => role),
    ["user", "assistant", "tool"],
  );
  assert.equal(messages[2]?.content, "the hills");
});

test("JSON is parsed by its schema, and any JSON is to be had without one", async () => {
  const schema = { type: "object", properties: { count: { type: "integer" } }, required: ["count"] };
  lm.script({ text: '{"count":3}' }, { text: '{"a":1}' });
  const parsed = await client.chat.completions.parse({
    ...ask("How many?"),
    response_format: { type: "json_schema", json_schema: { name: "count", schema, strict: true } },
  });
  assert.deepEqual(parsed.choices[0]?.message.parsed, { count: 3 });
  const any = await client.chat.completions.create({
    ...ask("JSON"),
    response_format: { type: "json_object" },
  });
  assert.equal(any.choices[0]?.message.content, '{"a":1}');
});

for (const [what, param, more] of [
  ["several answers at once", "n", { n: 2 }],
  ["the likelihood of tokens", "logprobs", { logprobs: true }],
  ["the likelihood of other tokens", "top_logprobs", { top_logprobs: 3 }],
] as const) {
  test(`${what} is refused, since LM Studio would pass over it in silence`, async () => {
    const before = lm.generations.length;
    const error = await client.chat.completions.create({ ...ask("Hi"), ...more }).catch((reason) => reason);
    assert.ok(error instanceof BadRequestError);
    assert.deepEqual([error.code, error.param], ["parameter_unsupported", param]);
    assert.equal(lm.generations.length, before);
  });
}

// --- completions

test("a raw prompt is continued, whole and streamed", async () => {
  const prompt = "They live";
  lm.script({ text: "in the hills" });
  const whole = await client.completions.create({ model, prompt });
  assert.deepEqual([whole.object, whole.choices[0]?.text], ["text_completion", "in the hills"]);
  let text = "";
  for await (const chunk of await client.completions.create({ model, prompt, stream: true })) {
    text += chunk.choices[0]?.text ?? "";
  }
  assert.equal(text, "in the hills");
});

test("a list of one prompt is that prompt, and a list of more is refused", async () => {
  lm.script({ text: "by night" });
  await client.completions.create({ model, prompt: ["They hunt"] });
  assert.equal(lastBody().prompt, "They hunt");
  await assert.rejects(client.completions.create({ model, prompt: ["One", "Two"] }), BadRequestError);
  await assert.rejects(client.completions.create({ model, prompt: "Hi", logprobs: 2 }), BadRequestError);
});

// --- embeddings

test("embeddings are the numbers that LM Studio gave, by the client's own base64 and as numbers", async () => {
  const input = ["a leopard", "a tiger"];
  const asked = await client.embeddings.create({ model: embedder, input, dimensions: 32 });
  assert.deepEqual(lastBody(), { model: embedder, input, dimensions: 32, encoding_format: "float" });
  const direct = await fetch(`${lm.url}/v1/embeddings`, {
    method: "POST",
    body: JSON.stringify({ model: embedder, input }),
  });
  const { data } = (await direct.json()) as { data: { embedding: number[] }[] };
  assert.deepEqual(
    asked.data.map(({ embedding }) => embedding),
    data.map(({ embedding }) => embedding),
  );
  const floats = await client.embeddings.create({
    model: embedder,
    input,
    dimensions: 32,
    encoding_format: "float",
  });
  assert.deepEqual(floats.data[1]?.embedding, data[1]?.embedding);
  assert.deepEqual(
    floats.data.map(({ index }) => index),
    [0, 1],
  );
});

test("embeddings are kept whatever encoding they were asked in, and the log has no numbers", async () => {
  const request = { model: embedder, input: "the old leopard" };
  const first = await client.embeddings.create(request).withResponse();
  const again = await client.embeddings.create({ ...request, encoding_format: "float" }).withResponse();
  const cache = [first, again].map(({ response }) => response.headers.get("x-cache"));
  assert.deepEqual(cache, ["MISS", "HIT"]);
  assert.deepEqual(again.data.data[0]?.embedding, first.data.data[0]?.embedding);
  const id = first.response.headers.get("x-interaction-id");
  const row = (await chat.rows()).find((each) => each.id === id);
  assert.deepEqual(
    [row.route, row.prompt, row.response, row.prompt_tokens, row.outcome],
    ["/v1/embeddings", "the old leopard", "1 × 32 numbers", 0, "ok"],
  );
});

test("embeddings take tokens as well, and nothing that is neither text nor tokens", async () => {
  assert.equal((await client.embeddings.create({ model: embedder, input: [1, 2, 3] })).data.length, 1);
  await assert.rejects(client.embeddings.create({ model: embedder, input: [] }), BadRequestError);
  await assert.rejects(client.embeddings.create({ model: embedder, input: "" }), BadRequestError);
});

// --- responses

test("a response has all that the client's types promise, and the log has what was said", async () => {
  lm.script({ thinking: "Two and two.", text: "Four.", thinkingAs: "separate" });
  const body = {
    model,
    input: "2 + 2?",
    instructions: "Be short.",
    reasoning: { effort: "low" },
    temperature: 0,
    something_of_next_year: true,
  } as const;
  const { data, response } = await client.responses.create(body).withResponse();
  assert.deepEqual(lastBody(), { ...body, stream: true, max_output_tokens: 4_096 });
  assert.deepEqual([data.object, data.status, data.model], ["response", "completed", model]);
  assert.equal(data.output_text, "Four.");
  assert.ok((data.usage?.output_tokens_details.reasoning_tokens ?? 0) > 0);
  const id = response.headers.get("x-interaction-id");
  const row = (await chat.rows()).find((each) => each.id === id);
  assert.deepEqual(
    [row.prompt, row.response, row.reasoning, row.finish_reason, row.completion_tokens],
    ["2 + 2?", "Four.", "Two and two.", "stop", data.usage?.output_tokens],
  );
  assert.equal(row.parameters.instructions, "Be short.");
});

test("a response goes on from the one before it", async () => {
  lm.script({ text: "Blue." });
  const first = await client.responses.create({ model, input: "Which colour?" });
  lm.script(({ messages }) => ({ text: messages?.map(({ role }) => role).join(" ") ?? "" }));
  const second = await client.responses.create({ model, input: "Again?", previous_response_id: first.id });
  assert.equal(second.output_text, "user assistant user");
  await assert.rejects(
    client.responses.create({ model, input: "Hi", previous_response_id: "resp_nowhere" }),
    BadRequestError,
  );
});

test("a response streams its typed events, and the client's helper makes the response of them", async () => {
  lm.script({ text: "one two three" });
  const stream = await client.responses.create({ model, input: "Count", stream: true });
  const types: string[] = [];
  let text = "";
  for await (const event of stream) {
    types.push(event.type);
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  assert.equal(text, "one two three");
  assert.deepEqual([types[0], types.at(-1)], ["response.created", "response.completed"]);

  lm.script({ toolCalls: [call] });
  const helper = client.responses.stream({
    model,
    input: "Where?",
    tools: [{ type: "function", name: "where", parameters: where, strict: true }],
  });
  const [item] = (await helper.finalResponse()).output;
  assert.equal(item?.type, "function_call");
  assert.deepEqual(item?.type === "function_call" && item.parsed_arguments, call.arguments);
});

test("a response that came whole, though it was to be streamed, comes in the events of one", async () => {
  lm.script({ text: "Whole it is." });
  const whole = await (
    await fetch(`${lm.url}/v1/responses`, { method: "POST", body: JSON.stringify({ model, input: "Whole" }) })
  ).json();
  lm.script({ failure: { how: "answer", status: 200, body: whole } });
  const helper = client.responses.stream({ model, input: "Whole" });
  assert.equal((await helper.finalResponse()).output_text, "Whole it is.");
});

test("a response without a format for its text is asked for without a text", async () => {
  lm.script({ text: "Yes." });
  assert.equal((await client.responses.create({ model, input: "Hi", text: {} })).output_text, "Yes.");
  assert.ok(!("text" in lastBody()));
});

test("only a response that LM Studio does not keep comes from the cache, its events as they were", async () => {
  const cached = async (more: object) => {
    const request = client.responses.create({ model, input: "Kept?", ...more });
    return (await request.withResponse()).response.headers.get("x-cache");
  };
  assert.deepEqual([await cached({}), await cached({})], ["BYPASS", "BYPASS"]);
  const eventsOf = async () => {
    const stream = await client.responses.create({ model, input: "Kept?", store: false, stream: true });
    return Array.fromAsync(stream);
  };
  const first = await eventsOf();
  assert.equal(await cached({ store: false }), "HIT");
  assert.deepEqual(await eventsOf(), first);
  assert.equal(await cached({ store: false, tools: [{ type: "mcp", server_label: "x" }] }), "BYPASS");
  assert.equal(await cached({ store: false, max_output_tokens: 5 }), "MISS");
});

test("a response that breaks off is an error, and never completed", async () => {
  lm.script(faults["crash-mid"]);
  const types: string[] = [];
  const stream = await client.responses.create({ model, input: "Break", stream: true });
  const error = await (async () => {
    for await (const { type } of stream) types.push(type);
  })().catch((reason) => reason);
  assert.ok(error instanceof APIError);
  assert.equal(error.code, "model_crashed");
  assert.ok(types.includes("response.output_text.delta") && !types.includes("response.completed"));
});

// --- models

test("models are listed, and each is found by its name, a slash in it or not", async () => {
  const names = [];
  for await (const { id } of client.models.list()) names.push(id);
  assert.deepEqual(names, [model, embedder, "deepseek-r1"]);
  const found = await client.models.retrieve(model);
  assert.deepEqual([found.id, found.object, found.created], [model, "model", 0]);
  assert.equal(((await (await chat.get(`/v1/models/${model}`)).json()) as { id: string }).id, model);
  assert.equal((await client.models.retrieve("deepseek-r1")).id, "deepseek-r1");
  const error = await client.models.retrieve("nowhere/at-all").catch((reason) => reason);
  assert.ok(error instanceof NotFoundError);
  assert.equal(error.code, "model_not_found");
});

// --- errors

test("errors are the client's own classes, with their code and the request's id", async () => {
  const failed = async (fault: keyof typeof faults) => {
    lm.script(() => faults[fault]);
    const error = await client.chat.completions.create(ask(fault)).catch((reason) => reason);
    assert.ok(error instanceof APIError);
    assert.ok(error.requestID);
    return error;
  };
  const unknown = await failed("model-unknown");
  assert.ok(unknown instanceof NotFoundError);
  assert.deepEqual([unknown.code, unknown.type], ["model_not_found", "invalid_request_error"]);
  const long = await failed("overflow");
  assert.ok(long instanceof BadRequestError);
  assert.equal(long.code, "context_length_exceeded");
  const broken = await failed("html");
  assert.ok(broken instanceof InternalServerError);
  assert.equal(broken.code, "upstream_invalid");
  lm.script(() => ({ text: "Well again." }));
});

test("an error that trying again cannot mend is not tried again by the client", async () => {
  lm.script(() => faults.html);
  const before = sent;
  await assert.rejects(client.chat.completions.create(ask("again and again")), { status: 502 });
  assert.equal(sent - before, 1);
  lm.script(() => ({ text: "Well again." }));
});

test("an error that waiting mends says how long to wait", async () => {
  lm.script(() => faults.busy);
  const error = await client.chat.completions.create(ask("busy")).catch((reason) => reason);
  assert.ok(error instanceof InternalServerError);
  assert.equal(error.headers.get("retry-after"), "1");
  lm.script(() => ({ text: "Well again." }));
});

test("a key that is missing is an authentication error", async () => {
  await using guarded = await startChat(lm, database.url, { PUGMARK_API_KEYS: "one:0123456789abcdef:write" });
  const stranger = new OpenAI({ baseURL: `${guarded.url}/v1`, apiKey: "wrong" });
  await assert.rejects(stranger.chat.completions.create(ask("Hi")), AuthenticationError);
  const known = new OpenAI({ baseURL: `${guarded.url}/v1`, apiKey: "0123456789abcdef" });
  lm.script({ text: "Hello." });
  assert.equal((await known.chat.completions.create(ask("Hi"))).choices[0]?.message.content, "Hello.");
});

test("a server that is not there is a connection error", async () => {
  const nobody = new OpenAI({ baseURL: "http://127.0.0.1:1/v1", apiKey: "unused", maxRetries: 0 });
  await assert.rejects(nobody.chat.completions.create(ask("Hi")), APIConnectionError);
});

for (const [what, begin] of [
  ["a chat completion", (signal: AbortSignal) => client.chat.completions.create(ask("leave"), { signal })],
  ["a response", (signal: AbortSignal) => client.responses.create({ model, input: "leave" }, { signal })],
  [
    "embeddings",
    (signal: AbortSignal) => client.embeddings.create({ model: embedder, input: "leave" }, { signal }),
  ],
] as const) {
  test(`a client who gives up ${what} stops LM Studio at it`, async () => {
    lm.script({ text: "never", firstTokenDelayMs: 60_000 });
    const stop = new AbortController();
    const asked = lm.generations.length;
    const answer = begin(stop.signal);
    const generation = lm.generation(asked + 1);
    const refused = assert.rejects(answer, APIUserAbortError);
    await generation;
    stop.abort();
    await refused;
    assert.equal(await (await generation).ended, "aborted");
  });
}

test("a client who leaves a stream in its middle stops LM Studio at it", async () => {
  lm.script(faults["stall-mid"]);
  const asked = lm.generations.length;
  const stream = await client.chat.completions.create({ ...ask("leave early"), stream: true });
  for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
  assert.equal(await (await lm.generation(asked + 1)).ended, "aborted");
});

// --- thinking

for (const [form, content, reasoning] of [
  ["separate", "Four.", "Two and two."],
  ["inline", "<think>\nTwo and two.\n</think>\n\nFour.", ""],
  ["drop", "Four.", ""],
] as const) {
  test(`thinking comes ${form} where that is asked for, whole and streamed, from one kept answer`, async () => {
    const thinker = new OpenAI({
      baseURL: `${chat.url}/v1`,
      apiKey: "unused",
      defaultHeaders: { "x-reasoning": form },
    });
    const body = { ...ask("What is 2 + 2, and how do you know?"), model: "deepseek-r1" };
    lm.script({ thinking: "Two and two.", text: "Four." });
    const answer = await thinker.chat.completions.create(body).withResponse();
    const message = answer.data.choices[0]?.message as { content: string; reasoning_content?: string };
    assert.deepEqual([message.content, message.reasoning_content], [content, reasoning]);
    assert.equal(answer.response.headers.get("x-cache"), form === "separate" ? "MISS" : "HIT");
    let [said, thought] = ["", ""];
    for await (const chunk of await thinker.chat.completions.create({ ...body, stream: true })) {
      const delta = chunk.choices[0]?.delta as { content?: string; reasoning_content?: string };
      said += delta?.content ?? "";
      thought += delta?.reasoning_content ?? "";
    }
    assert.deepEqual([said, thought], [content, reasoning]);
  });
}

test("thinking of earlier turns that a program sends back does not reach the model", async () => {
  lm.script({ text: "Nine." });
  const messages: ChatCompletionMessageParam[] = [
    { role: "user", content: "2 + 2?" },
    { role: "assistant", content: "<think>\nTwo and two.\n</think>\n\nFour." },
    { role: "user", content: "And 3 * 3?" },
  ];
  await client.chat.completions.create({ model, messages });
  assert.deepEqual(lastBody().messages, [messages[0], { role: "assistant", content: "Four." }, messages[2]]);
});

test("an answer by another model than the one asked says so in a header, whole and streamed", async () => {
  for (const stream of [false, true]) {
    lm.script({ text: "Hi.", model: "größer" });
    const { response } = await client.chat.completions.create({ ...ask("Who?"), stream }).withResponse();
    assert.equal(response.headers.get("x-model"), "gr%C3%B6%C3%9Fer");
  }
  lm.script({ text: "Hi." });
  const { response } = await client.chat.completions.create(ask("Who now?")).withResponse();
  assert.equal(response.headers.get("x-model"), null);
});
