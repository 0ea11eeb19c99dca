import assert from "node:assert/strict";
import { test } from "node:test";
import { eventsOf } from "./chat-server.ts";
import { type LmStudio, startLmStudio } from "./lm-studio.ts";
import { faults } from "./reply.ts";

const model = "deepseek-r1-distill-qwen-7b";

function post(lm: LmStudio, path: string, body: object) {
  return fetch(`${lm.url}${path}`, { method: "POST", body: JSON.stringify({ model, ...body }) });
}

async function ask(lm: LmStudio, path: string, body: object) {
  const response = await post(lm, path, body);
  // biome-ignore lint/suspicious/noExplicitAny: any shape may come back, and each test says which
  return { status: response.status, body: (await response.json()) as any };
}

test("embeddings are numbers whatever was asked for, the same for the same text, and not counted", async () => {
  await using lm = await startLmStudio();
  const { body } = await ask(lm, "/v1/embeddings", { input: ["a", "b", "a"], encoding_format: "base64" });
  assert.deepEqual([body.object, body.model], ["list", model]);
  const [first, second, third] = body.data;
  assert.deepEqual([first.index, second.index, third.index], [0, 1, 2]);
  assert.deepEqual(first.embedding, third.embedding);
  assert.notDeepEqual(first.embedding, second.embedding);
  assert.ok(Math.abs(Math.hypot(...first.embedding) - 1) < 1e-6);
  assert.deepEqual(body.usage, { prompt_tokens: 0, total_tokens: 0 });
  assert.equal((await ask(lm, "/v1/embeddings", { input: "a" })).body.data.length, 1);
  assert.equal((await ask(lm, "/v1/embeddings", {})).status, 400);
});

test("a response says the same whole and as events", async () => {
  await using lm = await startLmStudio({ thinkingAs: "separate" });
  const reply = { thinking: "Two and two.", text: "Four it is." };
  lm.script(reply, reply);
  const whole = await ask(lm, "/v1/responses", { input: "2+2?" });
  assert.match(whole.body.id, /^resp_/);
  assert.deepEqual(
    // biome-ignore lint/suspicious/noExplicitAny: as above
    whole.body.output.map((item: any) => [item.type, item.content[0].text]),
    [
      ["reasoning", "Two and two."],
      ["message", "Four it is."],
    ],
  );
  const events = await eventsOf(await post(lm, "/v1/responses", { input: "2+2?", stream: true }));
  assert.ok(events.every(({ event, data }, index) => data.type === event && data.sequence_number === index));
  assert.deepEqual([events[0]?.event, events.at(-1)?.event], ["response.created", "response.completed"]);
  const said = (type: string) =>
    events.flatMap(({ event, data }) => (event === `response.${type}.delta` ? data.delta : [])).join("");
  assert.deepEqual([said("reasoning_text"), said("output_text")], ["Two and two.", "Four it is."]);
  const { output, usage } = events.at(-1)?.data.response ?? {};
  assert.equal(output[1].content[0].text, "Four it is.");
  assert.deepEqual(usage, whole.body.usage);
});

test("a response goes on with the conversation of the one before, as long as that was kept", async () => {
  await using lm = await startLmStudio();
  const seen: unknown[] = [];
  lm.script(({ messages }) => {
    seen.push(messages?.map(({ role }) => role).join(" "));
    return { text: "Yes." };
  });
  const first = await ask(lm, "/v1/responses", { input: "One?", instructions: "Be short." });
  const next = { input: [{ role: "user", content: "Two?" }], previous_response_id: first.body.id };
  const second = await ask(lm, "/v1/responses", { ...next, store: false });
  assert.deepEqual(seen, ["system user", "user assistant user"]);
  assert.equal(second.body.previous_response_id, first.body.id);
  const gone = await ask(lm, "/v1/responses", { input: "Three?", previous_response_id: second.body.id });
  assert.deepEqual([gone.status, gone.body.error.param], [400, "previous_response_id"]);
});

test("a response's calls come whole, and streamed in pieces that join to the same", async () => {
  await using lm = await startLmStudio();
  const tools = [{ type: "function", name: "where", parameters: { type: "object", properties: {} } }];
  const call = { name: "where", arguments: { subject: "the old leopard" }, id: "call_1" };
  lm.script({ toolCalls: [call] });
  const events = await eventsOf(await post(lm, "/v1/responses", { input: "Where?", tools, stream: true }));
  assert.equal(lm.generations[0]?.path, "/v1/responses");
  const pieces = events.filter(({ event }) => event === "response.function_call_arguments.delta");
  assert.equal(pieces.map(({ data }) => data.delta).join(""), '{"subject":"the old leopard"}');
  const [item] = events.at(-1)?.data.response.output ?? [];
  assert.deepEqual(
    [item.type, item.call_id, item.arguments],
    ["function_call", "call_1", JSON.stringify(call.arguments)],
  );
});

test("a response fails as LM Studio's do", async () => {
  await using lm = await startLmStudio();
  const { status } = await ask(lm, "/v1/responses", { input: "Hi", text: {} });
  assert.equal(status, 400);
  lm.script({ text: "one two three" });
  const short = await ask(lm, "/v1/responses", { input: "Hi", max_output_tokens: 2 });
  assert.deepEqual(short.body.incomplete_details, { reason: "max_output_tokens" });
  lm.script(faults["crash-mid"]);
  const events = await eventsOf(await post(lm, "/v1/responses", { input: "Hi", stream: true }));
  assert.deepEqual(
    events.slice(-4).map(({ event }) => event),
    ["response.output_text.delta", "response.output_text.delta", "response.output_text.delta", "error"],
  );
});

test("the newer native list has what each loaded model was loaded with", async () => {
  await using lm = await startLmStudio({
    models: [
      { id: "a", loadedContextLength: 8_192, parallel: 2 },
      { id: "b", state: "not-loaded" },
    ],
  });
  // biome-ignore lint/suspicious/noExplicitAny: as above
  const { models } = (await (await fetch(`${lm.url}/api/v1/models`)).json()) as any;
  assert.deepEqual(models[0].loaded_instances, [{ id: "a", config: { context_length: 8_192, parallel: 2 } }]);
  assert.deepEqual([models[1].key, models[1].loaded_instances], ["b", []]);
});
