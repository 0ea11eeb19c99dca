// Kills the chat server, Postgres and Redis at random moments under load, and then counts: every answer that a client
// got whole is in the history once, with the words that the client got, and every line of a batch is done once.
//
//   FAULT_SEED=1 FAULT_STEPS=50 npm test -- test/gateway-kills.test.ts
import assert from "node:assert/strict";
import { randomInt, randomUUID } from "node:crypto";
import { test } from "node:test";
import { ControlClient } from "../src/process-manager/control-client.ts";
import { Random } from "../src/process-manager/faults/random.ts";
import { type LmStudio, startLmStudio } from "./lm-studio/lm-studio.ts";
import { noRedis, startRedis } from "./support/redis.ts";
import { testStation } from "./support/station.ts";

const seed = Number(process.env.FAULT_SEED ?? randomInt(2 ** 31));
const steps = Number(process.env.FAULT_STEPS ?? 50);
const clients = 6;
const lines = 250;
/** What a line takes, so that the batch lasts about as long as the kills and holds nobody up for long. */
const lineMs = 200;
/** Calls of the model at once, and so lines. */
const atOnce = 8;

test(`no kill loses an answer or repeats a line of a batch (FAULT_SEED=${seed})`, {
  skip: noRedis,
  timeout: 400_000,
}, async (t) => {
  const random = new Random(seed);
  await using lm = await startLmStudio({
    respond: ({ messages }) => {
      const question = lastOf(messages);
      return {
        text: `To ${question}`,
        ...(question.startsWith("line") ? { firstTokenDelayMs: lineMs } : {}),
      };
    },
  });
  await using redis = await startRedis();
  await using station = await testStation({
    DEEPSEEK_API_URL: lm.url,
    DEEPSEEK_CONCURRENCY: String(atOnce),
    REDIS_URL: redis.url,
    LOG_LEVEL: "warn",
  });
  await station.start("chat");
  const control = new ControlClient(station.home);
  const batch = await startBatch(station.chat);

  const whole = new Map<string, Whole>();
  let done = false;
  const load = Promise.all(
    Array.from({ length: clients }, async (_, client) => {
      for (let n = 0; !done; n += 1) {
        // A third of the questions were asked before, and come from the cache.
        const question = `question ${client} ${n % 3 === 2 ? n - 2 : n}`;
        const answer = await ask(station.chat, question, n % 2 === 1);
        if (!answer) continue;
        assert.equal(answer.text, `To ${question}`);
        assert.ok(!whole.has(answer.id), "two answers with one id");
        whole.set(answer.id, answer);
      }
    }),
  );
  // A fault of the load is told at its end; here it would end the run with another complaint.
  load.catch(() => undefined);

  const killed: Record<string, number> = {};
  try {
    for (let step = 1; step <= steps; step += 1) {
      const target = random.pick(["chat", "database", "redis"]);
      killed[target] = (killed[target] ?? 0) + 1;
      if (target === "redis") await redis.goAway().then(redis.comeBack);
      else await killService(control, target);
      const enough = whole.size + 3 + random.below(15);
      await until(
        async () => {
          if (whole.size >= enough) return true;
          await startWhatGaveUp(control);
          return false;
        },
        () => `step ${step}: ${whole.size} of ${enough} answers after ${target} was killed`,
      );
    }
  } finally {
    done = true;
  }
  await load;
  const asked = lineRequests(lm);
  t.diagnostic(`killed: ${JSON.stringify(killed)}; ${whole.size} whole answers`);
  t.diagnostic(`lines asked during the kills: ${asked}`);

  const finished = await untilBatch(station.chat, batch);
  assert.deepEqual(finished.request_counts, { total: lines, completed: lines, failed: 0 });
  const output = jsonLines<OutputLine>(
    await (await fetch(`${station.chat}/v1/files/${finished.output_file_id}/content`)).text(),
  );
  assert.deepEqual(
    output.map(({ custom_id }) => custom_id),
    Array.from({ length: lines }, (_, index) => `line ${index}`),
  );
  // Only what a killed server was asking at that moment is asked again, and answers that waited to be stored.
  const again = lineRequests(lm) - lines;
  const kills = (killed.chat ?? 0) + (killed.database ?? 0);
  t.diagnostic(`${again} lines were asked again`);
  assert.ok(again <= kills * 2 * atOnce, `${again} lines were asked again`);

  const history = await historyOf(station.chat);
  for (const { id, requestId, text } of whole.values()) {
    assert.deepEqual(history.get(requestId), [{ id, text }], `the history of ${id}`);
  }
  for (const { custom_id, response } of output) {
    const { request_id, body } = response;
    const text = `To ${custom_id}`;
    assert.equal(body.choices[0].message.content, text);
    assert.deepEqual(history.get(request_id), [{ id: request_id, text }], `the history of ${custom_id}`);
  }
  for (const [requestId, rows] of history) assert.equal(rows.length, 1, `rows of the request ${requestId}`);
});

