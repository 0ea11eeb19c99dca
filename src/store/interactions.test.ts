import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { v7 as uuidv7 } from "uuid";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import {
  findInteraction,
  type InteractionLog,
  listInteractions,
  type NewInteraction,
  openInteractionLog,
  turnsOfSession,
} from "./interactions.ts";
import { openPool, type Pool } from "./pool.ts";

let database: TestDatabase;
let pool: Pool;
let log: InteractionLog;

before(async () => {
  database = await testDatabase();
  pool = openPool({ url: database.url, name: "test", role: "pugmark_app" });
  log = openInteractionLog(pool);
});
after(async () => {
  await pool.end();
  await database[Symbol.asyncDispose]();
});

function interaction(change: Partial<NewInteraction> = {}): NewInteraction {
  return {
    id: uuidv7(),
    createdAt: new Date(),
    route: "/chat",
    caller: "local",
    requestId: "request-1",
    model: "m",
    promptJson: '[{"role":"user","content":"Hi"}]',
    parameters: { temperature: 0 },
    text: "Hello",
    reasoning: "",
    toolCalls: [],
    cached: false,
    outcome: "ok",
    processingTimeMs: 1.5,
    ...change,
  };
}

test("what was recorded is found again, whole", async () => {
  const one = interaction({
    sessionId: "s",
    runId: uuidv7(),
    reasoning: "hm",
    toolCalls: [{ id: "1" }],
    finishReason: "stop",
    usage: { prompt_tokens: 3, completion_tokens: 4, completion_tokens_details: { reasoning_tokens: 1 } },
    firstTokenMs: 0.25,
  });
  await log.record(one);
  assert.deepEqual(await findInteraction(pool, one.id), {
    id: one.id,
    created_at: one.createdAt,
    route: "/chat",
    caller: "local",
    request_id: "request-1",
    session_id: "s",
    run_id: one.runId,
    model: "m",
    prompt: [{ role: "user", content: "Hi" }],
    parameters: { temperature: 0 },
    response: "Hello",
    reasoning: "hm",
    tool_calls: [{ id: "1" }],
    finish_reason: "stop",
    prompt_tokens: 3,
    completion_tokens: 4,
    reasoning_tokens: 1,
    cached: false,
    outcome: "ok",
    error: null,
    first_token_ms: 0.25,
    processing_time_ms: 1.5,
  });
});

test("characters that Postgres cannot store are replaced, and look-alikes are kept", async () => {
  const content = "nul \u0000, half \ud83d, whole 🐆, spelt \\u0000 and \\\\ud83d";
  const one = interaction({ text: content, promptJson: JSON.stringify([{ role: "user", content }]) });
  await log.record(one);
  const found = await findInteraction(pool, one.id);
  const kept = "nul \ufffd, half \ufffd, whole 🐆, spelt \\u0000 and \\\\ud83d";
  assert.equal(found?.response, kept);
  assert.deepEqual(found?.prompt, [{ role: "user", content: kept }]);
});

test("recording the same interaction twice makes one row", async () => {
  const one = interaction({ model: "twice" });
  await Promise.all([log.record(one), log.record(one)]);
  assert.equal((await listInteractions(pool, { model: "twice", limit: 10 })).length, 1);
});

test("a row that the database refuses fails alone", async () => {
  const bad = interaction({ id: "no-uuid" });
  const good = [interaction({ model: "good" }), interaction({ model: "good" })];
  const results = await Promise.allSettled([...good, bad].map((each) => log.record(each)));
  assert.deepEqual(
    results.map(({ status }) => status),
    ["fulfilled", "fulfilled", "rejected"],
  );
  assert.equal((await listInteractions(pool, { model: "good", limit: 10 })).length, 2);
});

test("pages lead through all of them once, newest first, also within one millisecond", async () => {
  const createdAt = new Date();
  const all = Array.from({ length: 7 }, () => interaction({ model: "paged", createdAt }));
  await Promise.all(all.map((each) => log.record(each)));
  const seen: string[] = [];
  let after: { createdAt: Date; id: string } | undefined;
  for (let page = 0; page < 4; page += 1) {
    const rows = await listInteractions(pool, { model: "paged", limit: 2, after });
    seen.push(...rows.map(({ id }) => id));
    const last = rows.at(-1);
    after = last && { createdAt: last.created_at, id: last.id };
  }
  assert.deepEqual(
    seen,
    all
      .map(({ id }) => id)
      .sort()
      .reverse(),
  );
});

test("a filter finds by session, run, outcome and time", async () => {
  const runId = uuidv7();
  const one = interaction({
    sessionId: "filtered",
    runId,
    outcome: "model-crashed",
    createdAt: new Date(5_000),
  });
  await log.record(one);
  for (const filter of [
    { sessionId: "filtered" },
    { runId },
    { outcome: "model-crashed" },
    { from: new Date(5_000), to: new Date(5_001) },
  ]) {
    const found = await listInteractions(pool, { ...filter, limit: 10 });
    assert.deepEqual(
      found.map(({ id }) => id),
      [one.id],
    );
  }
  assert.deepEqual(await listInteractions(pool, { runId, to: new Date(5_000), limit: 10 }), []);
});

test("a session's turns are the caller's own, answered, newest within the bounds, and in order", async () => {
  const turn = (n: number, change: Partial<NewInteraction> = {}) =>
    log.record(
      interaction({
        sessionId: "talk",
        createdAt: new Date(n * 1_000),
        promptJson: JSON.stringify([
          { role: "system", content: "Be brief." },
          { role: "user", content: `q${n}` },
        ]),
        text: `a${n}`,
        ...change,
      }),
    );
  for (const n of [1, 2, 3]) await turn(n);
  await turn(4, { outcome: "client-gone", text: "a" });
  await turn(5, { caller: "somebody" });
  await turn(6, { route: "/v1/chat/completions" });
  await turn(7, { promptJson: '"raw"' });
  const session = { id: "talk", caller: "local" };
  assert.deepEqual(await turnsOfSession(pool, { ...session, limit: 2, charsMax: 100 }), [
    { question: "q2", answer: "a2" },
    { question: "q3", answer: "a3" },
  ]);
  assert.deepEqual(await turnsOfSession(pool, { ...session, limit: 9, charsMax: 7 }), [
    { question: "q3", answer: "a3" },
  ]);
});
