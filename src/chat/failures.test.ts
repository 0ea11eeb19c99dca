import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { cableTo, eventsOf, eventually, startChat, type TestChat } from "../../test/lm-studio/chat-server.ts";
import { type LmStudio, startLmStudio } from "../../test/lm-studio/lm-studio.ts";
import { type FaultName, faults } from "../../test/lm-studio/reply.ts";
import { closedPort } from "../../test/support/ports.ts";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";

let database: TestDatabase;
let lm: LmStudio;
let chat: TestChat;
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

/** What each fault of LM Studio is answered with. */
const answerOf = {
  "no-models-loaded": [404, "model-not-found"],
  "model-unknown": [404, "model-not-found"],
  "load-failed": [503, "model-load-failed"],
  overflow: [400, "context-length-exceeded"],
  "overflow-newer": [400, "context-length-exceeded"],
  crash: [502, "model-crashed"],
  "crash-exit-null": [502, "model-crashed"],
  unloaded: [502, "model-crashed"],
  "channel-error": [502, "model-crashed"],
  unauthorised: [502, "upstream-auth"],
  "json-object": [400, "upstream-refused"],
  "internal-error": [502, "upstream-failed"],
  busy: [503, "upstream-busy"],
  "unexpected-endpoint": [502, "upstream-invalid"],
  html: [502, "upstream-invalid"],
  empty: [502, "upstream-invalid"],
  malformed: [502, "upstream-invalid"],
  hang: [504, "upstream-timeout"],
  reset: [502, "upstream-cut"],
  cut: [502, "upstream-cut"],
  "stall-mid": [504, "upstream-timeout"],
  "reset-mid": [502, "upstream-cut"],
  "cut-mid": [502, "upstream-cut"],
  "crash-mid": [502, "model-crashed"],
  "overflow-mid": [400, "context-length-exceeded"],
  "garbage-mid": [502, "upstream-invalid"],
} satisfies Record<FaultName, readonly [number, string]>;

const names = Object.keys(answerOf) as FaultName[];
const isLate = (name: FaultName) => "text" in faults[name] && name !== "overflow-mid";

for (const name of names) {
  const [status, code] = answerOf[name];

  test(`${name}: /chat answers ${status} ${code}, and the log has it`, async () => {
    // However often it is asked again. The breaker of each model counts its own failures.
    lm.script(() => faults[name]);
    const response = await chat.post("/chat", { prompt: name, model: name });
    const problem = (await response.json()) as { code: string; status: number };
    assert.deepEqual([response.status, problem.code], [status, code]);
    assert.equal(response.headers.get("x-cache"), "MISS");
    assert.match(
      response.headers.get("server-timing") ?? "",
      /log;dur=[\d.]+, overhead;dur=[\d.]+, total;dur=/,
    );
    const row = (await chat.rows()).find(({ id }) => id === response.headers.get("x-interaction-id"));
    assert.deepEqual([row.outcome, row.cached], [code, false]);
    assert.ok(row.error.length > 10);
    if (isLate(name)) assert.equal(row.response, "one two three");
    lm.script(() => ({ text: "Fine again." }));
    assert.equal((await chat.post("/chat", { prompt: `after ${name}`, model: name })).status, 200);
  });

  test(`${name}: a stream says so and never ends as a whole one does`, async () => {
    lm.script(() => faults[name]);
    const body = {
      messages: [{ role: "user", content: `stream ${name}` }],
      stream: true,
      model: `${name}-2`,
    };
    const response = await chat.post("/v1/chat/completions", body);
    if (isLate(name)) {
      assert.equal(response.status, 200);
      const events = await eventsOf(response);
      assert.equal(events.at(-1)?.event, "error");
      assert.equal(events.at(-1)?.data.error.code, code.replaceAll("-", "_"));
      assert.ok(events.every(({ data }) => data !== "[DONE]" && !data.choices?.[0]?.finish_reason));
      assert.equal(
        events.map(({ data }) => data.choices?.[0]?.delta.content ?? "").join(""),
        "one two three",
      );
    } else {
      assert.equal(response.status, status);
      assert.match(response.headers.get("server-timing") ?? "", /overhead;dur=/);
      const { error } = (await response.json()) as { error: { code: string } };
      assert.equal(error.code, code.replaceAll("-", "_"));
      assert.equal(response.headers.get("x-should-retry"), status >= 500 ? "false" : null);
    }
    const row = (await chat.rows()).find(({ id }) => id === response.headers.get("x-interaction-id"));
    assert.equal(row.outcome, code);
    lm.script(() => ({ text: "Fine again." }));
  });
}

