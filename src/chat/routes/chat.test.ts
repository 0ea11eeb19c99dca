import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { v7 as uuidv7 } from "uuid";
import { eventsOf, startChat, type TestChat } from "../../../test/lm-studio/chat-server.ts";
import { type LmStudio, startLmStudio } from "../../../test/lm-studio/lm-studio.ts";
import { type TestDatabase, testDatabase } from "../../../test/support/postgres.ts";

let database: TestDatabase;
let lm: LmStudio;
let chat: TestChat;

before(async () => {
  database = await testDatabase();
  lm = await startLmStudio();
  // A user's URL of the old completions endpoint leads to the chat endpoint all the same.
  chat = await startChat({ url: `${lm.url}/v1/completions` }, database.url);
});
after(async () => {
  await chat[Symbol.asyncDispose]();
  await lm[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

// biome-ignore lint/suspicious/noExplicitAny: each test says what it expects
async function ask(body: object, headers: Record<string, string> = {}): Promise<any> {
  const response = await chat.post("/chat", body, { headers });
  assert.equal(response.status, 200, await response.clone().text());
  return response.json();
}
const rowOf = async (id: string) => (await chat.rows()).find((row) => row.id === id);
const sent = () => lm.generations.at(-1)?.body;

test("an answer comes with its thinking apart, and its row is on disk by then", async () => {
  lm.script({ thinking: "They greet me.", text: "Hello there." });
  const answer = await ask({ prompt: "Hello?", system: "Be kind.", temperature: 0.5, session_id: "first" });
  const row = await rowOf(answer.interaction_id);
  assert.equal(answer.response, "Hello there.");
  assert.equal(answer.reasoning, "They greet me.");
  assert.equal(answer.model, "deepseek-r1-distill-qwen-7b");
  assert.equal(answer.cached, false);
  assert.equal(answer.finish_reason, "stop");
  assert.equal(answer.session_id, "first");
  assert.ok(answer.usage.completion_tokens > 0);
  assert.ok(answer.usage.completion_tokens_details.reasoning_tokens > 0);
  assert.equal(lm.generations.at(-1)?.path, "/v1/chat/completions");
  const messages = [
    { role: "system", content: "Be kind." },
    { role: "user", content: "Hello?" },
  ];
  assert.deepEqual(sent()?.messages, messages);
  assert.equal(sent()?.max_tokens, 4096);
  assert.deepEqual(row.prompt, messages);
  assert.deepEqual(
    [row.response, row.reasoning, row.outcome, row.session_id, row.caller, row.route],
    ["Hello there.", "They greet me.", "ok", "first", "local", "/chat"],
  );
  assert.deepEqual(row.parameters, { model: sent()?.model, max_tokens: 4096, temperature: 0.5 });
  assert.ok(row.first_token_ms <= row.processing_time_ms);
});

test("a conversation goes on where it stopped, without the thinking", async () => {
  lm.script({ thinking: "hm", text: "The old female." }, { text: "At the river." });
  await ask({ prompt: "Who is F12?", session_id: "talk" });
  await ask({ prompt: "Where is she?", session_id: "talk", system: "Be brief." });
  assert.deepEqual(sent()?.messages, [
    { role: "system", content: "Be brief." },
    { role: "user", content: "Who is F12?" },
    { role: "assistant", content: "The old female." },
    { role: "user", content: "Where is she?" },
  ]);
  await ask({ prompt: "Where is she?", session_id: "another-talk" });
  assert.equal(sent()?.messages?.length, 1);
});

test("raw continues the prompt as it is", async () => {
  lm.script({ text: " in the hills" });
  const answer = await ask({ prompt: "Leopards live", raw: true, session_id: "talk" });
  assert.equal(answer.response, " in the hills");
  assert.equal(lm.generations.at(-1)?.path, "/v1/completions");
  assert.equal(sent()?.prompt, "Leopards live");
  assert.equal((await rowOf(answer.interaction_id)).prompt, "Leopards live");
});

test("the same question is answered from memory, says so, and is logged as well", async () => {
  lm.script({ thinking: "hm", text: "Once." });
  const first = await chat.post("/chat", { prompt: "Only once" });
  assert.equal(first.headers.get("x-cache"), "MISS");
  const second = await chat.post("/chat", { prompt: "Only once" });
  assert.equal(second.headers.get("x-cache"), "HIT");
  assert.equal(second.headers.get("age"), "0");
  const [one, two] = [await first.json(), await second.json()] as Record<string, unknown>[];
  assert.deepEqual(
    { ...two, cached: false, interaction_id: 0, processing_time_ms: 0 },
    { ...one, interaction_id: 0, processing_time_ms: 0 },
  );
  const row = await rowOf(String(two?.interaction_id));
  assert.deepEqual([row.cached, row.response, row.outcome], [true, "Once.", "ok"]);
  assert.equal(second.headers.get("x-interaction-id"), two?.interaction_id);
});

test("Cache-Control decides whether an old answer will do, and whether the new one is kept", async () => {
  const cached = async (control?: string) => {
    const headers: Record<string, string> = control ? { "cache-control": control } : {};
    return (await chat.post("/chat", { prompt: "How fresh?" }, { headers })).headers.get("x-cache");
  };
  assert.equal(await cached("no-store"), "BYPASS");
  assert.equal(await cached(), "MISS");
  assert.equal(await cached("no-cache"), "BYPASS");
  assert.equal(await cached("No-Cache"), "BYPASS");
  assert.equal(await cached("max-age=0"), "BYPASS");
  assert.equal(await cached(), "HIT");
  assert.equal(await cached("max-age=60"), "HIT");
});

test("only-if-cached never asks the model: without a kept answer it fails, and the log has that", async () => {
  const post = () =>
    chat.post("/chat", { prompt: "Known?" }, { headers: { "cache-control": "only-if-cached" } });
  const before = lm.generations.length;
  const miss = await post();
  assert.deepEqual([miss.status, ((await miss.json()) as { code: string }).code], [504, "cache-miss"]);
  assert.equal(miss.headers.get("x-cache"), "MISS");
  assert.equal(lm.generations.length, before);
  assert.equal((await rowOf(miss.headers.get("x-interaction-id") ?? "")).outcome, "cache-miss");
  await ask({ prompt: "Known?" });
  assert.equal((await post()).headers.get("x-cache"), "HIT");
});

test("the cache can be looked at and emptied", async () => {
  await ask({ prompt: "Keep this" });
  const stats = (await (await chat.get("/cache")).json()) as { entries: number; bytes: number };
  assert.ok(stats.entries > 0 && stats.bytes > 0);
  const response = await fetch(`${chat.url}/cache`, { method: "DELETE" });
  assert.deepEqual(await response.json(), { removed: stats.entries, pending: false });
  assert.equal((await ask({ prompt: "Keep this" })).cached, false);
});

test("an answer cut by max_tokens is not kept, and one that was only thinking stays empty", async () => {
  lm.script({ thinking: "on and on and on", text: "Never said." });
  const answer = await ask({ prompt: "Think", max_tokens: 4 });
  assert.deepEqual([answer.response, answer.finish_reason], ["", "length"]);
  assert.match(answer.reasoning, /^on and/);
  assert.equal((await ask({ prompt: "Think", max_tokens: 4 })).cached, false);
});

test("an answer by another model says so and is not kept", async () => {
  lm.script({ text: "I am another.", model: "qwen2.5-7b-instruct" });
  const answer = await ask({ prompt: "Who are you?" });
  assert.equal(answer.model, "qwen2.5-7b-instruct");
  assert.equal((await rowOf(answer.interaction_id)).model, "qwen2.5-7b-instruct");
  assert.equal((await ask({ prompt: "Who are you?" })).cached, false);
});

test("a stream has tokens, thinking, and at its end what the plain answer would be", async () => {
  lm.script({ thinking: "hm hm", text: "Good day." });
  const response = await chat.post("/chat", { prompt: "Stream", stream: true });
  assert.match(response.headers.get("content-type") ?? "", /^text\/event-stream/);
  assert.equal(response.headers.get("x-content-type-options"), "nosniff");
  const events = await eventsOf(response);
  const join = (name: string) =>
    events.flatMap(({ event, data }) => (event === name ? [data.text] : [])).join("");
  assert.equal(join("reasoning"), "hm hm");
  assert.equal(join("token"), "Good day.");
  const { event, data } = events.at(-1) ?? {};
  assert.equal(event, "done");
  assert.deepEqual([data.response, data.reasoning, data.cached], ["Good day.", "hm hm", false]);
  assert.equal(data.interaction_id, response.headers.get("x-interaction-id"));
  assert.equal((await rowOf(data.interaction_id)).outcome, "ok");

  const again = await eventsOf(await chat.post("/chat", { prompt: "Stream", stream: true }));
  assert.deepEqual(again.slice(0, -1), events.slice(0, -1));
  assert.equal(again.at(-1)?.data.cached, true);
  assert.equal((await ask({ prompt: "Stream" })).cached, true);
});

test("a long answer out of the cache comes whole, in however many pieces it is sent", async () => {
  const text = "Ä🐘".repeat(60_000);
  lm.script({ text, pieces: [text] });
  const whole = await ask({ prompt: "The long one" });
  assert.equal(whole.response, text);
  const stream = await chat.post("/chat", { prompt: "The long one", stream: true });
  assert.equal(stream.headers.get("x-cache"), "HIT");
  const tokens = (await eventsOf(stream)).filter(({ event }) => event === "token");
  assert.equal(tokens.map(({ data }) => data.text).join(""), text);
});

test("what is over a limit is refused with the limit", async () => {
  const refused = async (body: object) => {
    const response = await chat.post("/chat", body);
    const problem = (await response.json()) as { code: string; detail: string };
    assert.match(response.headers.get("content-type") ?? "", /^application\/problem\+json/);
    return [response.status, problem.code, problem.detail] as const;
  };
  const before = lm.requests.length;
  const [status, code, detail] = await refused({ prompt: "Hi", max_tokens: 5_000 });
  assert.deepEqual([status, code], [400, "max-tokens-exceeded"]);
  assert.match(detail, /4096/);
  for (const body of [
    {},
    { prompt: "" },
    { prompt: null },
    { prompt: "x".repeat(400_001) },
    { prompt: "Hi", max_tokens: 0 },
    { prompt: "Hi", temperature: "hot" },
    { prompt: "Hi", session_id: "a b" },
    { prompt: "Hi", promt: "Hi" },
  ]) {
    assert.deepEqual((await refused(body)).slice(0, 2), [400, "request-invalid"]);
  }
  const response = await chat.post("/chat", { prompt: "Hi" }, { headers: { "x-run-id": "7" } });
  assert.equal(response.status, 400);
  assert.equal(lm.requests.length, before);
});

test("past calls are listed newest first, page by page, and shown whole", async () => {
  const runId = uuidv7();
  for (const prompt of ["one", "two", "three"]) await ask({ prompt }, { "x-run-id": runId });
  type Page = {
    data: { id: string; prompt_preview: string; prompt?: unknown }[];
    next_cursor: string | null;
  };
  const page = async (query: string) =>
    (await (await chat.get(`/interactions?run_id=${runId}&${query}`)).json()) as Page;
  const first = await page("limit=2");
  assert.deepEqual(
    first.data.map((row) => row.prompt_preview),
    ["three", "two"],
  );
  const second = await page(`limit=2&cursor=${first.next_cursor}`);
  assert.deepEqual(
    second.data.map((row) => row.prompt_preview),
    ["one"],
  );
  assert.equal(second.next_cursor, null);
  assert.equal((await page("outcome=model-crashed")).data.length, 0);
  const whole = await chat.get(`/interactions/${first.data[0]?.id}`);
  const { prompt, response, parameters } = (await whole.json()) as Record<string, unknown>;
  assert.deepEqual(prompt, [{ role: "user", content: "three" }]);
  assert.equal(response, "You asked: three");
  assert.ok((parameters as { model: string }).model);
  assert.equal((await chat.get(`/interactions/${uuidv7()}`)).status, 404);
  for (const query of ["cursor=nonsense", "limit=0", "limit=1000", "from=yesterday", "sesion_id=x"]) {
    assert.equal((await chat.get(`/interactions?${query}`)).status, 400, query);
  }
});

test("past calls are searched, exported and deleted", async () => {
  lm.script({ text: "By the old weir." }, { text: "At the ford." });
  const session = { session_id: "history" };
  await ask({ prompt: "Where do otters fish?", ...session });
  const { interaction_id: id } = await ask({ prompt: "And herons?", ...session });
  type Row = { id: string; response: string; prompt: { content: string }[] };
  const search = async (query: string) =>
    ((await (await chat.get(`/interactions?session_id=history&${query}`)).json()) as { data: Row[] }).data;
  assert.equal((await search("q=otters")).length, 1);
  assert.equal((await search("q=otters%20fish%20-weir")).length, 0);
  assert.equal((await search("caller=local&route=/chat&cache=MISS")).length, 2);
  assert.equal((await search("caller=somebody")).length, 0);

  const exported = await chat.get("/interactions/export?session_id=history");
  assert.match(exported.headers.get("content-type") ?? "", /^application\/x-ndjson/);
  const lines = (await exported.text()).trimEnd().split("\n");
  const rows = lines.map((line) => JSON.parse(line) as Row);
  assert.deepEqual(
    rows.map(({ response, prompt }) => [prompt.at(-1)?.content, response]),
    [
      ["And herons?", "At the ford."],
      ["Where do otters fish?", "By the old weir."],
    ],
  );
  assert.equal(await (await chat.get("/interactions/export?session_id=nobody")).text(), "");

  const remove = async (path: string) => {
    const response = await fetch(chat.url + path, { method: "DELETE" });
    return [response.status, ((await response.json()) as { deleted?: number }).deleted];
  };
  assert.deepEqual(await remove(`/interactions/${id}`), [200, 1]);
  assert.deepEqual(await remove(`/interactions/${id}`), [404, undefined]);
  assert.deepEqual(await remove("/interactions"), [400, undefined]);
  assert.deepEqual(await remove("/interactions?session_id=history&q=herons"), [200, 0]);
  assert.deepEqual(await remove("/interactions?session_id=history&before=2000-01-01T00:00:00Z"), [200, 0]);
  assert.deepEqual(await remove("/interactions?session_id=history&q=otters"), [200, 1]);
  assert.deepEqual(await search(""), []);
});

test("the test says what is there and what is loaded", async () => {
  const report = (await (await chat.post("/test", {})).json()) as {
    ok: boolean;
    services: Record<string, { ok: boolean; detail: string }>;
  };
  assert.equal(report.ok, true);
  assert.match(
    report.services.lm_studio?.detail ?? "",
    /deepseek-r1-distill-qwen-7b is loaded .* 4096 tokens/,
  );
  assert.equal(report.services.database?.ok, true);
  assert.equal(report.services.journal?.ok, true);
});
