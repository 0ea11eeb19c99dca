import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { eventsOf } from "../../test/lm-studio/chat-server.ts";
import { startLmStudio } from "../../test/lm-studio/lm-studio.ts";
import { freePort } from "../../test/support/ports.ts";
import { testDatabase } from "../../test/support/postgres.ts";

const main = fileURLToPath(new URL("main.ts", import.meta.url));

function start(env: NodeJS.ProcessEnv): ChildProcess & { readonly lines: () => string } {
  const { PATH = "", HOME = "" } = process.env;
  const child = spawn(process.execPath, [main], {
    env: { PATH, HOME, ...env },
    stdio: ["ignore", "pipe", "pipe", "pipe"],
  });
  let text = "";
  child.stderr?.on("data", (data) => {
    text += data;
  });
  return Object.assign(child, { lines: () => text });
}

test("without a database to use, it says so in one line and exits with 2", async () => {
  const child = start({});
  const [code] = await once(child, "close");
  assert.equal(code, 2);
  assert.match(child.lines(), /^DATABASE_URL is not set: .*\n$/);
});

test("started as a service it says when it is ready, and told to stop it finishes what is under way", async (t) => {
  const home = mkdtempSync(join(tmpdir(), "pugmark-chat-"));
  t.after(() => rmSync(home, { recursive: true }));
  await using database = await testDatabase();
  await using lm = await startLmStudio({ respond: () => ({ text: "slow but sure", tokenDelayMs: 100 }) });
  const port = await freePort();
  const child = start({
    DATABASE_URL: database.url,
    DEEPSEEK_API_URL: lm.url,
    CHAT_PORT: String(port),
    PUGMARK_HOME: home,
    NOTIFY_FD: "3",
    LOG_LEVEL: "fatal",
  });
  const ready = child.stdio[3];
  assert.ok(ready);
  const [said] = await once(ready, "data");
  assert.equal(String(said), "READY=1\n");
  const body = JSON.stringify({ prompt: "Hi", model: "qwen", stream: true });
  const headers = { "content-type": "application/json" };
  const response = await fetch(`http://127.0.0.1:${port}/chat`, { method: "POST", body, headers });
  const exit = once(child, "exit");
  child.kill("SIGTERM");
  const events = await eventsOf(response);
  assert.equal(events.at(-1)?.data.response, "slow but sure");
  assert.deepEqual(await exit, [0, null]);
  assert.deepEqual(readdirSync(join(home, "journal/chat")), [], "all of the journal is in the database");
});

for (const contents of ["false", "true"]) {
  test(`a call is a line in the server's log; its words, less the redacted, with CHAT_LOG_CONTENTS=true alone (${contents})`, async (t) => {
    const home = mkdtempSync(join(tmpdir(), "pugmark-chat-"));
    t.after(() => rmSync(home, { recursive: true }));
    await using database = await testDatabase();
    await using lm = await startLmStudio({ respond: () => ({ text: "answered-words secret-nest" }) });
    const port = await freePort();
    const child = start({
      DATABASE_URL: database.url,
      DEEPSEEK_API_URL: lm.url,
      CHAT_PORT: String(port),
      PUGMARK_HOME: home,
      NOTIFY_FD: "3",
      CHAT_LOG_CONTENTS: contents,
      INTERACTION_REDACT: "secret-\\w+",
    });
    let printed = "";
    child.stdout?.on("data", (text) => {
      printed += text;
    });
    const ready = child.stdio[3];
    assert.ok(ready);
    await once(ready, "data");
    const body = JSON.stringify({ prompt: "asked-words secret-roost", model: "qwen" });
    const headers = { "content-type": "application/json" };
    const response = await fetch(`http://127.0.0.1:${port}/chat`, { method: "POST", body, headers });
    const { interaction_id } = (await response.json()) as { interaction_id: string };
    child.kill("SIGTERM");
    await once(child, "close");
    const line = printed.split("\n").find((text) => text.includes("call ended")) ?? "{}";
    const { interactionId, outcome, cache, totalMs } = JSON.parse(line);
    assert.deepEqual([interactionId, outcome, cache], [interaction_id, "ok", "MISS"]);
    assert.ok(totalMs > 0);
    assert.equal(/asked-words/.test(printed), contents === "true");
    assert.equal(/answered-words/.test(printed), contents === "true");
    assert.doesNotMatch(printed, /secret-/);
  });
}