test("a stream by /chat that breaks off ends with a problem", async () => {
  lm.script(faults["cut-mid"]);
  const body = { prompt: "Tell", model: "qwen", stream: true };
  const events = await eventsOf(await chat.post("/chat", body));
  assert.deepEqual(
    events.map(({ event }) => event),
    ["token", "token", "token", "error"],
  );
  assert.equal(events.at(-1)?.data.code, "upstream-cut");
});

for (const stream of [true, false]) {
  test(`an answer that does not end is broken off, also where it is held back (${stream ? "stream" : "JSON"})`, async () => {
    // The stand-in would end it well.
    lm.script(() => ({ pieces: Array(6).fill("y".repeat(1024 * 1024)) }));
    for (const [path, asked] of [
      ["/v1/chat/completions", { messages: [{ role: "user", content: `On and on ${stream}` }] }],
      ["/v1/completions", { prompt: "On and on" }],
      ["/v1/responses", { input: "On and on" }],
    ] as const) {
      const response = await chat.post(path, { ...asked, model: "qwen", stream });
      const end = (await response.text()).slice(-300);
      assert.match(end, /"code":"upstream_invalid"/, path);
      assert.match(end, /does not end/, path);
    }
    lm.script(() => ({ text: "Fine again." }));
  });
}

test("LM Studio away is 503 with what to start, and is noticed when it is back", async () => {
  await using away = await startLmStudio();
  await using server = await startChat(away, database.url);
  await away.goAway();
  const response = await server.post("/chat", { prompt: "Anyone?" });
  const problem = (await response.json()) as { code: string; detail: string };
  assert.deepEqual([response.status, problem.code], [503, "lm-studio-away"]);
  assert.match(problem.detail, /lms server start/);
  assert.match(problem.detail, /deepseek-r1-distill-qwen-7b/);
  assert.equal((await server.get("/readyz")).status, 200);
  const report = await (await server.post("/test", {})).json();
  const { ok, services } = report as { ok: boolean; services: Record<string, { ok: boolean }> };
  assert.deepEqual([ok, services.lm_studio?.ok, services.database?.ok], [false, false, true]);
  await away.comeBack();
  assert.equal((await server.post("/chat", { prompt: "Anyone?" })).status, 200);
});

test("an unknown model is 404 with those that there are", async () => {
  await using two = await startLmStudio({
    models: [{ id: "a" }, { id: "b", state: "not-loaded" }, { id: "c" }],
  });
  await using server = await startChat(two, database.url);
  const response = await server.post("/chat", { prompt: "Hi", model: "nowhere" });
  const { detail } = (await response.json()) as { detail: string };
  assert.equal(response.status, 404);
  assert.match(detail, /no model nowhere .*Loaded: a, c\. Can be loaded: b\./);
});

test("with no model loaded, and none loaded by itself, it is 503 with what to load, and the client may wait", async () => {
  const model = "deepseek-r1-distill-qwen-7b";
  await using none = await startLmStudio({ models: [{ id: model, state: "not-loaded" }], jit: false });
  await using server = await startChat(none, database.url);
  const ask = () =>
    server.post("/v1/chat/completions", { messages: [{ role: "user", content: "Hi" }], model });
  const response = await ask();
  const { error } = (await response.json()) as { error: { code: string; type: string; message: string } };
  assert.deepEqual([response.status, error.code, error.type], [503, "no_model_loaded", "server_error"]);
  assert.match(error.message, /`lms load deepseek-r1-distill-qwen-7b`/);
  assert.equal(response.headers.get("retry-after"), "5");
  none.setState(model, "loaded");
  assert.equal((await ask()).status, 200);
});

