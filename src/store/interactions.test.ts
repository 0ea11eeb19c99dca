import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { v7 as uuidv7 } from "uuid";
import { eventually } from "../../test/lm-studio/chat-server.ts";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import { listConversations, useConversation } from "./conversations.ts";
import { newInteraction as interaction, silent } from "./interaction.fixture.ts";
import { type InteractionLog, openInteractionLog } from "./interaction-log.ts";
import type { NewInteraction } from "./interaction-record.ts";
import { keepInteractionsFor } from "./interaction-retention.ts";
import { deleteInteractions, exportInteractions, findInteraction, listInteractions } from "./interactions.ts";
import { openPool, type Pool } from "./pool.ts";

let database: TestDatabase;
let pool: Pool;
let log: InteractionLog;
const folder = mkdtempSync(join(tmpdir(), "pugmark-interactions-"));

before(async () => {
  database = await testDatabase();
  pool = openPool({ url: database.url, name: "test", role: "pugmark_app" });
  log = openInteractionLog({ pool, folder, log: silent });
});
after(async () => {
  await log[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
  await pool.end();
  await database[Symbol.asyncDispose]();
});

async function record(...interactions: NewInteraction[]): Promise<void> {
  await Promise.all(interactions.map((each) => log.record(each)));
  await log.settled();
}

test("what was recorded is found again, whole", async () => {
  const usage = {
    prompt_tokens: 3,
    completion_tokens: 4,
    completion_tokens_details: { reasoning_tokens: 1 },
  };
  const one = interaction(
    {
      sessionId: "s",
      runId: uuidv7(),
      cache: "HIT",
      upstream: "http://127.0.0.1:1234",
      queuedMs: 0.5,
      firstTokenMs: 0.25,
    },
    { reasoning: "hm", toolCalls: [{ id: "1" }], finishReason: "stop", usage },
  );
  await record(one);
  assert.deepEqual(await findInteraction(pool, one.id), {
    id: one.id,
    created_at: one.createdAt,
    station: null,
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
    cached: true,
    cache: "HIT",
    upstream: "http://127.0.0.1:1234",
    outcome: "ok",
    error: null,
    queued_ms: 0.5,
    first_token_ms: 0.25,
    processing_time_ms: 1.5,
  });
});

test("characters that Postgres cannot store are replaced, and look-alikes are kept", async () => {
  const content = "nul \u0000, half \ud83d, whole 🐆, spelt \\u0000 and \\\\ud83d";
  const promptJson = JSON.stringify([{ role: "user", content }], null, 2);
  const one = interaction({}, { text: content, promptJson });
  await record(one);
  const found = await findInteraction(pool, one.id);
  const kept = "nul \ufffd, half \ufffd, whole 🐆, spelt \\u0000 and \\\\ud83d";
  assert.equal(found?.response, kept);
  assert.deepEqual(found?.prompt, [{ role: "user", content: kept }]);
});

test("recording the same interaction twice makes one row", async () => {
  const one = interaction({}, { model: "twice" });
  await record(one, one);
  await record(one);
  assert.equal((await listInteractions(pool, { model: "twice", limit: 10 })).length, 1);
});

test("pages lead through all of them once, newest first, also within one millisecond", async () => {
  const createdAt = new Date();
  const all = Array.from({ length: 7 }, () => interaction({ createdAt }, { model: "paged" }));
  await record(...all);
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
  await record(one);
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

test("words are found in questions and answers, and repeats from the cache only where they are asked for", async () => {
  const asked = (question: string) => JSON.stringify([{ role: "user", content: question }]);
  const model = "searched";
  const pond = interaction(
    {},
    { model, promptJson: asked("Where did it roost?"), text: "At the north pond." },
  );
  const camp = interaction({}, { model, promptJson: asked("Who sleeps at the camp?"), text: "Nobody." });
  const raw = interaction({}, { model, promptJson: '"Leopards roost"', text: " never" });
  await record(pond, camp, raw, { ...interaction({ cache: "HIT" }), content: pond.content });
  const found = async (words: string, cache?: "HIT") =>
    (await listInteractions(pool, { words, cache, model, limit: 10 })).map(({ id }) => id);
  assert.deepEqual(await found("pond"), [pond.id]);
  assert.deepEqual((await found("roost")).sort(), [pond.id, raw.id].sort());
  assert.deepEqual(await found("roost -pond"), [raw.id]);
  assert.deepEqual(await found('"north pond"'), [pond.id]);
  assert.deepEqual(await found('"pond north"'), []);
  assert.deepEqual((await found("camp or leopards")).sort(), [camp.id, raw.id].sort());
  assert.deepEqual(await found("' \" ) & | !"), []);
  assert.equal((await found("pond", "HIT")).length, 1);
  assert.equal(await deleteInteractions(pool, { words: "pond", model }), 2, "who deletes means repeats too");
});

test("of a question with pictures the words are found and shown, wherever they stand", async () => {
  const model = "pictured";
  const picture = {
    type: "image_url",
    image_url: { url: `data:image/png;base64,${"iVBORw0K".repeat(10_000)}` },
  };
  const asked = (...content: object[]) => JSON.stringify([{ role: "user", content }]);
  const words = [
    { type: "text", text: "Which leopard" },
    { type: "text", text: "is this?" },
  ];
  const after = interaction({}, { model, promptJson: asked(picture, ...words), text: "" });
  const around = interaction({}, { model, promptJson: asked(words[0] ?? {}, picture, words[1] ?? {}) });
  const alone = interaction({}, { model, promptJson: asked(picture) });
  await record(after, around, alone);
  const found = await listInteractions(pool, { words: "leopard this", model, limit: 10 });
  assert.deepEqual(found.map(({ id }) => id).sort(), [after.id, around.id].sort());
  assert.deepEqual(
    found.map((row) => row.prompt_preview),
    ["Which leopard is this?", "Which leopard is this?"],
  );
  assert.deepEqual(await listInteractions(pool, { words: "image_url", model, limit: 10 }), []);
  const shown = await listInteractions(pool, { model, limit: 10 });
  assert.equal(shown.find(({ id }) => id === alone.id)?.prompt_preview, null);
});

test("texts of megabytes are stored whole, and are found by their first words", async () => {
  const letters = Array.from({ length: 400_000 }, (_, index) => `begin${index.toString(36)}`).join(" ");
  const one = interaction(
    {},
    { promptJson: JSON.stringify([{ role: "user", content: letters }]), text: letters },
  );
  await record(one);
  const [found] = await listInteractions(pool, { words: "begin0", limit: 10 });
  assert.equal(found?.id, one.id);
  assert.equal((await findInteraction(pool, one.id))?.response?.length, letters.length);
});

test("an export has every call that is meant, whole and once, newest first", async () => {
  const createdAt = new Date();
  const all = Array.from({ length: 70 }, () => interaction({ createdAt }, { model: "exported" }));
  await record(...all);
  const rows = (await Array.fromAsync(exportInteractions(pool, { model: "exported" }))).flat();
  assert.deepEqual(
    rows.map(({ id }) => id),
    all
      .map(({ id }) => id)
      .sort()
      .reverse(),
  );
  assert.equal(rows[0]?.response, "Hello");
});

test("a page of an export is bounded in bytes, however long its calls are", async () => {
  const model = "voluminous";
  const long = (content: object | string) =>
    interaction({ createdAt: new Date() }, { model, promptJson: JSON.stringify(content) });
  const owls = "owl ".repeat(1_200_000);
  const all = [
    long([{ role: "user", content: owls }]),
    long("short"),
    long(owls),
    ...Array.from({ length: 150 }, () => long([{ role: "user", content: "short" }])),
    long([{ role: "user", content: owls }]),
  ];
  await record(...all);
  const pages = await Array.fromAsync(exportInteractions(pool, { model }));
  for (const page of pages) assert.ok(JSON.stringify(page).length < 8.5 * 1024 * 1024);
  assert.deepEqual(
    pages.flat().map(({ id, prompt }) => [id, prompt]),
    all
      .toSorted((a, b) => b.createdAt.getTime() - a.createdAt.getTime() || (a.id < b.id ? 1 : -1))
      .map(({ id, content }) => [id, JSON.parse(content.promptJson)]),
  );
});

test("old interactions are deleted when their days are over, and no others", async () => {
  const ago = (days: number) =>
    interaction({ createdAt: new Date(Date.now() - days * 86_400_000) }, { model: "aged" });
  // More than one deletion takes.
  const old = Array.from({ length: 1_200 }, () => ago(31));
  const young = ago(29);
  await record(...old, young);
  for (const [id, { createdAt: at }] of Object.entries({ forgotten: ago(31), used: ago(29) }))
    await useConversation(pool, { caller: "aged", id, title: id, at });
  const isGone = async () =>
    (await listInteractions(pool, { model: "aged", limit: 2_000 })).map(({ id }) => id);
  {
    await using _retention = keepInteractionsFor({ pool, days: 30, log: silent });
    await eventually(isGone, (ids) => ids.length === 1);
  }
  assert.deepEqual(await isGone(), [young.id]);
  const conversations = await listConversations(pool, "aged", { limit: 10 });
  assert.deepEqual(
    conversations.map(({ id }) => id),
    ["used"],
  );
  assert.equal(await deleteInteractions(pool, { model: "aged" }), 1);
});
