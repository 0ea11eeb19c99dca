import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventsOf, eventually, startChat, type TestChat } from "../../../test/lm-studio/chat-server.ts";
import { type LmStudio, startLmStudio } from "../../../test/lm-studio/lm-studio.ts";
import { faults } from "../../../test/lm-studio/reply.ts";
import { closedPort } from "../../../test/support/ports.ts";
import { type TestDatabase, testDatabase } from "../../../test/support/postgres.ts";
import { noRedis, startRedis } from "../../../test/support/redis.ts";

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

// biome-ignore lint/suspicious/noExplicitAny: each test knows what it looks for
type Loose = any;
const withKey = (key: string) => ({ headers: { authorization: `Bearer ${key}` } });

async function statsOf(chat: TestChat, query = "", init: RequestInit = {}): Promise<Loose> {
  return (await fetch(`${chat.url}/cache${query}`, init)).json();
}

async function forget(chat: TestChat, query = "", init: RequestInit = {}): Promise<Loose> {
  return (await fetch(`${chat.url}/cache${query}`, { method: "DELETE", ...init })).json();
}

async function ask(chat: TestChat, prompt: string, more: object = {}, init: RequestInit = {}) {
  const response = await chat.post("/chat", { prompt, ...more }, init);
  const { response: text } = (await response.json()) as { response: string };
  return { text, cache: response.headers.get("x-cache"), age: response.headers.get("age") };
}

test("the cache tells what it holds by model, and lists it without a word of it", async () => {
  await using chat = await startChat(lm, database.url);
  lm.script({ text: "A secret answer" }, { text: "Another" });
  await ask(chat, "A secret question");
  await ask(chat, "And raw", { raw: true });
  await ask(chat, "A secret question");
  const { answers, ...stats } = await statsOf(chat, "?entries=true");
  assert.deepEqual([stats.entries, stats.hits, stats.misses, stats.redis], [2, 1, 2, null]);
  const { bytes } = stats;
  assert.deepEqual(stats.models, [{ model: "deepseek-r1-distill-qwen-7b", entries: 2, bytes, hits: 1 }]);
  assert.deepEqual(
    answers.map(({ key, hits }: Loose) => [key.slice(0, key.lastIndexOf("/")), hits]),
    [
      ["chat/deepseek-r1-distill-qwen-7b", 1],
      ["text/deepseek-r1-distill-qwen-7b", 0],
    ],
  );
  assert.doesNotMatch(JSON.stringify(answers), /secret/i);
  assert.equal((await statsOf(chat, "?entries=true&limit=1")).answers.length, 1);
  assert.equal((await statsOf(chat)).answers, undefined);
  const metrics = await (await chat.get("/metrics")).text();
  assert.match(metrics, /chat_cache_entries{service="chat"} 2\n/);
  assert.match(metrics, /chat_cache_lookups_total{found="memory",service="chat"} 1\n/);
  assert.match(metrics, /chat_cache_lookups_total{found="nowhere",service="chat"} 2\n/);
});

test("answers are forgotten by model or by how their keys begin, and a misspelt wish forgets none", async () => {
  await using chat = await startChat(lm, database.url);
  lm.script({ text: "one" }, { text: "two" });
  await ask(chat, "Chat");
  await ask(chat, "Raw", { raw: true });
  for (const query of ["?modle=x", "?model=", "?prefix="]) {
    assert.equal((await forget(chat, query)).code, "request-invalid", query);
  }
  assert.deepEqual(await forget(chat, "?model=other"), { removed: 0, pending: false });
  assert.deepEqual(await forget(chat, "?prefix=text/"), { removed: 1, pending: false });
  assert.equal((await ask(chat, "Chat")).cache, "HIT");
  assert.deepEqual(await forget(chat, "?model=deepseek-r1-distill-qwen-7b"), { removed: 1, pending: false });
  assert.equal((await statsOf(chat)).entries, 0);
});