test("a wrong name is 404 also where no model is loaded, as long as LM Studio would load others", async () => {
  await using idle = await startLmStudio({ models: [{ id: "a", state: "not-loaded" }] });
  await using server = await startChat(idle, database.url);
  const response = await server.post("/chat", { prompt: "Hi", model: "nowhere" });
  const { code, detail } = (await response.json()) as { code: string; detail: string };
  assert.deepEqual([response.status, code], [404, "model-not-found"]);
  assert.match(detail, /No model is loaded\. Can be loaded: a\./);
});

test("of several LM Studios, the first that answers is asked", async () => {
  const dead = `http://127.0.0.1:${closedPort}`;
  await using server = await startChat({ url: `${dead},${lm.url}` }, database.url);
  lm.script({ text: "Here." });
  const response = await server.post("/chat", { prompt: "Anyone?" });
  assert.equal(((await response.json()) as { response: string }).response, "Here.");
});

test("LM Studio's token is sent along, and none of it is shown", async () => {
  await using locked = await startLmStudio({ token: "sk-lm-secret" });
  await using server = await startChat(locked, database.url, { DEEPSEEK_API_KEY: "sk-lm-secret" });
  assert.equal((await server.post("/chat", { prompt: "Hi" })).status, 200);
  await using without = await startChat(locked, database.url);
  const response = await without.post("/chat", { prompt: "Hi" });
  const { code, detail } = (await response.json()) as { code: string; detail: string };
  assert.equal(code, "upstream-auth");
  assert.match(detail, /DEEPSEEK_API_KEY/);
});

test("a prompt that takes long to read is waited for, as long as LM Studio itself answers", async () => {
  lm.script({ text: "At last.", firstTokenDelayMs: 350 });
  const response = await chat.post("/chat", { prompt: "A long story" });
  assert.equal(((await response.json()) as { response: string }).response, "At last.");
});

test("a first token that does not come in its time is a 504", async () => {
  lm.script({ text: "Too late.", firstTokenDelayMs: 60_000 });
  const response = await chat.post("/chat", { prompt: "An endless story" });
  assert.equal(response.status, 504);
  assert.match(((await response.json()) as { detail: string }).detail, /no token after 0.5 s/);
  assert.equal(await lm.generations.at(-1)?.ended, "aborted");
});

test("a model that is being loaded gets the longer time, and no more than that", async () => {
  const models = [{ id: "deepseek-r1-distill-qwen-7b", state: "not-loaded" }] as const;
  await using slow = await startLmStudio({ models, loadMs: 700 });
  await using server = await startChat(slow, database.url, quick);
  assert.equal((await server.post("/chat", { prompt: "Hi" })).status, 200);
  await using stuck = await startLmStudio({ models, loadMs: 60_000 });
  await using other = await startChat(stuck, database.url, quick);
  const response = await other.post("/chat", { prompt: "Hi" });
  assert.equal(response.status, 504);
  assert.match(((await response.json()) as { detail: string }).detail, /still loading/);
});

test("an LM Studio that takes connections and says nothing at all is a 504", async () => {
  await using frozen = await startLmStudio();
  await using server = await startChat(frozen, database.url, quick);
  frozen.freeze(true);
  assert.equal((await server.post("/chat", { prompt: "Hi" })).status, 504);
  assert.equal((await server.get("/v1/models")).status, 504);
  frozen.freeze(false);
  assert.equal((await server.post("/chat", { prompt: "Hi" })).status, 200);
});

