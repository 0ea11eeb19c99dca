import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { eventually } from "../../test/lm-studio/chat-server.ts";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import {
  deleteConversationsBefore,
  findConversation,
  keepSummary,
  listConversations,
  listTurns,
  newestTurns,
  removeConversation,
  type TurnPlace,
  useConversation,
} from "./conversations.ts";
import { newInteraction, silent } from "./interaction.fixture.ts";
import { type InteractionLog, openInteractionLog } from "./interaction-log.ts";
import type { NewInteraction } from "./interaction-record.ts";
import { deleteInteraction, deleteInteractions, findInteraction, listInteractions } from "./interactions.ts";
import { openPool, type Pool, transaction } from "./pool.ts";

let database: TestDatabase;
let pool: Pool;
let log: InteractionLog;
const folder = mkdtempSync(join(tmpdir(), "pugmark-conversations-"));

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

/** Records a turn that was asked at second `n` and answered a second later; gives its place. */
async function turn(
  sessionId: string,
  n: number,
  { text, ...change }: Partial<NewInteraction> & { readonly text?: string } = {},
) {
  const messages = [
    { role: "system", content: "Be brief." },
    { role: "user", content: `q${n}` },
  ];
  const interaction = newInteraction(
    { sessionId, createdAt: new Date(n * 1_000), processingTimeMs: 1_000, ...change },
    { promptJson: JSON.stringify(messages), text: text ?? `a${n}` },
  );
  await log.record(interaction);
  await log.settled();
  return {
    id: interaction.id,
    answered_at: new Date(interaction.createdAt.getTime() + interaction.processingTimeMs),
  };
}
const key = (id: string) => ({ caller: "local", id });
const bounds = { after: undefined, turnsMax: 10, charsMax: 1_000 };
const questions = (turns: readonly { question: string }[]) => turns.map(({ question }) => question);

test("a conversation's turns are the caller's own, answered, newest within the bounds, and in order", async () => {
  for (const n of [1, 2, 3]) await turn("talk", n);
  await turn("talk", 4, { outcome: "client-gone", text: "a" });
  await turn("talk", 5, { caller: "somebody" });
  await turn("talk", 6, { route: "/v1/chat/completions" });
  await turn("talk", 7, { text: "" });
  const all = await newestTurns(pool, key("talk"), bounds);
  assert.deepEqual(
    all.turns.map(({ question, answer }) => [question, answer]),
    [
      ["q1", "a1"],
      ["q2", "a2"],
      ["q3", "a3"],
    ],
  );
  assert.equal(all.total, 3);
  const few = await newestTurns(pool, key("talk"), { ...bounds, turnsMax: 2 });
  assert.deepEqual([questions(few.turns), few.total], [["q2", "q3"], 3]);
  const short = await newestTurns(pool, key("talk"), { ...bounds, charsMax: 7 });
  assert.deepEqual([questions(short.turns), short.total], [["q3"], 3]);
  const none = await newestTurns(pool, key("nobody's"), bounds);
  assert.deepEqual(none, { turns: [], total: 0 });
});

test("turns stand in the order in which they were answered, and places lead through them", async () => {
  const late = await turn("order", 1, { processingTimeMs: 9_000 });
  const places = [await turn("order", 2), await turn("order", 3), late];
  assert.deepEqual(questions((await newestTurns(pool, key("order"), bounds)).turns), ["q2", "q3", "q1"]);
  const after = await newestTurns(pool, key("order"), { ...bounds, after: places[0] });
  assert.deepEqual([questions(after.turns), after.total], [["q3", "q1"], 3]);
  const seen: string[] = [];
  let place: (typeof places)[number] | undefined;
  for (let page = 0; page < 3; page += 1) {
    const rows = await listTurns(pool, key("order"), { after: place, limit: 1 });
    seen.push(...questions(rows));
    place = rows[0];
  }
  assert.deepEqual(seen, ["q2", "q3", "q1"]);
});

test("a conversation is begun once and keeps its title; its summary only ever reaches further", async () => {
  const use = (title: string, second: number) =>
    useConversation(pool, { ...key("begun"), title, at: new Date(second * 1_000) });
  assert.equal(await use("First words", 1), undefined);
  assert.equal(await use("Later words", 5), undefined);
  await use("An earlier request that was slow", 3);
  const [one, two] = [await turn("begun", 1), await turn("begun", 2)];
  const ofTwo = { before: undefined, turnIds: [one.id, two.id] };
  await keepSummary(pool, key("begun"), { text: "Of two.", until: two, turns: 2 }, ofTwo);
  const ofOne = { before: undefined, turnIds: [one.id] };
  await keepSummary(pool, key("begun"), { text: "Of one.", until: one, turns: 1 }, ofOne);
  assert.deepEqual(await use("Later words", 6), { text: "Of two.", until: two, turns: 2 });
  assert.deepEqual(await findConversation(pool, key("begun")), {
    id: "begun",
    title: "First words",
    created_at: new Date(1_000),
    last_used_at: new Date(6_000),
    turns: 2,
    summary: "Of two.",
  });
});

