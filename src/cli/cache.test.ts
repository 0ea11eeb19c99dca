import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { startChat, type TestChat } from "../../test/lm-studio/chat-server.ts";
import { type LmStudio, startLmStudio } from "../../test/lm-studio/lm-studio.ts";
import { closedPort } from "../../test/support/ports.ts";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import { loadConfig } from "../config/config.ts";
import { internalKey } from "./station.ts";

let database: TestDatabase;
let lm: LmStudio;
const home = mkdtempSync(join(tmpdir(), "pugmark-cache-"));
before(async () => {
  database = await testDatabase();
  lm = await startLmStudio();
});
after(async () => {
  await lm[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
  rmSync(home, { recursive: true });
});

/** Runs the command line in front of the chat server at this port. */
function pugmark(port: number | string, args: readonly string[], more: NodeJS.ProcessEnv = {}) {
  const { PATH = "" } = process.env;
  const env = { PATH, PUGMARK_HOME: home, CHAT_PORT: String(port), ...more };
  const main = join(import.meta.dirname, "main.ts");
  return new Promise<{ code: number; out: string; err: string }>((resolve) => {
    const child = execFile(process.execPath, [main, ...args], { env }, (_error, out, err) =>
      resolve({ code: child.exitCode ?? -1, out, err }),
    );
  });
}

const portOf = ({ url }: TestChat) => new URL(url).port;

test("the table says what is kept by model and how often it was found, and clear forgets it", async () => {
  await using chat = await startChat(lm, database.url);
  const cache = (...args: string[]) => pugmark(portOf(chat), ["cache", ...args]);
  assert.match((await cache()).out, /^No answers are kept\.\n\nFound 0 of 0 questions\.\n/);
  lm.script(() => ({ text: "Yes" }));
  for (const prompt of ["One", "Two", "One"]) await chat.post("/chat", { prompt });
  await chat.post("/chat", { prompt: "Raw", raw: true });
  const { code, out, err } = await cache();
  assert.deepEqual([code, err], [0, ""]);
  const [heading = "", row = "", , found = "", good = ""] = out.split("\n");
  assert.match(heading, /^MODEL +ANSWERS +MEMORY +GIVEN AGAIN$/);
  assert.match(row, /^deepseek-r1-distill-qwen-7b +3 +\d+ KiB +1$/);
  assert.equal(found, "Found 1 of 4 questions (25 %).");
  assert.equal(good, "An answer is good for 3600 s; memory for them: 64 MiB.");
  assert.equal(JSON.parse((await cache("--json")).out).entries, 3);
  assert.equal((await cache("clear", "--prefix", "text/")).out, "1 answer forgotten.\n");
  assert.equal((await cache("clear", "--model", "unknown")).out, "0 answers forgotten.\n");
  assert.deepEqual(JSON.parse((await cache("clear", "--json")).out), { removed: 2, pending: false });
});

test("what Redis could not be told is said", async () => {
  await using chat = await startChat(lm, database.url, { REDIS_URL: `redis://127.0.0.1:${closedPort}` });
  const { out } = await pugmark(portOf(chat), ["cache", "clear"]);
  assert.equal(out, "0 answers forgotten.\nRedis cannot be reached: it forgets as soon as it can be.\n");
  assert.match((await pugmark(portOf(chat), ["cache"])).out, /0 of them in Redis, which is away\.\n/);
});

test("a station with keys is asked with its own", async () => {
  const keys = { PUGMARK_API_KEYS: "phone:0123456789abcdef:write" };
  const { config } = loadConfig({ PUGMARK_HOME: home }, "/nowhere/.env");
  const env = { ...keys, PUGMARK_INTERNAL_KEY: internalKey(config) };
  await using chat = await startChat(lm, database.url, env);
  lm.script(() => ({ text: "Yes" }));
  const headers = { authorization: "Bearer 0123456789abcdef" };
  await chat.post("/chat", { prompt: "Mine" }, { headers });
  const { code, out } = await pugmark(portOf(chat), ["cache", "clear"], keys);
  assert.deepEqual([code, out], [0, "1 answer forgotten.\n"]);
  const refused = await pugmark(portOf(chat), ["cache"]);
  assert.equal(refused.code, 1);
  assert.match(refused.err, /^pugmark: A key is needed/);
});

test("where no chat server answers, it says what to do and exits with 3", async () => {
  const { code, out, err } = await pugmark(closedPort, ["cache"]);
  assert.deepEqual([code, out], [3, ""]);
  assert.match(err, /^pugmark: no chat server answers at http:\S+: start the station with `npm start`.*\n$/);
});

test("an empty model or prefix does not mean everything", async () => {
  for (const option of ["--model", "--prefix"]) {
    const { code, err } = await pugmark(closedPort, ["cache", "clear", option, ""]);
    assert.equal(code, 2);
    assert.match(err, /must not be empty/);
  }
});
