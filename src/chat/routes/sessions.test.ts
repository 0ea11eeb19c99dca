import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { cableTo, eventsOf, startChat, type TestChat } from "../../../test/lm-studio/chat-server.ts";
import { type LmStudio, startLmStudio } from "../../../test/lm-studio/lm-studio.ts";
import { type TestDatabase, testDatabase } from "../../../test/support/postgres.ts";

let database: TestDatabase;
let lm: LmStudio;
let chat: TestChat;

before(async () => {
  database = await testDatabase();
  // A small context, so that a conversation outgrows it soon.
  lm = await startLmStudio({ models: [{ id: "deepseek-r1-distill-qwen-7b", loadedContextLength: 4_096 }] });
  // Without the cache: the same words are said in several conversations.
  chat = await startChat(lm, database.url, { CACHE_TTL: "0" });
});
after(async () => {
  await chat[Symbol.asyncDispose]();
  await lm[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

// biome-ignore lint/suspicious/noExplicitAny: each test says what it expects
async function ask(session_id: string, prompt: string, more: object = {}): Promise<any> {
  const response = await chat.post("/chat", { prompt, session_id, ...more });
  assert.equal(response.status, 200, await response.clone().text());
  return response.json();
}
// biome-ignore lint/suspicious/noExplicitAny: each test says what it expects
const read = async (path: string): Promise<any> => (await chat.get(path)).json();
const sent = () => lm.generations.at(-1)?.body.messages ?? [];
const contents = () => sent().map(({ content }) => content);

/** A question of about so many tokens that begins with a name; the stand-in counts four characters as one too. */
const long = (name: string, tokens: number) => `${name} ${"owl ".repeat(tokens)}`;

test("an answer says how much of its conversation went along", async () => {
  assert.deepEqual((await ask("told", "One?")).session, { turns: 0, summarised: 0, dropped: 0 });
  assert.deepEqual((await ask("told", "Two?")).session, { turns: 1, summarised: 0, dropped: 0 });
  assert.deepEqual(contents(), ["One?", "You asked: One?", "Two?"]);
  const streamed = await chat.post("/chat", { prompt: "Three?", session_id: "told", stream: true });
  assert.equal((await eventsOf(streamed)).at(-1)?.data.session.turns, 2);
  const alone = (await (await chat.post("/chat", { prompt: "Four?" })).json()) as object;
  assert.ok(!("session" in alone));
});

test("where a conversation outgrows the context, its oldest turns are left out and counted", async () => {
  lm.script(() => ({ text: "Noted." }));
  for (const name of ["first", "second", "third"]) await ask("drop", long(name, 700));
  const answer = await ask("drop", "And now?", { max_tokens: 1_000 });
  assert.deepEqual(answer.session, { turns: 3, summarised: 0, dropped: 0 });
  // The answer may take half of the context at most, or there would be no conversation left.
  const tight = await ask("drop", "And now, with more to say?", { max_tokens: 4_096 });
  assert.deepEqual(tight.session, { turns: 3, summarised: 0, dropped: 1 });
  assert.deepEqual(
    contents().map((content) => String(content).split(" ")[0]),
    ["second", "Noted.", "third", "Noted.", "And", "Noted.", "And"],
  );
});

test("or summed up: once, by the model, kept with the conversation", async () => {
  let summaries = 0;
  lm.script((request) => {
    const isSummary = String(request.messages?.[0]?.content).startsWith("You sum up");
    if (isSummary) summaries += 1;
    return { thinking: "hm", text: isSummary ? `Summary ${summaries}.` : "Noted." };
  });
  const sum = { session_overflow: "summarise", max_tokens: 1_000 };
  for (const name of ["first", "second", "third", "fourth"]) await ask("sum", long(name, 650), sum);
  assert.equal(summaries, 0);
  const answer = await ask("sum", long("fifth", 650), { ...sum, system: "Be brief." });
  assert.equal(summaries, 1);
  assert.deepEqual(answer.session, { turns: 1, summarised: 3, dropped: 0 });
  assert.equal(
    contents()[0],
    "Be brief.\n\nWhat was said earlier in this conversation, in short:\nSummary 1.",
  );
  const asked = lm.generations.at(-2)?.body;
  assert.match(String(asked?.messages?.[1]?.content), /^User: first owl .*Assistant: Noted\..*User: third/s);
  assert.equal(asked?.max_tokens, 1_024);

  const next = await ask("sum", "Sixth?", sum);
  assert.equal(summaries, 1, "the summary is there already");
  assert.deepEqual(next.session, { turns: 2, summarised: 3, dropped: 0 });
  assert.equal((await read("/sessions/sum")).summary, "Summary 1.");

  for (const name of ["seventh", "eighth"]) await ask("sum", long(name, 650), sum);
  assert.equal(summaries, 1, "there was room for some more");
  const last = await ask("sum", long("ninth", 650), sum);
  assert.equal(summaries, 2);
  assert.deepEqual(last.session, { turns: 1, summarised: 7, dropped: 0 });
  assert.match(
    String(lm.generations.at(-2)?.body.messages?.[1]?.content),
    /^Summary so far:\nSummary 1\.\n\n/,
  );
  assert.equal((await read("/sessions/sum")).turns, 9, "a summary is no turn");
});

test("a summary goes to the model no more once a turn that it was made of is deleted from the log", async () => {
  lm.script((request) => {
    const isSummary = String(request.messages?.[0]?.content).startsWith("You sum up");
    return { text: isSummary ? "A summary of secrets." : "Noted." };
  });
  const sum = { session_overflow: "summarise", max_tokens: 1_000 };
  const first = await ask("secret", long("first", 650), sum);
  for (const name of ["second", "third", "fourth", "fifth"]) await ask("secret", long(name, 650), sum);
  assert.equal((await read("/sessions/secret")).summary, "A summary of secrets.");
  const path = `${chat.url}/interactions/${first.interaction_id}`;
  assert.equal((await fetch(path, { method: "DELETE" })).status, 200);
  const { title, summary } = await read("/sessions/secret");
  assert.deepEqual([title, summary], ["secret", null]);
  await ask("secret", "Sixth?");
  assert.ok(contents().every((content) => !String(content).includes("secrets")));
});

test("where no summary comes of it, the oldest turns are left out instead", async () => {
  lm.script((request) => {
    const isSummary = String(request.messages?.[0]?.content).startsWith("You sum up");
    return isSummary ? { failure: { how: "error-event", message: "Compute error." } } : { text: "Noted." };
  });
  const sum = { session_overflow: "summarise", max_tokens: 1_000 };
  for (const name of ["first", "second", "third", "fourth"]) await ask("failing", long(name, 650), sum);
  const answer = await ask("failing", long("fifth", 650), sum);
  assert.deepEqual(answer.session, { turns: 3, summarised: 0, dropped: 1 });
});

test("of two questions of one conversation at once neither sees the other, and no turn is lost", async () => {
  lm.script(() => ({ text: "Noted.", firstTokenDelayMs: 50 }));
  await Promise.all([ask("both", "One?"), ask("both", "Two?"), ask("both", "Three?")]);
  const { data } = await read("/sessions/both");
  assert.deepEqual(data.map(({ question }: { question: string }) => question).sort(), [
    "One?",
    "Three?",
    "Two?",
  ]);
  assert.equal((await ask("both", "Four?")).session.turns, 3);
});

test("conversations are listed with their title, read page by page, and deleted for good", async () => {
  lm.script(() => ({ text: "Noted." }));
  await ask("listed-1", `  Where did\n5515867 roost ${"last night ".repeat(20)}?`);
  for (const question of ["One?", "Two?", "Three?"]) await ask("listed-2", question);
  const first = await read("/sessions?limit=1");
  assert.deepEqual([first.data[0].id, first.data[0].title, first.data[0].turns], ["listed-2", "One?", 3]);
  const second = await read(`/sessions?limit=1&cursor=${first.next_cursor}`);
  assert.match(second.data[0].title, /^Where did 5515867 roost last night .{10,60}…$/);
  assert.ok(second.data[0].title.length <= 80);

  const turns = await read("/sessions/listed-2?limit=2");
  assert.deepEqual(
    turns.data.map(({ question, answer }: Record<string, string>) => [question, answer]),
    [
      ["One?", "Noted."],
      ["Two?", "Noted."],
    ],
  );
  const rest = await read(`/sessions/listed-2?cursor=${turns.next_cursor}`);
  assert.deepEqual([rest.data.length, rest.data[0].question, rest.next_cursor], [1, "Three?", null]);
  const removed = await fetch(`${chat.url}/sessions/listed-2`, { method: "DELETE" });
  assert.deepEqual(await removed.json(), { interactions: 3 });
  assert.equal((await chat.get("/sessions/listed-2")).status, 404);
  assert.equal((await chat.rows()).filter(({ session_id }) => session_id === "listed-2").length, 0);
  assert.equal((await ask("listed-2", "Four?")).session.turns, 0);
  for (const path of [
    "/sessions?cursor=nonsense",
    `/sessions/listed-1?cursor=${first.next_cursor}`,
    "/sessions?limit=0",
    "/sessions/a%20b",
  ]) {
    assert.equal((await chat.get(path)).status, 400, path);
  }
});

test("a question that was under way when its conversation was deleted can be deleted afterwards", async () => {
  lm.script(() => ({ text: "Noted." }));
  await ask("busy", "One?");
  const { promise: until, resolve: goOn } = Promise.withResolvers<void>();
  lm.script(() => ({ text: "Noted at last.", heldAfter: { tokens: 1, until } }));
  const underWay = lm.generation(lm.generations.length + 1);
  const asked = ask("busy", "Two?");
  await underWay;
  const remove = () => fetch(`${chat.url}/sessions/busy`, { method: "DELETE" });
  assert.deepEqual(await (await remove()).json(), { interactions: 1 });
  goOn();
  await asked;
  assert.deepEqual(await (await remove()).json(), { interactions: 1 });
  assert.ok((await chat.rows()).every(({ session_id }) => session_id !== "busy"));
  assert.equal((await remove()).status, 404);
});

test("callers see their own conversations only", async () => {
  const [ada, bob] = ["ada-ada-ada-ada-ada", "bob-bob-bob-bob-bob"];
  await using kept = await startChat(lm, database.url, {
    PUGMARK_API_KEYS: `ada:${ada}:write,bob:${bob}:admin`,
  });
  const as = (key: string) => ({ headers: { authorization: `Bearer ${key}` } });
  await kept.post("/chat", { prompt: "Mine?", session_id: "private" }, as(ada));
  const seen = async (key: string, path: string, method = "GET") =>
    (await fetch(kept.url + path, { method, ...as(key) })).status;
  assert.equal(await seen(bob, "/sessions/private"), 404);
  assert.equal(await seen(bob, "/sessions/private", "DELETE"), 404);
  assert.equal(await seen(ada, "/sessions/private"), 200);
});

test("a session needs the database, and says so before the model is asked", async () => {
  await using cable = await cableTo(database.url);
  await using cut = await startChat(lm, cable.url);
  await cable.cut();
  const asked = lm.generations.length;
  const response = await cut.post("/chat", { prompt: "Hello?", session_id: "cut" });
  assert.equal(response.status, 503);
  assert.equal(((await response.json()) as { code: string }).code, "database-away");
  assert.equal(lm.generations.length, asked);
});

test("what shapes an answer reaches the model as it is", async () => {
  const shape = {
    top_p: 0.9,
    seed: 7,
    stop: ["END"],
    response_format: { type: "json_schema", json_schema: { name: "n", schema: { type: "object" } } },
  };
  await ask("shaped", "Shape?", shape);
  const { top_p, seed, stop, response_format } = lm.generations.at(-1)?.body ?? {};
  assert.deepEqual({ top_p, seed, stop, response_format }, shape);
  for (const wrong of [
    { stop: [] },
    { top_p: 2 },
    { seed: 1.5 },
    { response_format: { type: "json_object" } },
  ]) {
    assert.equal((await chat.post("/chat", { prompt: "Hi", ...wrong })).status, 400, JSON.stringify(wrong));
  }
});

test("what is to be redacted is in no title and in no turn that is sent along, and the model is asked as it stands", async () => {
  await using redacting = await startChat(lm, database.url, { INTERACTION_REDACT: "\\d{4} \\d{4}" });
  const say = (prompt: string) => redacting.post("/chat", { prompt, session_id: "private" });
  assert.equal((await say("Call 5551 2345")).status, 200);
  assert.match(JSON.stringify(lm.generations.at(-1)?.body.messages), /5551 2345/);
  assert.equal((await say("And then?")).status, 200);
  assert.doesNotMatch(JSON.stringify(lm.generations.at(-1)?.body.messages), /5551/);
  const { title } = (await (await redacting.get("/sessions/private")).json()) as { title: string };
  assert.equal(title, "Call [redacted]");
});