interface Whole {
  /** Of the interaction. */
  readonly id: string;
  readonly requestId: string;
  readonly text: string;
}

/** A whole answer, or `undefined` where it broke off or was refused. */
async function ask(chat: string, question: string, streams: boolean): Promise<Whole | undefined> {
  const requestId = randomUUID();
  try {
    const response = await fetch(`${chat}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-request-id": requestId },
      body: JSON.stringify({ messages: [{ role: "user", content: question }], stream: streams }),
    });
    const body = await response.text();
    if (response.status !== 200 || (streams && !body.endsWith("data: [DONE]\n\n"))) return undefined;
    const id = response.headers.get("x-interaction-id") ?? "";
    return {
      id,
      requestId,
      text: streams ? streamedText(body) : JSON.parse(body).choices[0].message.content,
    };
  } catch {
    return undefined;
  }
}

function streamedText(body: string): string {
  const chunks = body.split("\n\n").filter((event) => event.startsWith("data: {"));
  return chunks.map((event) => JSON.parse(event.slice(6)).choices[0]?.delta.content ?? "").join("");
}

async function startBatch(chat: string): Promise<string> {
  const form = new FormData();
  const line = (index: number) => ({
    custom_id: `line ${index}`,
    method: "POST",
    url: "/v1/chat/completions",
    body: { messages: [{ role: "user", content: `line ${index}` }] },
  });
  const text = Array.from({ length: lines }, (_, index) => JSON.stringify(line(index))).join("\n");
  form.set("file", new Blob([text]), "lines.jsonl");
  form.set("purpose", "batch");
  const file = await (await fetch(`${chat}/v1/files`, { method: "POST", body: form })).json();
  const response = await fetch(`${chat}/v1/batches`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      input_file_id: (file as { id: string }).id,
      endpoint: "/v1/chat/completions",
      completion_window: "24h",
    }),
  });
  return ((await response.json()) as { id: string }).id;
}

interface Batch {
  readonly status: string;
  readonly output_file_id: string;
  readonly request_counts: object;
}

interface OutputLine {
  readonly custom_id: string;
  readonly response: {
    readonly request_id: string;
    readonly body: { readonly choices: readonly [{ readonly message: { readonly content: string } }] };
  };
}

async function untilBatch(chat: string, id: string): Promise<Batch> {
  let batch: Batch | undefined;
  await until(
    async () => {
      batch = (await (await fetch(`${chat}/v1/batches/${id}`)).json()) as Batch;
      return batch.status === "completed";
    },
    () => `the batch is ${JSON.stringify(batch)}`,
  );
  return batch as Batch;
}

/** The calls of the whole history that were answered, by request. */
async function historyOf(chat: string): Promise<Map<string, { id: string; text: string }[]>> {
  const found = new Map<string, { id: string; text: string }[]>();
  const text = await (await fetch(`${chat}/interactions/export?outcome=ok`)).text();
  type Row = { readonly id: string; readonly request_id: string; readonly response: string };
  for (const { id, request_id, response } of jsonLines<Row>(text)) {
    found.set(request_id, [...(found.get(request_id) ?? []), { id, text: response }]);
  }
  return found;
}

/** Kills the process that a service is now, as soon as it is there; does not wait for its return. */
async function killService(control: ControlClient, name: string): Promise<void> {
  await until(
    async () => {
      // The chat server answers without a database, so that one which was killed too often may be let be by now.
      await startWhatGaveUp(control);
      const service = (await control.services()).find((one) => one.name === name);
      if (service?.state !== "ready" || !service.pid) return false;
      try {
        process.kill(service.pid, "SIGKILL");
      } catch (error) {
        // It ended by itself since: a server whose database was killed may, and the next one is as good.
        if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
        throw error;
      }
      return true;
    },
    () => `${name} is not there to be killed`,
  );
}

/** More than 20 restarts within a minute, and the manager lets a service be, as it should: somebody starts it again. */
async function startWhatGaveUp(control: ControlClient): Promise<void> {
  const failed = (await control.services()).filter(({ state }) => state === "failed");
  for (const { name } of failed) await control.start(name);
}

/** How many lines of the batch the model was asked. */
function lineRequests(lm: LmStudio): number {
  return lm.generations.filter(({ body }) => lastOf(body.messages).startsWith("line")).length;
}

function jsonLines<Line>(text: string): Line[] {
  return text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}

function lastOf(messages: readonly { readonly content?: unknown }[] | undefined): string {
  return String(messages?.at(-1)?.content);
}

/** Polls with a deadline. */
async function until(holds: () => boolean | Promise<boolean>, complaint: () => string): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(complaint());
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
