import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually, startChat } from "../../../test/lm-studio/chat-server.ts";
import { startLmStudio } from "../../../test/lm-studio/lm-studio.ts";
import { faults } from "../../../test/lm-studio/reply.ts";
import { testDatabase } from "../../../test/support/postgres.ts";

const runId = "019abcde-0000-7000-8000-000000000000";

test("GET /queue shows who waits and how LM Studio is, and Prometheus gets the figures", async () => {
  await using database = await testDatabase();
  const { promise: go, resolve: answer } = Promise.withResolvers<void>();
  await using lm = await startLmStudio({ respond: () => go.then(() => ({ text: "At last." })) });
  await using chat = await startChat(lm, database.url, { DEEPSEEK_CONCURRENCY: "1" });
  const status = async () => (await chat.get("/queue")).json() as Promise<Status>;
  const first = chat.post("/chat", { prompt: "first" });
  await lm.generation(1);
  const agent = chat.post("/chat", { prompt: "agent" }, { headers: { "x-run-id": runId } });
  await eventually(status, ({ queue }) => queue.length === 1);
  const person = chat.post("/chat", { prompt: "person" });
  const { upstreams, queue } = await eventually(status, (seen) => seen.queue.length === 2);
  assert.deepEqual(
    queue.waiting.map(({ position, priority, caller, estimated_wait_ms: wait }) => [
      position,
      priority,
      caller,
      wait,
    ]),
    [
      [1, "people", "local", null],
      [2, "agent", "local", null],
    ],
  );
  const [upstream] = upstreams;
  assert.deepEqual([upstream?.url, upstream?.healthy, upstream?.active], [lm.url, true, 1]);
  assert.deepEqual(
    upstream?.models.map(({ model, slots, active, breaker }) => [model, slots, active, breaker]),
    [["deepseek-r1-distill-qwen-7b", 1, 1, "closed"]],
  );
  const metrics = await (await chat.get("/metrics")).text();
  assert.match(metrics, /chat_queue_length\{priority="people",service="chat"\} 1/);
  assert.match(metrics, /chat_queue_length\{priority="batch",service="chat"\} 0/);
  assert.match(metrics, /chat_upstream_active\{upstream="http:[^"]+",service="chat"\} 1/);
  answer();
  for (const response of await Promise.all([first, agent, person])) assert.equal(response.status, 200);
  assert.equal((await status()).queue.length, 0);
  const order = lm.generations.map(({ body }) => body.messages?.at(-1)?.content);
  assert.deepEqual(order, ["first", "person", "agent"]);
});

test("GET /queue says which model is left alone and why, and whoever asks it is told when to come back", async () => {
  await using database = await testDatabase();
  await using lm = await startLmStudio({ respond: () => faults["internal-error"] });
  await using chat = await startChat(lm, database.url);
  let asked = 0;
  const ask = () => {
    asked += 1;
    return chat.post("/chat", { prompt: `${asked}` });
  };
  // On a slow machine a second may pass in between, and one question tries the model again.
  const refused = await eventually(ask, ({ status }) => status === 503);
  assert.match(refused.headers.get("retry-after") ?? "", /^[1-9]\d*$/);
  assert.equal(lm.generations.length, asked - 1);
  const { upstreams } = (await (await chat.get("/queue")).json()) as Status;
  const [model] = upstreams[0]?.models ?? [];
  assert.equal(model?.failures, lm.generations.length);
  assert.match(model?.last_failure ?? "", /Internal Server Error/);
  assert.match(await (await chat.get("/metrics")).text(), /chat_breaker_state\{[^}]*qwen-7b"[^}]*\} [12]/);
});

test("whoever is refused before anything was tried is not told to stay away by OpenAI's clients", async () => {
  await using database = await testDatabase();
  await using lm = await startLmStudio({ respond: () => faults["internal-error"] });
  await using chat = await startChat(lm, database.url);
  let asked = 0;
  const ask = () => {
    asked += 1;
    return chat.post("/v1/chat/completions", { messages: [{ role: "user", content: `${asked}` }] });
  };
  const tried = await ask();
  assert.equal(tried.headers.get("x-should-retry"), "false");
  const refused = await eventually(ask, ({ status }) => status === 503);
  assert.match(refused.headers.get("retry-after") ?? "", /^[1-9]\d*$/);
  assert.equal(refused.headers.get("x-should-retry"), null);
});

interface Status {
  readonly upstreams: readonly {
    readonly url: string;
    readonly healthy: boolean;
    readonly active: number;
    readonly models: readonly {
      readonly model: string;
      readonly slots: number;
      readonly active: number;
      readonly breaker: string;
      readonly failures?: number;
      readonly last_failure?: string;
    }[];
  }[];
  readonly queue: {
    readonly length: number;
    readonly waiting: readonly {
      readonly position: number;
      readonly priority: string;
      readonly caller: string;
      readonly estimated_wait_ms: number | null;
    }[];
  };
}
