import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import OpenAI, { toFile } from "openai";
import type { Batch } from "openai/resources/batches";
import { cableTo, eventually, startChat } from "../../../test/lm-studio/chat-server.ts";
import { type LmStudio, startLmStudio } from "../../../test/lm-studio/lm-studio.ts";
import type { GenerationRequest } from "../../../test/lm-studio/reply.ts";
import { freePort } from "../../../test/support/ports.ts";
import { type TestDatabase, testDatabase } from "../../../test/support/postgres.ts";
import { openPool, type Pool, query } from "../../store/pool.ts";

const main = fileURLToPath(new URL("../main.ts", import.meta.url));
const endpoint = "/v1/chat/completions";
/** A lease, a look around for what was abandoned, and a busy machine. */
const takeoverMs = 60_000;
/** One station: what a killed server left in its journal, the next one finds. */
const home = mkdtempSync(join(tmpdir(), "pugmark-takeover-"));
let database: TestDatabase;
let pool: Pool;

before(async () => {
  database = await testDatabase();
  pool = openPool({ url: database.url, name: "takeover-test" });
});
after(async () => {
  await pool.end();
  await database[Symbol.asyncDispose]();
  rmSync(home, { recursive: true });
});

const textOf = ({ messages }: GenerationRequest) => String(messages?.at(-1)?.content);
const slowly = (lm: LmStudio, tokenDelayMs: number) =>
  lm.script((request) => ({ text: `You asked: ${textOf(request)}`, tokenDelayMs }));

/** A chat server as the station runs it: a process of its own. */
async function startServer(lm: LmStudio, databaseUrl = database.url) {
  const port = await freePort();
  const { PATH = "", HOME = "" } = process.env;
  const child = spawn(process.execPath, [main], {
    env: {
      PATH,
      HOME,
      PUGMARK_HOME: home,
      DATABASE_URL: databaseUrl,
      DEEPSEEK_API_URL: lm.url,
      DEEPSEEK_MODEL: "deepseek-r1-distill-qwen-7b",
      CHAT_PORT: String(port),
      NOTIFY_FD: "3",
      LOG_LEVEL: "fatal",
    },
    stdio: ["ignore", "ignore", "inherit", "pipe"],
  });
  await once(child.stdio[3] as NodeJS.ReadableStream, "data");
  const exited = once(child, "exit");
  return {
    client: new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: "none" }),
    end: async (signal: NodeJS.Signals) => {
      child.kill(signal);
      await exited;
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGKILL");
      await exited;
    },
  };
}

async function begin(client: OpenAI, name: string, count: number): Promise<Batch> {
  const lines = Array.from({ length: count }, (_, index) => {
    const body = { messages: [{ role: "user", content: `${name}-${index}` }] };
    return JSON.stringify({ custom_id: `${name}-${index}`, method: "POST", url: endpoint, body });
  });
  const file = await client.files.create({
    file: await toFile(Buffer.from(lines.join("\n"))),
    purpose: "batch",
  });
  return client.batches.create({ input_file_id: file.id, endpoint, completion_window: "24h" });
}

const completed = (client: OpenAI, id: string, count: number) =>
  eventually(
    () => client.batches.retrieve(id),
    ({ request_counts }) => (request_counts?.completed ?? 0) >= count,
    takeoverMs,
  );

/** Fails unless every line is in the output once, with its own answer. */
async function checkOutput(client: OpenAI, id: string, name: string, count: number): Promise<void> {
  const batch = await eventually(
    () => client.batches.retrieve(id),
    ({ status }) => status === "completed",
    takeoverMs,
  );
  assert.deepEqual(batch.request_counts, { total: count, completed: count, failed: 0 });
  const text = await (await client.files.content(batch.output_file_id ?? "")).text();
  const answers = text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line))
    .map(({ custom_id, response }) => [custom_id, response.body.choices[0].message.content]);
  const expected = Array.from({ length: count }, (_, index) => `${name}-${index}`);
  assert.deepEqual(
    answers,
    expected.map((asked) => [asked, `You asked: ${asked}`]),
  );
}

function timesAsked(...lms: readonly LmStudio[]): Map<string, number> {
  const times = new Map<string, number>();
  for (const { body } of lms.flatMap(({ generations }) => generations)) {
    times.set(textOf(body), (times.get(textOf(body)) ?? 0) + 1);
  }
  return times;
}

