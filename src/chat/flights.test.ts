import assert from "node:assert/strict";
import { request } from "node:http";
import { after, before, test } from "node:test";
import { eventsOf, eventually, startChat, type TestChat } from "../../test/lm-studio/chat-server.ts";
import { type LmStudio, startLmStudio } from "../../test/lm-studio/lm-studio.ts";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";

let database: TestDatabase;
let lm: LmStudio;
let chat: TestChat;

before(async () => {
  database = await testDatabase();
  lm = await startLmStudio({ models: [{ id: "qwen" }] });
  chat = await startChat(lm, database.url, { DEEPSEEK_MODEL: "qwen" });
});
after(async () => {
  await chat[Symbol.asyncDispose]();
  await lm[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

const path = "/v1/chat/completions";
const body = (content: string, more = {}) => ({ messages: [{ role: "user", content }], ...more });

/** Resolves once so many calls wait for an answer or get one. */
const underWay = (count: number) =>
  eventually(
    async () => (await (await chat.get("/metrics")).text()).match(/^chat_calls_under_way\{.*\} (\d+)$/m)?.[1],
    (seen) => seen === String(count),
  );

test("a hundred identical questions at once are one for the model, and a row each in the log", async () => {
  const { promise: allThere, resolve } = Promise.withResolvers<void>();
  lm.script(async () => {
    await allThere;
    return { text: "Once for all." };
  });
  const before = lm.generations.length;
  const responses = Array.from({ length: 100 }, () => chat.post(path, body("Everybody asks this")));
  await underWay(100);
  resolve();
  const answers = await Promise.all(responses);
  assert.equal(lm.generations.length - before, 1);
  const ids = new Set(answers.map(({ headers }) => headers.get("x-interaction-id")));
  assert.equal(ids.size, 100);
  const said = answers.map(({ headers }) => headers.get("x-cache")).sort();
  assert.deepEqual([said[0], said[98], said[99]], ["JOINED", "JOINED", "MISS"]);
  for (const answer of answers) {
    const { choices } = (await answer.json()) as { choices: [{ message: { content: string } }] };
    assert.equal(choices[0].message.content, "Once for all.");
  }
  const rows = (await chat.rows()).filter(({ id }) => ids.has(id));
  assert.equal(rows.length, 100);
  assert.ok(rows.every(({ response, prompt }) => response === "Once for all." && prompt[0].content));
});

test("who wants a stream of what others want whole reads it live as well", async () => {
  const { promise: go, resolve } = Promise.withResolvers<void>();
  lm.script({ text: "one two three four", heldAfter: { tokens: 2, until: go } });
  const whole = chat.post(path, body("Whole first"));
  await underWay(1);
  const late = await chat.post(path, body("Whole first", { stream: true }));
  assert.equal(late.headers.get("x-cache"), "JOINED");
  const reader = (late.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream()).getReader();
  let soFar = "";
  while (!soFar.includes("two")) soFar += (await reader.read()).value;
  resolve();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    soFar += value;
  }
  assert.match(soFar, /three[\s\S]*four[\s\S]*\[DONE\]/);
  const { choices } = (await (await whole).json()) as { choices: [{ message: { content: string } }] };
  assert.equal(choices[0].message.content, "one two three four");
});

test("who joins a stream late reads what was said so far, and then goes on live", async () => {
  const { promise: go, resolve } = Promise.withResolvers<void>();
  lm.script({ text: "one two three four", heldAfter: { tokens: 2, until: go } });
  const first = await chat.post(path, body("A stream", { stream: true }));
  const reader = (first.body as ReadableStream<Uint8Array>).getReader();
  await reader.read();
  const late = await chat.post(path, body("A stream", { stream: true }));
  assert.equal(late.headers.get("x-cache"), "JOINED");
  const lateReader = (late.body as ReadableStream<Uint8Array>).getReader();
  const decoder = new TextDecoder();
  let soFar = "";
  while (!soFar.includes("two")) soFar += decoder.decode((await lateReader.read()).value);
  assert.ok(soFar.includes("one") && !soFar.includes("three"));
  const whole = chat.post(path, body("A stream"));
  await underWay(3);
  resolve();
  let rest = "";
  for (;;) {
    const { done, value } = await lateReader.read();
    if (done) break;
    rest += decoder.decode(value);
  }
  assert.ok(rest.includes("three") && rest.includes("four") && rest.endsWith("data: [DONE]\n\n"));
  const { choices } = (await (await whole).json()) as { choices: [{ message: { content: string } }] };
  assert.equal(choices[0].message.content, "one two three four");
  await reader.cancel();
});

test("thinking without its first tag is read along from a model's first answer on", async () => {
  await using thinker = await startLmStudio({ models: [{ id: "some-r1" }], thinkingAs: "unopened" });
  await using server = await startChat(thinker, database.url, { DEEPSEEK_MODEL: "some-r1" });
  const { promise: go, resolve } = Promise.withResolvers<void>();
  thinker.script({ thinking: "hm well so", text: "Yes.", heldAfter: { tokens: 2, until: go } });
  const response = await server.post(path, body("Think", { stream: true }));
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const first = new TextDecoder().decode((await reader.read()).value);
  assert.match(first, /"reasoning_content":"hm/);
  resolve();
  for (let done = false; !done; ) ({ done } = await reader.read());
});

test("one who leaves does not stop the others, and the last one who leaves stops the model", async () => {
  lm.script({ text: "never said", firstTokenDelayMs: 60_000 });
  const before = lm.generations.length;
  const [one, two] = [new AbortController(), new AbortController()];
  const gone = [one, two].map(({ signal }) =>
    chat.post(path, body("Leaving"), { signal }).catch(({ name }: Error) => name),
  );
  await underWay(2);
  const generation = await lm.generation(before + 1);
  one.abort();
  await underWay(1);
  assert.equal(generation.aborted, false);
  two.abort();
  assert.equal(await generation.ended, "aborted");
  assert.deepEqual(await Promise.all(gone), ["AbortError", "AbortError"]);
  await eventually(
    async () => (await chat.rows()).filter(({ prompt }) => prompt[0].content === "Leaving"),
    (rows) => rows.length === 2 && rows.every(({ outcome }) => outcome === "client-gone"),
  );
  // Whoever asks after that starts anew.
  lm.script({ text: "Here." });
  assert.equal((await chat.post(path, body("Leaving"))).headers.get("x-cache"), "MISS");
});

test("who leaves before the question goes out costs the model nothing", async () => {
  const before = lm.generations.length;
  const holder = await chat.pool.connect();
  const left = new AbortController();
  try {
    await holder.query("begin; lock table interactions");
    const asked = chat.post("/chat", { prompt: "In a talk", session_id: "talk" }, { signal: left.signal });
    const gone = assert.rejects(asked, { name: "AbortError" });
    await eventually(
      async () => (await chat.pool.query("select count(*)::int as n from pg_locks where not granted")).rows,
      ([waiting]) => waiting.n > 0,
    );
    left.abort();
    await gone;
    // Its connection was closed before this was asked.
    await (await chat.get("/health")).text();
  } finally {
    await holder.query("rollback");
    holder.release();
  }
  const rows = await eventually(
    async () => (await chat.rows()).filter(({ prompt }) => prompt[0]?.content === "In a talk"),
    (seen) => seen.length === 1,
  );
  assert.equal(rows[0].outcome, "client-gone");
  assert.equal(lm.generations.length, before);
});

test("what fails fails for all who wait for it, and is not kept", async () => {
  const { promise: allThere, resolve } = Promise.withResolvers<void>();
  lm.script(async () => {
    await allThere;
    return { failure: { how: "answer", status: 400, body: { error: "too much of the context length" } } };
  });
  const both = [chat.post(path, body("Too long")), chat.post(path, body("Too long", { stream: true }))];
  await underWay(2);
  resolve();
  assert.deepEqual(
    (await Promise.all(both)).map(({ status }) => status),
    [400, 400],
  );
  lm.script({ text: "Fine." });
  assert.equal((await chat.post(path, body("Too long"))).status, 200);
});

test("who asks for a fresh answer joins nobody", async () => {
  const { promise: go, resolve } = Promise.withResolvers<void>();
  lm.script(async () => {
    await go;
    return { text: "Fresh." };
  });
  const before = lm.generations.length;
  const first = chat.post(path, body("Fresh, please"));
  await lm.generation(before + 1);
  const second = chat.post(path, body("Fresh, please"), { headers: { "cache-control": "no-cache" } });
  await lm.generation(before + 2);
  resolve();
  assert.deepEqual(
    (await Promise.all([first, second])).map(({ headers }) => headers.get("x-cache")),
    ["MISS", "BYPASS"],
  );
});

test("a reader that takes nothing holds up nobody who asked the same", async () => {
  const { promise: go, resolve } = Promise.withResolvers<void>();
  const text = Array.from({ length: 4_000 }, (_, index) => `word${index}`).join(" ");
  lm.script({ text, heldAfter: { tokens: 1, until: go } });
  const asked = JSON.stringify(body("A long story", { stream: true, max_tokens: 4096 }));
  const headers = { "content-type": "application/json" };
  const slow = request(`${chat.url}${path}`, { method: "POST", headers });
  slow.on("error", () => {});
  slow.end(asked);
  // Its answer is never read.
  const { promise: answered, resolve: begun } = Promise.withResolvers<void>();
  slow.once("response", (response) => {
    response.pause();
    begun();
  });
  await answered;
  const quick = await fetch(`${chat.url}${path}`, { method: "POST", headers, body: asked });
  assert.equal(quick.headers.get("x-cache"), "JOINED");
  resolve();
  const events = await eventsOf(quick);
  assert.equal(events.at(-1)?.data, "[DONE]");
  slow.destroy();
});