test("a connection that LM Studio closed in the meantime costs nobody an answer", async () => {
  await using lazy = await startLmStudio();
  await using server = await startChat(lazy, database.url);
  await server.post("/chat", { prompt: "first" });
  // The next request goes out on the connection of the first, and finds it closed unread.
  lazy.script(faults.cut, { text: "Second try." });
  const response = await server.post("/chat", { prompt: "second" });
  assert.equal(((await response.json()) as { response: string }).response, "Second try.");
});

for (const [when, reply] of [
  ["before the first token", { text: "no", firstTokenDelayMs: 60_000 }],
  ["between two tokens", faults["stall-mid"]],
] as const) {
  for (const stream of [true, false]) {
    test(`a caller who leaves ${when} stops the model at once (${stream ? "stream" : "JSON"})`, async () => {
      await using patient = await startLmStudio({ respond: () => reply });
      await using server = await startChat(patient, database.url);
      const caller = new AbortController();
      const body = { prompt: `leave ${when} ${stream}`, model: "qwen", stream };
      const answer = server.post("/chat", body, { signal: caller.signal });
      const generation = await patient.generation(1);
      const isSpeaking = stream && "failure" in reply;
      // Leaves once the first words are there, where there are any to wait for.
      const reader = isSpeaking ? (await answer).body?.getReader() : undefined;
      await reader?.read();
      caller.abort();
      await assert.rejects(reader ? reader.read() : answer);
      assert.equal(await generation.ended, "aborted");
      const mine = (row: { prompt: { content: string }[] }) => row.prompt[0]?.content === body.prompt;
      const [row] = await eventually(
        async () => (await server.rows()).filter(mine),
        (rows) => rows.length > 0,
      );
      assert.equal(row.outcome, "client-gone");
      if (isSpeaking) assert.match(row.response, /^one/);
      assert.equal((await server.get("/livez")).status, 200);
    });
  }
}

test("with the database away questions are answered, and their log is there when it is back", async () => {
  await using cable = await cableTo(database.url);
  await using server = await startChat(lm, cable.url);
  lm.script({ text: "Before." });
  assert.equal((await server.post("/chat", { prompt: "Are you there?" })).status, 200);
  assert.equal((await server.get("/interactions")).status, 200);
  await cable.cut();
  const ids: (string | null)[] = [];
  for (const prompt of ["Are you there?", "Something new"]) {
    const response = await server.post("/chat", { prompt });
    assert.equal(response.status, 200);
    ids.push(response.headers.get("x-interaction-id"));
  }
  const messages = [{ role: "user", content: "Stream" }];
  const stream = await server.post("/v1/chat/completions", { model: "qwen", stream: true, messages });
  ids.push(stream.headers.get("x-interaction-id"));
  assert.equal((await eventsOf(stream)).at(-1)?.data, "[DONE]");
  assert.equal((await server.get("/readyz")).status, 200);
  const { ok, services } = (await (await server.post("/test", {})).json()) as {
    ok: boolean;
    services: Record<string, { ok: boolean; detail: string }>;
  };
  assert.deepEqual([ok, services.database?.ok, services.journal?.ok], [false, false, true]);
  assert.match(
    services.journal?.detail ?? "",
    /^3 interactions \(\d+ KiB of 1048576 KiB\) wait for the database/,
  );
  assert.match(await (await server.get("/metrics")).text(), /^chat_journal_records\{.*\} 3$/m);
  // What has to be read from the database is not there.
  for (const response of [
    await server.get("/interactions"),
    await server.post("/chat", { prompt: "And then?", session_id: "away" }),
  ]) {
    const { code } = (await response.json()) as { code: string };
    assert.deepEqual([response.status, code], [503, "database-away"]);
  }
  await cable.mend();
  const rows = await server.rows();
  for (const id of ids) assert.equal(rows.find((row) => row.id === id)?.outcome, "ok");
  assert.equal((await server.get("/interactions")).status, 200);
});
