import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventually, startChat } from "../../test/lm-studio/chat-server.ts";
import { type LmStudio, startLmStudio } from "../../test/lm-studio/lm-studio.ts";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";

let database: TestDatabase;
let lm: LmStudio;

before(async () => {
  database = await testDatabase();
  lm = await startLmStudio();
});
after(async () => {
  await lm[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

const web = "web-key-web-key-web-key";
const other = "other-key-other-key-other";
const keys = { PUGMARK_API_KEYS: `web:${web}:write,other:${other}:write` };
const as = (key: string) => ({ headers: { authorization: `Bearer ${key}` } });

test("tokens of a day are counted, told in headers, refused when used, and survive a restart", async () => {
  const env = { ...keys, CHAT_TOKENS_PER_DAY: "0,web=60" };
  {
    await using chat = await startChat(lm, database.url, env);
    const first = await chat.post("/chat", { prompt: "one two three" }, as(web));
    assert.equal(first.headers.get("x-ratelimit-limit-tokens"), "60");
    assert.equal(first.headers.get("x-ratelimit-remaining-tokens"), "60");
    assert.match(first.headers.get("x-ratelimit-reset-tokens") ?? "", /^\d{1,5}s$/);
    const { usage } = (await first.json()) as { usage: { total_tokens: number } };
    const cached = await chat.post("/chat", { prompt: "one two three" }, as(web));
    assert.equal(cached.headers.get("x-cache"), "HIT");
    const third = await chat.post("/chat", { prompt: "four", stream: true }, as(web));
    assert.equal(third.headers.get("x-ratelimit-remaining-tokens"), String(60 - usage.total_tokens));
    await third.text();
    await chat.post("/chat", { prompt: "five ".repeat(40) }, as(web));
    const refused = await chat.post("/chat", { prompt: "six" }, as(web));
    assert.equal(refused.status, 429);
    assert.equal(((await refused.json()) as { code: string }).code, "token-budget-spent");
    assert.ok(Number(refused.headers.get("retry-after")) > 0);
  }
  await using chat = await startChat(lm, database.url, env);
  const asked = lm.generations.length;
  const messages = [{ role: "user", content: "seven" }];
  const refused = await chat.post("/v1/chat/completions", { messages }, as(web));
  assert.equal(refused.status, 429);
  assert.ok(Number(refused.headers.get("retry-after")) > 0);
  assert.equal(refused.headers.get("x-should-retry"), "false");
  assert.equal(refused.headers.get("x-ratelimit-remaining-tokens"), "0");
  const { error } = (await refused.json()) as { error: { code: string; type: string; message: string } };
  assert.deepEqual([error.code, error.type], ["token_budget_spent", "rate_limit_error"]);
  assert.match(error.message, /^web has used \d+ of its 60 tokens of today/);
  assert.equal(lm.generations.length, asked);
  const free = await chat.post("/v1/chat/completions", { messages }, as(other));
  assert.equal(free.status, 200);
  assert.equal(free.headers.get("x-ratelimit-limit-tokens"), null);
});

test("an answer that its caller left counts for what was said of it", async () => {
  await using chat = await startChat(lm, database.url, { CHAT_TOKENS_PER_DAY: "30" });
  const never = new Promise<void>(() => {});
  lm.script({ text: "word ".repeat(60), heldAfter: { tokens: 50, until: never } });
  const left = new AbortController();
  const stream = await chat.post("/chat", { prompt: "Go on", stream: true }, { signal: left.signal });
  const before = lm.generations.length;
  let said = "";
  for await (const part of stream.body ?? []) {
    said += Buffer.from(part).toString();
    if (said.split("event: token").length > 40) break;
  }
  left.abort();
  assert.equal(await (await lm.generation(before)).ended, "aborted");
  const status = async () => (await chat.post("/chat", { prompt: "More?" })).status;
  assert.equal(await eventually(status, (seen) => seen === 429), 429);
});

test("a prompt that cannot fit is refused before it is sent, once the model's context is known", async () => {
  await using chat = await startChat(lm, database.url);
  const messages = [
    { role: "system", content: "Be brief." },
    { role: "user", content: "river ".repeat(6_000) },
  ];
  // The first call is the one that has the context looked up; LM Studio refuses it itself.
  const detail = await eventually(
    async () => {
      const response = await chat.post("/v1/chat/completions", { messages });
      assert.equal(response.status, 400);
      return ((await response.json()) as { error: { code: string; message: string } }).error.message;
    },
    (message) => !message.includes("LM Studio says"),
  );
  assert.match(
    detail,
    /about 6,0\d\d tokens, and deepseek-r1-distill-qwen-7b is loaded with a context of 4,096/,
  );
  assert.match(detail, /Largest: message 2 \(user\) 6,0\d\d, system \d+\./);
  const asked = lm.generations.length;
  const again = await chat.post("/chat", { prompt: "river ".repeat(6_000) });
  assert.equal(((await again.json()) as { code: string }).code, "context-length-exceeded");
  assert.equal(lm.generations.length, asked);
});

test("a response's prompt is checked too, as far as it is in the request", async () => {
  await using chat = await startChat(lm, database.url);
  await chat.get("/v1/models");
  const asked = lm.generations.length;
  const text = "river ".repeat(6_000);
  for (const input of [text, [{ role: "user", content: [{ type: "input_text", text }] }]]) {
    const refused = await chat.post("/v1/responses", { instructions: "Be brief.", input });
    assert.equal(refused.status, 400);
    const { error } = (await refused.json()) as { error: { code: string; message: string } };
    assert.match(error.message, /Largest: message 2 \(user\) 6,0\d\d, system \d+\./);
  }
  assert.equal(lm.generations.length, asked);
});

test("a response says nothing of how a tokenizer counts: it may stand for a conversation before it", async () => {
  await using chat = await startChat(lm, database.url);
  await chat.get("/v1/models");
  const parameters = { type: "object", properties: { place: { description: "a place ".repeat(400) } } };
  const tools = [{ type: "function", name: "where", parameters }];
  let previous: string | undefined;
  for (let turn = 0; turn < 12; turn += 1) {
    const input = "river ".repeat(turn === 0 ? 2_000 : 1);
    const response = await chat.post("/v1/responses", { input, tools, previous_response_id: previous });
    previous = ((await response.json()) as { id: string }).id;
  }
  const fits = { messages: [{ role: "user", content: "river ".repeat(2_600) }] };
  assert.equal((await chat.post("/v1/chat/completions", fits)).status, 200);
});
