import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { after, before, test } from "node:test";
import { stripVTControlCharacters } from "node:util";
import { eventually, startChat, type TestChat } from "../../test/lm-studio/chat-server.ts";
import { type LmStudio, startLmStudio } from "../../test/lm-studio/lm-studio.ts";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import { type ChatOptions, chat } from "./chat.ts";
import { unread } from "./unread.fixture.ts";

let database: TestDatabase;
let lm: LmStudio;
let server: TestChat;

before(async () => {
  database = await testDatabase();
  lm = await startLmStudio();
  server = await startChat(lm, database.url, { CACHE_TTL: "0" });
});
after(async () => {
  await server[Symbol.asyncDispose]();
  await lm[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

/** A model whose first words are shown as they come: nothing of it can turn out to have been thinking. */
const unthinking = "qwen2.5-7b-instruct";

/** The command under way, with what it has printed so far. */
function start(
  question: string | undefined,
  options: ChatOptions = {},
  { tty = false, baseUrl = server.url }: { tty?: boolean; baseUrl?: string } = {},
) {
  const streams = { in: new PassThrough(), out: new PassThrough(), err: new PassThrough() };
  if (tty) for (const stream of Object.values(streams)) Object.assign(stream, { isTTY: true });
  const printed = { out: "", err: "" };
  streams.out.on("data", (data) => {
    printed.out += data;
  });
  streams.err.on("data", (data) => {
    printed.err += data;
  });
  const stop = new AbortController();
  const exit = chat(question, options, { baseUrl }, streams, stop.signal);
  const prints = (text: string) =>
    eventually(
      async () => stripVTControlCharacters(printed.out + printed.err),
      (all) => all.includes(text),
    );
  return { exit, printed, prints, stop, type: (text: string) => void streams.in.write(text), in: streams.in };
}

test("one question gets its answer, and a pipe nothing but that", async () => {
  lm.script({ thinking: "They ask.", text: "A footprint." });
  const run = start("What is a pugmark?", { system: "Be brief." });
  assert.equal(await run.exit, 0);
  assert.deepEqual(run.printed, { out: "A footprint.\n", err: "" });
  assert.deepEqual(lm.generations.at(-1)?.body.messages, [
    { role: "system", content: "Be brief." },
    { role: "user", content: "What is a pugmark?" },
  ]);
  lm.script({ thinking: "They ask.", text: "A footprint." });
  const whole = start("What is a pugmark?", { stream: false });
  assert.equal(await whole.exit, 0);
  assert.deepEqual(whole.printed, run.printed);
});

test("a terminal is shown the thinking, dimmed, unless it is to be hidden", async () => {
  const reply = { thinking: "They ask.", text: "A footprint." };
  lm.script(reply, reply, reply);
  const run = start("What?", {}, { tty: true });
  assert.equal(await run.exit, 0);
  assert.match(stripVTControlCharacters(run.printed.out), /^They ask\.\s*\n\nA footprint\.\n$/);
  assert.ok(run.printed.out.startsWith("\u001b[2m"));
  const whole = start("What?", { stream: false }, { tty: true });
  assert.equal(await whole.exit, 0);
  assert.equal(stripVTControlCharacters(whole.printed.out), "They ask.\n\nA footprint.\n");
  const hidden = start("What?", { reasoning: false }, { tty: true });
  assert.equal(await hidden.exit, 0);
  assert.equal(hidden.printed.out, "A footprint.\n");
});

test("the JSON form is the whole answer, and the question may be piped in", async () => {
  const run = start(undefined, { json: true, session: "piped" });
  run.in.end("From a file?\n");
  assert.equal(await run.exit, 0);
  const answer = JSON.parse(run.printed.out) as Record<string, unknown>;
  assert.deepEqual([answer.response, answer.session_id], ["You asked: From a file?", "piped"]);
  const nothing = start(undefined);
  nothing.in.end(" \n");
  assert.equal(await nothing.exit, 2);
  assert.match(nothing.printed.err, /^pugmark: a question is needed: /);
});

test("a conversation goes on until /new, and ends with /quit", async () => {
  const run = start(undefined, { session: "talk" }, { tty: true });
  await run.prints("Conversation talk.");
  run.type("One?\n");
  await run.prints("You asked: One?\n");
  run.type("Two?\n");
  await run.prints("You asked: Two?\n");
  assert.equal(lm.generations.at(-1)?.body.messages?.length, 3);
  run.type("/new\n");
  await run.prints("Conversation cli-");
  run.type("Three?\n");
  await run.prints("You asked: Three?\n");
  assert.equal(lm.generations.at(-1)?.body.messages?.length, 1);
  run.type("/nonsense\n");
  await run.prints("/quit  leave");
  run.type("/quit\n");
  assert.equal(await run.exit, 0);
});

test("Ctrl+C stops an answer and the model with it, clears a line, and leaves where there is neither", async () => {
  const run = start(undefined, { model: unthinking }, { tty: true });
  await run.prints("Conversation cli-");
  lm.script({ text: "one two three four", tokenDelayMs: 60_000 });
  run.type("Count?\n");
  await run.prints("one");
  run.type("\u0003");
  await run.prints("Stopped.");
  assert.equal(await lm.generations.at(-1)?.ended, "aborted");
  run.type("half a quest\u0003");
  run.type("Still there?\n");
  await run.prints("You asked: Still there?\n");
  run.type("\u0003");
  assert.equal(await run.exit, 0);
});

test("one question that is interrupted exits as a shell expects", async () => {
  lm.script({ text: "one two three", tokenDelayMs: 60_000 });
  const run = start("Count?", { model: unthinking });
  await run.prints("one");
  run.stop.abort();
  assert.equal(await run.exit, 130);
});

test("an answer that nobody reads any more ends quietly, and the model with it", async (t) => {
  const home = mkdtempSync(join(tmpdir(), "pugmark-chat-unread-"));
  t.after(() => rmSync(home, { recursive: true }));
  lm.script({ text: "one two three four", tokenDelayMs: 500 });
  const env = { PATH: process.env.PATH, PUGMARK_HOME: home, CHAT_PORT: new URL(server.url).port };
  const args = ["chat", "Count?", "--model", unthinking];
  assert.deepEqual(await unread(args, env), { code: 0, err: "" });
  assert.equal(await lm.generations.at(-1)?.ended, "aborted");
});

test("what goes wrong is one line that says what to do, also in the middle of an answer", async () => {
  const away = start("Hi", {}, { baseUrl: "http://127.0.0.1:1" });
  assert.equal(await away.exit, 1);
  assert.match(away.printed.err, /^pugmark: the station is not running: .*`npm start`\.\n$/);
  lm.script({ text: "one two three", failure: { how: "error-event", message: "Compute error.", after: 2 } });
  const broken = start("Count?", { model: unthinking });
  assert.equal(await broken.exit, 1);
  assert.equal(broken.printed.out, "one two\n");
  assert.match(broken.printed.err, /^pugmark: The model crashed in LM Studio/);
  const elsewhere = start("Hi", { json: true }, { baseUrl: lm.url });
  assert.equal(await elsewhere.exit, 1);
  assert.match(elsewhere.printed.err, /is not Pugmark's chat server; see CHAT_PORT/);
});

test("words of a model cannot steer the terminal", async () => {
  lm.script({ text: "\u001b[2Jred \u001b]0;owned\u0007alert\r\u009b31m" });
  const run = start("Hi", { model: unthinking }, { tty: true });
  assert.equal(await run.exit, 0);
  assert.doesNotMatch(run.printed.out.replaceAll("\n", ""), /\p{Cc}/u);
});

test("who loses turns of a long conversation is told, once for each", async () => {
  lm.script(() => ({ text: "Noted." }));
  const run = start(undefined, { session: "long" }, { tty: true });
  await run.prints("Conversation long.");
  for (const name of ["first", "second", "third"]) {
    run.type(`${name} ${"owl ".repeat(800)}\n`);
    await eventually(
      async () => (await server.rows()).filter(({ session_id }) => session_id === "long").length,
      (rows) => rows === ["first", "second", "third"].indexOf(name) + 1,
    );
  }
  await run.prints("The oldest turn no longer fits into the model's context and was left out.");
  run.type("/quit\n");
  assert.equal(await run.exit, 0);
});
