import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { startChat, type TestChat } from "../../test/lm-studio/chat-server.ts";
import { type LmStudio, startLmStudio } from "../../test/lm-studio/lm-studio.ts";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";

let database: TestDatabase;
let lm: LmStudio;
let server: TestChat;
const home = mkdtempSync(join(tmpdir(), "pugmark-sessions-"));

before(async () => {
  database = await testDatabase();
  lm = await startLmStudio();
  server = await startChat(lm, database.url);
});
after(async () => {
  await server[Symbol.asyncDispose]();
  await lm[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
  rmSync(home, { recursive: true });
});

/** Runs `pugmark` as a user would, against the test's chat server. */
function pugmark(...args: readonly string[]): Promise<{ code: number; out: string; err: string }> {
  const { PATH = "" } = process.env;
  const env = { PATH, HOME: home, PUGMARK_HOME: home, CHAT_PORT: new URL(server.url).port };
  return new Promise((resolve) => {
    const main = join(import.meta.dirname, "main.ts");
    const child = execFile(process.execPath, [main, ...args], { env }, (error, out, err) =>
      resolve({ code: error ? Number(error.code) : 0, out, err }),
    );
    child.stdin?.end();
  });
}

test("conversations that were had are listed, shown and deleted", async () => {
  assert.deepEqual(await pugmark("sessions"), {
    code: 0,
    out: "No conversations yet; `pugmark chat` begins one.\n",
    err: "",
  });
  for (const question of ["Where is F12?", "And now?"]) {
    const { out } = await pugmark("chat", "--session", "trip", question);
    assert.equal(out, `You asked: ${question}\n`);
  }
  const { out: list } = await pugmark("sessions");
  assert.match(list, /^ID +TURNS +LAST USED +TITLE\ntrip +2 +20\d\d-\d\d-\d\d \d\d:\d\d +Where is F12\?\n$/);
  const { out: shown } = await pugmark("sessions", "show", "trip");
  assert.match(
    shown,
    /> Where is F12\?\nYou asked: Where is F12\?\n\n.*> And now\?\nYou asked: And now\?\n/s,
  );
  const { out: json } = await pugmark("sessions", "show", "trip", "--json");
  assert.equal((JSON.parse(json) as { answer: string }[])[1]?.answer, "You asked: And now?");
  assert.deepEqual(await pugmark("sessions", "delete", "trip"), {
    code: 0,
    out: "trip: deleted, with 2 interactions\n",
    err: "",
  });
  const gone = await pugmark("sessions", "show", "trip");
  assert.deepEqual([gone.code, gone.err], [1, "pugmark: You have no conversation trip.\n"]);
});

test("a wrong name or number is refused before anything is asked", async () => {
  assert.equal((await pugmark("sessions", "show", "a b")).code, 2);
  assert.equal((await pugmark("sessions", "--limit", "0")).code, 2);
  assert.equal((await pugmark("chat", "--session", "a b", "Hi")).code, 2);
});