test("a server that is killed in the middle of a batch loses nothing, and no line with a result is asked again", async () => {
  await using lm = await startLmStudio();
  slowly(lm, 20);
  await using first = await startServer(lm);
  const { id } = await begin(first.client, "killed", 80);
  await completed(first.client, id, 15);
  await first.end("SIGKILL");
  const { rows } = await query<{ custom_id: string; state: string }>(
    pool,
    "select custom_id, state from batch_lines where batch_id = $1",
    [id],
  );
  const done = rows.filter(({ state }) => state === "done").map(({ custom_id }) => custom_id);
  assert.ok(done.length >= 15 && done.length < 80);
  assert.ok(rows.some(({ state }) => state === "running"));

  await using second = await startServer(lm);
  await checkOutput(second.client, id, "killed", 80);
  const times = timesAsked(lm);
  for (const asked of done) assert.equal(times.get(asked), 1, asked);
  // Four lines were being answered when it was killed, and the results of a few may have been on their way.
  const again = [...times].filter(([, count]) => count > 1).map(([asked]) => asked);
  assert.ok(again.length <= 8, `asked again: ${again}`);
});

test("a server that is told to stop gives its lines back at once", async () => {
  await using lm = await startLmStudio();
  slowly(lm, 50);
  await using first = await startServer(lm);
  const { id } = await begin(first.client, "stopped", 40);
  await completed(first.client, id, 4);
  await first.end("SIGTERM");
  const { rows } = await query<{ state: string }>(
    pool,
    "select distinct state from batch_lines where batch_id = $1 order by state",
    [id],
  );
  assert.deepEqual(rows, [{ state: "done" }, { state: "pending" }]);
  await using second = await startServer(lm);
  await checkOutput(second.client, id, "stopped", 40);
});

test("two servers share a batch, and ask no line twice", async () => {
  await using one = await startLmStudio();
  await using two = await startLmStudio();
  for (const lm of [one, two]) slowly(lm, 10);
  const batches = { pollMs: 50 };
  await using first = await startChat(one, database.url, {}, { batches });
  await using second = await startChat(two, database.url, {}, { batches });
  const client = new OpenAI({ baseURL: `${first.url}/v1`, apiKey: "none" });
  const { id } = await begin(client, "shared", 200);
  await checkOutput(client, id, "shared", 200);
  assert.ok(one.generations.length > 0 && two.generations.length > 0);
  assert.equal(one.generations.length + two.generations.length, 200);
  assert.ok((await second.rows()).length >= 200);
});

test("a server that was thought dead stops asking what another has taken over", async () => {
  await using one = await startLmStudio();
  await using two = await startLmStudio();
  // The first hears nothing from its model; the second is answered.
  one.script(() => ({ text: "x", failure: { how: "hang", after: 0 } }));
  const stuck = one.generation(1);
  // However late the first comes, there is still a line for it.
  two.script(async (request) => {
    await stuck;
    return { text: `You asked: ${textOf(request)}` };
  });
  await using cable = await cableTo(database.url);
  const batches = { pollMs: 50, leaseMs: 600 };
  await using first = await startChat(one, cable.url, {}, { batches });
  await using second = await startChat(two, database.url, {}, { batches: { ...batches, linesAtOnce: 1 } });
  const client = new OpenAI({ baseURL: `${second.url}/v1`, apiKey: "none" });
  const { id } = await begin(client, "dead", 40);
  const { ended } = await stuck;
  await cable.cut();
  await checkOutput(client, id, "dead", 40);
  await cable.mend();
  assert.equal(await ended, "aborted");
  assert.ok((await first.get("/livez")).ok);
});

test("while the database is away the batch waits, and goes on when it is back", async () => {
  await using lm = await startLmStudio();
  slowly(lm, 10);
  await using cable = await cableTo(database.url);
  await using chat = await startChat(lm, cable.url, {}, { batches: { pollMs: 50 } });
  const client = new OpenAI({ baseURL: `${chat.url}/v1`, apiKey: "none", maxRetries: 0 });
  const { id } = await begin(client, "wire", 60);
  await completed(client, id, 5);
  await cable.cut();
  await assert.rejects(client.batches.retrieve(id), { status: 503, code: "database_away" });
  await cable.mend();
  await checkOutput(client, id, "wire", 60);
});
