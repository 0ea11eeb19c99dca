import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventsOf, startChat, type TestChat } from "../../../test/lm-studio/chat-server.ts";
import { type LmStudio, startLmStudio } from "../../../test/lm-studio/lm-studio.ts";
import { type FaultName, faults } from "../../../test/lm-studio/reply.ts";
import { type TestDatabase, testDatabase } from "../../../test/support/postgres.ts";

let database: TestDatabase;
let lm: LmStudio;
let chat: TestChat;
const model = "deepseek-r1-distill-qwen-7b";
const quick = { API_TIMEOUT: "0.2", API_FIRST_TOKEN_TIMEOUT: "0.5", API_LOAD_TIMEOUT: "1" };

before(async () => {
  database = await testDatabase();
  lm = await startLmStudio();
  chat = await startChat(lm, database.url, quick);
});
after(async () => {
  await chat[Symbol.asyncDispose]();
  await lm[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

const rowOf = async (response: Response) =>
  (await chat.rows()).find(({ id }) => id === response.headers.get("x-interaction-id"));

const early = {
  "no-models-loaded": [404, "model-not-found"],
  "load-failed": [503, "model-load-failed"],
  overflow: [400, "context-length-exceeded"],
  crash: [502, "model-crashed"],
  "unexpected-endpoint": [502, "upstream-invalid"],
  html: [502, "upstream-invalid"],
  empty: [502, "upstream-invalid"],
  malformed: [502, "upstream-invalid"],
  hang: [504, "upstream-timeout"],
  reset: [502, "upstream-cut"],
} satisfies Partial<Record<FaultName, readonly [number, string]>>;

for (const [fault, [status, code]] of Object.entries(early)) {
  for (const path of ["/v1/embeddings", "/v1/responses"]) {
    test(`${path} answers ${fault} with ${status} ${code}, and the log has it`, async () => {
      lm.script(() => faults[fault as FaultName]);
      // Each has a model of its own, or the breaker would count the faults together.
      const response = await chat.post(path, { model: fault, input: `${fault} ${path}` });
      const { error } = (await response.json()) as { error: { code: string } };
      assert.deepEqual([response.status, error.code], [status, code.replaceAll("-", "_")]);
      const row = await rowOf(response);
      assert.deepEqual([row.route, row.outcome, row.prompt], [path, code, `${fault} ${path}`]);
    });
  }
}

const late = {
  "cut-mid": "upstream-cut",
  "stall-mid": "upstream-timeout",
  "crash-mid": "model-crashed",
  "garbage-mid": "upstream-invalid",
} satisfies Partial<Record<FaultName, string>>;

for (const [fault, code] of Object.entries(late)) {
  test(`a response that ends in ${fault} says ${code}, and never that it is complete`, async () => {
    lm.script(() => faults[fault as FaultName]);
    const response = await chat.post("/v1/responses", {
      model: fault,
      input: `stream ${fault}`,
      stream: true,
    });
    assert.equal(response.status, 200);
    const events = await eventsOf(response);
    const said = events.flatMap(({ event, data }) =>
      event === "response.output_text.delta" ? data.delta : [],
    );
    assert.equal(said.join(""), "one two three");
    const { event, data } = events.at(-1) ?? {};
    assert.deepEqual([event, data.type, data.code], ["error", "error", code.replaceAll("-", "_")]);
    assert.equal(data.sequence_number, events.length - 1);
    const row = await rowOf(response);
    assert.deepEqual([row.outcome, row.response], [code, "one two three"]);
  });
}

test("an overflow that LM Studio notices after it announced a response is still an error answer", async () => {
  lm.script(() => faults["overflow-mid"]);
  const response = await chat.post("/v1/responses", { model, input: "far too long", stream: true });
  const { error } = (await response.json()) as { error: { code: string } };
  assert.deepEqual([response.status, error.code], [400, "context_length_exceeded"]);
  assert.equal((await rowOf(response)).outcome, "context-length-exceeded");
});

test("a response whose prompt takes long to read is waited for, though it was announced at once", async () => {
  lm.script({ text: "At last.", firstTokenDelayMs: 350 });
  const response = await chat.post("/v1/responses", { model, input: "A long story" });
  const { output } = (await response.json()) as { output: { content: { text: string }[] }[] };
  assert.equal(output[0]?.content[0]?.text, "At last.");
});

test("embeddings that take long are waited for, as long as LM Studio itself answers", async () => {
  lm.script({ firstTokenDelayMs: 350 });
  assert.equal((await chat.post("/v1/embeddings", { model, input: "A long story" })).status, 200);
});

test("embeddings of many texts are taken whole, however large", async () => {
  lm.script({});
  const input = Array.from({ length: 2_048 }, (_, index) => `text ${index}`);
  const response = await chat.post("/v1/embeddings", { model, input });
  const { data } = (await response.json()) as { data: { index: number }[] };
  assert.deepEqual([data.length, data.at(-1)?.index], [2_048, 2_047]);
  assert.equal((await chat.post("/v1/embeddings", { model, input: [...input, "one more"] })).status, 400);
});