test("with keys everyone sees and forgets their own answers, and an admin all", async () => {
  const [one, two, admin] = ["one-0123456789abcdef", "two-0123456789abcdef", "adm-0123456789abcdef"];
  const keys = `one:${one}:write,two:${two}:write,boss:${admin}:admin`;
  await using chat = await startChat(lm, database.url, { PUGMARK_API_KEYS: keys });
  const asOne = withKey(one ?? "");
  const asTwo = withKey(two ?? "");
  const asAdmin = withKey(admin ?? "");
  for (const init of [asOne, asTwo]) await ask(chat, "Whose?", {}, init);
  const seen = async (init: RequestInit) => (await statsOf(chat, "?entries=true", init)).answers.length;
  assert.deepEqual([await seen(asOne), await seen(asTwo), await seen(asAdmin)], [1, 1, 2]);
  const counted = async (init: RequestInit) => (await statsOf(chat, "", init)).models[0]?.entries;
  assert.deepEqual([await counted(asOne), await counted(asAdmin)], [1, 2]);
  assert.deepEqual(await forget(chat, "", asOne), { removed: 1, pending: false });
  assert.equal((await ask(chat, "Whose?", {}, asTwo)).cache, "HIT");
  assert.equal((await ask(chat, "Whose?", {}, asOne)).cache, "MISS");
  assert.deepEqual(await forget(chat, "", asAdmin), { removed: 2, pending: false });
});

test("only a whole answer of the model that was asked, with something in it, is kept", async () => {
  await using chat = await startChat(lm, database.url);
  for (const [prompt, reply, more] of [
    ["Cut by the limit", { text: "one two three four" }, { max_tokens: 2 }],
    ["Broken off", faults["cut-mid"], {}],
    ["An error in the middle", faults["crash-mid"], {}],
    ["Answered by another model", { text: "Yes", model: "another" }, {}],
    ["Ended by a filter", { text: "Yes", finishReason: "content_filter" }, {}],
    ["Thought, and said nothing", { thinking: "hm", text: "" }, {}],
    ["Nothing at all", { text: "" }, {}],
  ] as const) {
    // Where it is tried once more, it goes the same way.
    lm.script(() => reply);
    for (const stream of [false, true]) {
      await (await chat.post("/chat", { prompt, stream, ...more })).text();
      assert.equal((await statsOf(chat)).entries, 0, prompt);
    }
  }
  lm.script(() => ({ text: "Yes" }));
  await ask(chat, "Whole");
  assert.equal((await statsOf(chat)).entries, 1);
});

test("two servers share their answers: whole, streamed, with their age, and forgotten together", {
  skip: noRedis,
}, async () => {
  await using redis = await startRedis({ password: "pass-of-redis" });
  await using one = await startChat(lm, database.url, { REDIS_URL: redis.url });
  await using two = await startChat(lm, database.url, { REDIS_URL: redis.url });
  const ready = async (chat: TestChat) => (await statsOf(chat)).redis.state === "ready";
  for (const chat of [one, two])
    await eventually(
      () => ready(chat),
      (is) => is,
    );
  lm.script({ thinking: "hm", text: "Shared by all." });
  assert.equal((await ask(one, "Shared?")).cache, "MISS");
  const asked = lm.generations.length;
  const headers = { "cache-control": "only-if-cached" };
  const found = await eventually(
    () => ask(two, "Shared?", {}, { headers }),
    ({ cache }) => cache === "HIT",
  );
  assert.equal(found.text, "Shared by all.");
  assert.match(found.age ?? "", /^\d+$/);
  const events = await eventsOf(await two.post("/chat", { prompt: "Shared?", stream: true }));
  assert.equal(events.at(-1)?.data.reasoning, "hm");
  assert.equal(lm.generations.length, asked);
  const report = (await (await two.post("/test", {})).json()) as Loose;
  assert.deepEqual([report.services.redis.ok, report.services.redis.detail], [true, "answers"]);
  assert.match(await (await two.get("/metrics")).text(), /chat_cache_redis_ready{service="chat"} 1\n/);
  assert.equal((await forget(two)).pending, false);
  await eventually(
    () => statsOf(one),
    ({ entries }) => entries === 0,
  );
  const again = await one.post("/chat", { prompt: "Shared?" }, { headers });
  assert.equal(again.status, 504);
});

test("a Redis that is not there takes nothing from an answer", async () => {
  const REDIS_URL = `redis://:hidden@127.0.0.1:${closedPort}`;
  await using chat = await startChat(lm, database.url, { REDIS_URL });
  assert.equal((await ask(chat, "Alone?")).cache, "MISS");
  assert.equal((await ask(chat, "Alone?")).cache, "HIT");
  assert.equal((await statsOf(chat)).redis.state, "away");
  const report = await eventually(
    async () => (await (await chat.post("/test", {})).json()) as Loose,
    ({ services }) => /REFUSED/.test(services.redis.detail),
  );
  assert.deepEqual([report.ok, report.services.redis.ok], [true, false]);
  assert.doesNotMatch(JSON.stringify(report), /hidden/);
  assert.deepEqual(await forget(chat), { removed: 1, pending: true });
});
