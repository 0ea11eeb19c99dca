import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventually, startChat, type TestChat } from "../../../test/lm-studio/chat-server.ts";
import { type LmStudio, startLmStudio } from "../../../test/lm-studio/lm-studio.ts";
import { faults } from "../../../test/lm-studio/reply.ts";
import { type TestDatabase, testDatabase } from "../../../test/support/postgres.ts";

let database: TestDatabase;
let lm: LmStudio;
let chat: TestChat;

before(async () => {
  database = await testDatabase();
  lm = await startLmStudio();
  chat = await startChat(lm, database.url);
});
after(async () => {
  await chat[Symbol.asyncDispose]();
  await lm[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

const textOf = (body: { messages?: readonly { content?: unknown }[] }) =>
  String(body.messages?.at(-1)?.content);
const post = async (body: unknown) => {
  const response = await chat.post("/chat/batch", body);
  // biome-ignore lint/suspicious/noExplicitAny: each test says what it expects
  return { status: response.status, body: (await response.json()) as any };
};

test("answers come in the order of the prompts, whichever is done first", async () => {
  lm.script((request) => ({
    text: `You asked: ${textOf(request)}`,
    tokenDelayMs: textOf(request) === "first" ? 30 : 0,
  }));
  const prompts = [
    "first",
    { prompt: "second", system: "Be brief", max_tokens: 7 },
    "third",
    "fourth",
    "fifth",
  ];
  const { status, body } = await post({ prompts, temperature: 0.5, system: "Be kind" });
  assert.equal(status, 200);
  assert.deepEqual(
    body.results.map(({ index, response }: { index: number; response: string }) => [index, response]),
    ["first", "second", "third", "fourth", "fifth"].map((asked, index) => [index, `You asked: ${asked}`]),
  );
  const second = lm.generations.find(({ body: sent }) => textOf(sent) === "second")?.body;
  assert.deepEqual([second?.max_tokens, second?.temperature], [7, 0.5]);
  assert.deepEqual(second?.messages?.[0], { role: "system", content: "Be brief" });
  const third = lm.generations.find(({ body: sent }) => textOf(sent) === "third")?.body;
  assert.deepEqual(third?.messages?.[0], { role: "system", content: "Be kind" });
  const logged = await chat.rows();
  const ids = body.results.map(({ interaction_id }: { interaction_id: string }) => interaction_id);
  assert.deepEqual(logged.map(({ id }) => id).sort(), ids.sort());
});

test("a prompt that fails has its error in its place, and the others their answers", async () => {
  lm.script((request) => (textOf(request) === "too long" ? faults.overflow : { text: "fine" }));
  const { status, body } = await post({
    prompts: ["good", "too long", { prompt: "greedy", max_tokens: 999_999 }, "also good"],
  });
  assert.equal(status, 200);
  assert.deepEqual(
    body.results.map(
      ({ response, error }: { response?: string; error?: { code: string; status: number } }) =>
        error ? [error.code, error.status] : response,
    ),
    ["fine", ["context-length-exceeded", 400], ["max-tokens-exceeded", 400], "fine"],
  );
});

test("a caller who leaves ends what is asked, and the rest is never asked", async () => {
  const from = lm.generations.length;
  lm.script(() => ({ text: "x", failure: { how: "hang", after: 0 } }));
  const leave = new AbortController();
  const prompts = Array.from({ length: 20 }, (_, index) => `left ${index}`);
  const asked = chat.post("/chat/batch", { prompts }, { signal: leave.signal });
  await lm.generation(from + 4);
  leave.abort();
  await assert.rejects(asked);
  for (const { ended } of lm.generations.slice(from)) assert.equal(await ended, "aborted");
  const left = await eventually(
    async () => (await chat.rows()).filter(({ outcome }) => outcome === "client-gone"),
    (rows) => rows.length === 4,
  );
  assert.equal(left.length, 4);
  assert.equal(lm.generations.length, from + 4);
});

test("too many prompts, none, or a stranger among the parameters are refused", async () => {
  for (const body of [
    { prompts: [] },
    { prompts: Array.from({ length: 1_001 }, () => "x") },
    { prompts: ["x"], session_id: "s" },
    { prompts: [7] },
  ]) {
    const refused = await post(body);
    assert.deepEqual([refused.status, refused.body.code], [400, "request-invalid"]);
  }
});

test("answers are not shared between callers who show different keys", async () => {
  lm.script(() => ({ text: "for you alone" }));
  const ask = async (key: string) => {
    const headers = { authorization: `Bearer ${key}` };
    const response = await chat.post("/chat/batch", { prompts: ["a secret"] }, { headers });
    const { results } = (await response.json()) as { results: { cached: boolean }[] };
    return results[0]?.cached;
  };
  assert.deepEqual([await ask("one"), await ask("two"), await ask("one")], [false, false, true]);
});