test("what a conversation made of a turn that is deleted goes with it, and with the last turn the conversation", async () => {
  const one = key("forgetful");
  await useConversation(pool, { ...one, title: "q1", at: new Date(1_000) });
  const [first, second, third] = [await turn(one.id, 1), await turn(one.id, 3), await turn(one.id, 5)];
  const summary = { text: "Of two.", until: second, turns: 2 };
  const made = { before: undefined, turnIds: [first.id, second.id] };
  const seen = async () => {
    const found = await findConversation(pool, one);
    return found && [found.title, found.summary, found.turns];
  };
  await keepSummary(pool, one, summary, made);
  assert.deepEqual(await seen(), ["q1", "Of two.", 3]);
  assert.ok(await deleteInteraction(pool, second.id));
  assert.deepEqual(await seen(), ["q1", null, 2]);
  assert.equal(await useConversation(pool, { ...one, title: "q9", at: new Date(9_000) }), undefined);
  await keepSummary(pool, one, { ...summary, until: first, turns: 1 }, { ...made, turnIds: [first.id] });
  assert.equal(await deleteInteractions(pool, { sessionId: one.id, to: new Date(2_000) }), 1);
  assert.deepEqual(await seen(), ["forgetful", null, 1]);
  assert.ok(await deleteInteraction(pool, third.id));
  assert.equal(await seen(), undefined);
});

test("a summary that was being made when a turn in it was deleted is not kept", async () => {
  const one = key("overtaken");
  const use = () => useConversation(pool, { ...one, title: "q1", at: new Date() });
  await use();
  const [first, second, third] = [await turn(one.id, 1), await turn(one.id, 3), await turn(one.id, 5)];
  const of = (text: string, until: TurnPlace) => ({ text, until, turns: 2 });
  await deleteInteraction(pool, first.id);
  const ofFirst = { before: undefined, turnIds: [first.id, second.id] };
  await keepSummary(pool, one, of("Of the first.", second), ofFirst);
  assert.equal(await use(), undefined);

  // One made of an earlier summary, which is gone with a turn of it.
  const before = of("Earlier.", second);
  await keepSummary(pool, one, before, { before: undefined, turnIds: [second.id] });
  await deleteInteraction(pool, second.id);
  await keepSummary(pool, one, of("Of the earlier.", third), { before, turnIds: [third.id] });
  assert.equal(await use(), undefined);

  // While the deletion is under way.
  const fourth = await turn(one.id, 7);
  const keeping = transaction(pool, async (client) => {
    await client.query("delete from interactions where id = $1", [fourth.id]);
    await client.query("select from conversations where id = $1 for update", [one.id]);
    const kept = keepSummary(pool, one, of("Of the fourth.", fourth), {
      before: undefined,
      turnIds: [third.id, fourth.id],
    });
    const waiting = `select from pg_locks where not granted
      and pid in (select pid from pg_stat_activity where datname = current_database())`;
    await eventually(async () => (await pool.query(waiting)).rowCount, Boolean);
    return { kept };
  });
  await (await keeping).kept;
  assert.equal(await use(), undefined);
});

test("conversations are listed page by page, the last used first, each caller's own", async () => {
  const caller = "lister";
  for (const [id, second] of [
    ["a", 1],
    ["c", 2],
    ["b", 2],
  ] as const) {
    await useConversation(pool, { caller, id, title: id, at: new Date(second * 1_000) });
  }
  await useConversation(pool, { caller: "other", id: "d", title: "d", at: new Date() });
  const seen: string[] = [];
  let after: { id: string; last_used_at: Date } | undefined;
  for (let page = 0; page < 4; page += 1) {
    const rows = await listConversations(pool, caller, { after, limit: 1 });
    seen.push(...rows.map(({ id }) => id));
    after = rows[0] ?? after;
  }
  assert.deepEqual(seen, ["c", "b", "a"]);
});

test("a deleted conversation is gone with every interaction of it, and nobody else's", async () => {
  await useConversation(pool, { ...key("gone"), title: "t", at: new Date() });
  await turn("gone", 1);
  await turn("gone", 2, { route: "/chat/summary" });
  await turn("gone", 3, { outcome: "client-gone" });
  await turn("gone", 4, { caller: "somebody" });
  assert.equal(await removeConversation(pool, key("gone")), 3);
  assert.equal(await removeConversation(pool, key("gone")), undefined);
  assert.equal(await findConversation(pool, key("gone")), undefined);
  const { rows } = await pool.query("select caller from interactions where session_id = 'gone'");
  assert.deepEqual(rows, [{ caller: "somebody" }]);
});

test("conversations and calls of another station are nobody's here, whatever its callers are called", async () => {
  const place = await turn("shared", 1);
  await useConversation(pool, { ...key("shared"), title: "Ours", at: new Date(2_000) });
  const theirs = randomUUID();
  await pool.query("update interactions set station_id = $2 where id = $1", [place.id, theirs]);
  await pool.query(
    `insert into conversations (caller, id, title, created_at, last_used_at, station_id)
     values ('local', 'shared', 'Theirs', now(), now(), $1), ('local', 'theirs', 'Theirs', now(), now(), $1)`,
    [randomUUID()],
  );
  assert.deepEqual(await newestTurns(pool, key("shared"), bounds), { turns: [], total: 0 });
  assert.deepEqual(await listTurns(pool, key("shared"), { after: undefined, limit: 10 }), []);
  assert.equal((await findConversation(pool, key("shared")))?.title, "Ours");
  assert.equal(await findConversation(pool, key("theirs")), undefined);
  const listed = await listConversations(pool, "local", { limit: 100 });
  assert.ok(listed.every(({ title }) => title !== "Theirs"));
  assert.equal((await findInteraction(pool, place.id))?.station, theirs);
  assert.deepEqual(await listInteractions(pool, { sessionId: "shared", limit: 10 }), []);
  assert.equal(await removeConversation(pool, key("theirs")), undefined);
  assert.equal(await removeConversation(pool, key("shared")), 0);
  await deleteConversationsBefore(pool, new Date(Date.now() + 60_000));
  assert.equal(await deleteInteractions(pool, { sessionId: "shared" }), 0);
  assert.equal(await deleteInteraction(pool, place.id), false);
  const { rows } = await pool.query(
    "select count(*)::int as count from conversations where title = 'Theirs'",
  );
  assert.deepEqual(rows, [{ count: 2 }]);
});
