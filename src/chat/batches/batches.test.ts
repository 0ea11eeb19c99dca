import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI, { toFile } from "openai";
import type { Batch } from "openai/resources/batches";
import { eventually, startChat, type TestChat } from "../../../test/lm-studio/chat-server.ts";
import { type LmStudio, startLmStudio } from "../../../test/lm-studio/lm-studio.ts";
import type { GenerationRequest, Reply } from "../../../test/lm-studio/reply.ts";
import { faults } from "../../../test/lm-studio/reply.ts";
import { type TestDatabase, testDatabase } from "../../../test/support/postgres.ts";
import { createBatch } from "../../store/batches.ts";
import { type Client, openPool, query, transaction } from "../../store/pool.ts";

let database: TestDatabase;
let lm: LmStudio;
let chat: TestChat;
let client: OpenAI;
let clockMs = 0;
const endpoint = "/v1/chat/completions";
const settings = { pollMs: 50, leaseMs: 1_000 };

before(async () => {
  database = await testDatabase();
  lm = await startLmStudio({ models: [{ id: "qwen2.5-7b-instruct" }] });
  const clock = () => Date.now() + clockMs;
  chat = await startChat(lm, database.url, {}, { batches: settings, clock });
  client = new OpenAI({ baseURL: `${chat.url}/v1`, apiKey: "none" });
});
after(async () => {
  await chat[Symbol.asyncDispose]();
  await lm[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
});

const textOf = ({ messages, prompt }: GenerationRequest) => String(messages?.at(-1)?.content ?? prompt);
const echo = (request: GenerationRequest): Reply => ({ text: `You asked: ${textOf(request)}` });

function line(id: string, content = id, more: object = {}): string {
  const body = { model: "qwen2.5-7b-instruct", messages: [{ role: "user", content }], ...more };
  return JSON.stringify({ custom_id: id, method: "POST", url: endpoint, body });
}

async function upload(lines: readonly string[] | string): Promise<string> {
  const text = typeof lines === "string" ? lines : lines.join("\n");
  const file = await client.files.create({ file: await toFile(Buffer.from(text)), purpose: "batch" });
  return file.id;
}

async function begin(lines: readonly string[] | string, more: object = {}): Promise<Batch> {
  const input_file_id = await upload(lines);
  return client.batches.create({ input_file_id, endpoint, completion_window: "24h", ...more });
}

const when = (id: string, isIt: (batch: Batch) => boolean) =>
  eventually(() => client.batches.retrieve(id), isIt);
const is =
  (...statuses: string[]) =>
  (batch: Batch) =>
    statuses.includes(batch.status);
const ended = (id: string) => when(id, is("completed", "failed", "expired", "cancelled"));

// biome-ignore lint/suspicious/noExplicitAny: each test says what it expects
async function linesOf(fileId: string | null | undefined): Promise<any[]> {
  if (!fileId) return [];
  const text = await (await client.files.content(fileId)).text();
  return text
    .trimEnd()
    .split("\n")
    .map((each) => JSON.parse(each));
}

async function asOwner(statements: string): Promise<void> {
  const pool = openPool({ url: database.url, name: "owner" });
  await query(pool, statements).finally(() => pool.end());
}

const idsOf = (lines: readonly { custom_id: string }[]) => lines.map(({ custom_id }) => custom_id);
const asked = (since = 0) => lm.generations.slice(since).map(({ body }) => textOf(body));

test("a batch goes its whole way, as the official client sees it", async () => {
  lm.script(echo);
  const created = await begin([line("a"), "", line("b"), line("c", "refused", { max_tokens: 999_999 })], {
    metadata: { job: "nightly" },
  });
  assert.match(created.id, /^batch_[0-9a-f]{32}$/);
  assert.deepEqual(
    [created.object, created.status, created.endpoint, created.completion_window, created.errors],
    ["batch", "validating", endpoint, "24h", null],
  );
  assert.equal(created.expires_at, created.created_at + 86_400);
  const done = await ended(created.id);
  assert.deepEqual([done.status, done.model], ["completed", "qwen2.5-7b-instruct"]);
  assert.deepEqual(done.request_counts, { total: 3, completed: 2, failed: 1 });
  assert.deepEqual(done.metadata, { job: "nightly" });
  assert.ok(done.in_progress_at && done.finalizing_at && done.completed_at);
  assert.deepEqual([done.failed_at, done.expired_at, done.cancelled_at], [null, null, null]);
  assert.ok(done.usage && done.usage.output_tokens > 0);
  assert.equal(done.usage.total_tokens, done.usage.input_tokens + done.usage.output_tokens);

  const output = await linesOf(done.output_file_id);
  assert.deepEqual(idsOf(output), ["a", "b"]);
  const [{ id, response, error }] = output;
  assert.match(id, /^batch_req_[0-9a-f]{32}$/);
  assert.deepEqual([response.status_code, error], [200, null]);
  assert.equal(response.body.object, "chat.completion");
  assert.equal(response.body.choices[0].message.content, "You asked: a");
  const logged = (await chat.rows()).find((row) => row.id === response.request_id);
  assert.deepEqual([logged.route, logged.session_id, logged.response], [endpoint, done.id, "You asked: a"]);

  const [refused, ...others] = await linesOf(done.error_file_id);
  assert.deepEqual(others, []);
  assert.deepEqual([refused.custom_id, refused.response.status_code, refused.error], ["c", 400, null]);
  assert.equal(refused.response.body.error.code, "max_tokens_exceeded");
  const file = await client.files.retrieve(done.output_file_id ?? "");
  assert.deepEqual([file.purpose, file.filename], ["batch_output", `${done.id}_output.jsonl`]);
  assert.equal((await query(chat.pool, "select from batch_lines")).rows.length, 0);
});

test("a batch may continue raw prompts, name no model, and give its files a time", async () => {
  lm.script(() => ({ text: "and on", model: "deepseek-r1-distill-qwen-7b" }));
  const text = JSON.stringify({
    custom_id: "t",
    method: "POST",
    url: "/v1/completions",
    body: { prompt: "On" },
  });
  const input_file_id = await upload(`\ufeff${text}\r\n`);
  const { id } = await client.batches.create({
    input_file_id,
    endpoint: "/v1/completions",
    completion_window: "24h",
    output_expires_after: { anchor: "created_at", seconds: 3600 },
  });
  const done = await ended(id);
  assert.deepEqual([done.status, done.error_file_id], ["completed", null]);
  assert.equal(done.model, "deepseek-r1-distill-qwen-7b");
  const [{ response }] = await linesOf(done.output_file_id);
  assert.deepEqual([response.body.object, response.body.choices[0].text], ["text_completion", "and on"]);
  const file = await client.files.retrieve(done.output_file_id ?? "");
  assert.equal(file.expires_at, file.created_at + 3600);
});

test("a batch may embed, and ask for responses", async () => {
  const run = async (url: string, body: object) => {
    const text = JSON.stringify({ custom_id: "x", method: "POST", url, body });
    const input_file_id = await upload(text);
    const request = { input_file_id, endpoint: url as "/v1/embeddings", completion_window: "24h" as const };
    const done = await ended((await client.batches.create(request)).id);
    assert.deepEqual(done.request_counts, { total: 1, completed: 1, failed: 0 });
    return (await linesOf(done.output_file_id))[0].response.body;
  };
  const model = "qwen2.5-7b-instruct";
  const floats = await run("/v1/embeddings", { model, input: ["a gull"] });
  assert.equal(typeof floats.data[0].embedding[0], "number");
  const base64 = await run("/v1/embeddings", { model, input: ["a gull"], encoding_format: "base64" });
  assert.equal(typeof base64.data[0].embedding, "string");
  lm.script(() => ({ text: "a reply" }));
  const response = await run("/v1/responses", { model, input: "Say something" });
  assert.equal(response.object, "response");
});

test("input that is wrong fails the batch before a model is asked, with every line that is", async () => {
  const before = lm.generations.length;
  const edit = (change: object) => JSON.stringify({ ...JSON.parse(line("x")), ...change });
  const wrong: [string, string][] = [
    ["{oops", "invalid_json_line"],
    ["[]", "invalid_json_line"],
    [edit({ custom_id: undefined }), "missing_required_parameter"],
    [edit({ custom_id: "" }), "invalid_custom_id"],
    [edit({ custom_id: "\0" }), "invalid_custom_id"],
    [edit({ custom_id: "x".repeat(513) }), "invalid_custom_id"],
    [edit({ custom_id: "m", method: "GET" }), "invalid_method"],
    [edit({ custom_id: "u", url: "/v1/completions" }), "invalid_url"],
    [edit({ custom_id: "b", body: "text" }), "invalid_body"],
    [edit({ custom_id: "n", body: { model: 7 } }), "invalid_body"],
    [edit({ custom_id: "z", body: { model: "a\0b" } }), "invalid_body"],
    [edit({ custom_id: "s", body: { model: "a\ud800" } }), "invalid_body"],
    [line("good"), "duplicate_custom_id"],
    [line("other", "x", { model: "another" }), "mismatched_model"],
  ];
  const failed = await ended((await begin([line("good"), ...wrong.map(([text]) => text)])).id);
  assert.deepEqual([failed.status, failed.request_counts?.total], ["failed", 0]);
  assert.ok(failed.failed_at);
  assert.deepEqual(
    failed.errors?.data?.map(({ code, line }) => [code, line]),
    wrong.map(([, code], index) => [code, index + 2]),
  );
  const empty = await ended((await begin("\n\n")).id);
  assert.deepEqual(
    empty.errors?.data?.map(({ code, line }) => [code, line]),
    [["empty_file", null]],
  );
  const bytes = await client.files.create({
    file: await toFile(Buffer.from([0x7b, 0xff, 0x7d])),
    purpose: "batch",
  });
  const { id } = await client.batches.create({ input_file_id: bytes.id, endpoint, completion_window: "24h" });
  assert.equal((await ended(id)).errors?.data?.[0]?.code, "invalid_json_line");
  assert.equal(lm.generations.length, before);
  assert.equal((await query(chat.pool, "select from batch_lines")).rows.length, 0);
});

test("a batch that the database will not take fails alone; while the database is in trouble it waits", async () => {
  lm.script(echo);
  await asOwner(`
    create function refuse_line() returns trigger language plpgsql as $$
      begin raise exception 'refused, naming somebody' using errcode = new.custom_id; end $$;
    create trigger refuse_line before insert on batch_lines
      for each row when (new.custom_id in ('22000', '53100')) execute function refuse_line()`);
  const refused = await begin([line("22000")]);
  const waiting = await begin([line("53100")]);
  const failed = await ended(refused.id);
  const [problem] = failed.errors?.data ?? [];
  assert.deepEqual(
    [failed.status, problem?.code, problem?.param, problem?.line],
    ["failed", "input_unreadable", "input_file_id", null],
  );
  assert.match(problem?.message ?? "", /Upload the file again/);
  assert.doesNotMatch(problem?.message ?? "", /somebody/);
  assert.equal((await client.batches.retrieve(waiting.id)).status, "validating");
  await asOwner("drop trigger refuse_line on batch_lines; drop function refuse_line");
  const done = await ended(waiting.id);
  assert.deepEqual([done.status, done.request_counts?.completed], ["completed", 1]);
});

test("a batch whose results the database will not take keeps no other from its end, and ends when it can", async () => {
  lm.script(echo);
  await asOwner(`
    create function refuse_end() returns trigger language plpgsql as $$
      begin raise exception 'refused' using errcode = '22000'; end $$;
    create trigger refuse_end before update on batches
      for each row when (new.status = 'completed' and new.metadata ->> 'may' = 'not') execute function refuse_end()`);
  const input_file_id = await upload([line("a")]);
  const request = { input_file_id, endpoint, completion_window: "24h" } as const;
  const stuck = await client.batches.create({ ...request, metadata: { may: "not" } });
  await when(stuck.id, is("finalizing"));
  assert.equal((await ended((await client.batches.create(request)).id)).status, "completed");
  await asOwner("drop trigger refuse_end on batches; drop function refuse_end");
  const { status, output_file_id } = await ended(stuck.id);
  assert.deepEqual([status, (await linesOf(output_file_id)).length], ["completed", 1]);
});

test("a batch whose model fails every time keeps no other from being run", async () => {
  await using two = await startLmStudio({ models: [{ id: "broken" }, { id: "sound" }] });
  two.script((request) => (request.model === "broken" ? faults.crash : echo(request)));
  await using own = await testDatabase();
  await using both = await startChat(two, own.url, {}, { batches: settings });
  const api = new OpenAI({ baseURL: `${both.url}/v1`, apiKey: "none" });
  const start = async (model: string, count: number) => {
    const lines = Array.from({ length: count }, (_, index) =>
      line(`${index}`, `${model} ${index}`, { model }),
    );
    const file = await api.files.create({
      file: await toFile(Buffer.from(lines.join("\n"))),
      purpose: "batch",
    });
    return api.batches.create({ input_file_id: file.id, endpoint, completion_window: "24h" });
  };
  const broken = await start("broken", 300);
  await eventually(
    () => both.rows(),
    (rows) => rows.some(({ outcome }) => outcome === "upstream-open"),
  );
  const sound = await start("sound", 20);
  const { request_counts } = await eventually(() => api.batches.retrieve(sound.id), is("completed"));
  assert.equal(request_counts?.completed, 20);
  assert.equal((await api.batches.retrieve(broken.id)).status, "in_progress");
});

test("a batch of more than 50,000 lines is refused", async () => {
  const lines = Array.from({ length: 50_001 }, (_, index) => line(String(index), "x"));
  const failed = await ended((await begin(lines)).id);
  assert.deepEqual(
    failed.errors?.data?.map(({ code, line }) => [code, line]),
    [["too_many_lines", 50_001]],
  );
});

test("what is no batch is refused at once, and the client told not to try again", async () => {
  const input_file_id = await upload([line("a")]);
  const request = { input_file_id, endpoint, completion_window: "24h" } as const;
  const refused = (change: object) => client.batches.create({ ...request, ...change });
  await assert.rejects(refused({ input_file_id: "file-none" }), { status: 404, code: "file_unknown" });
  await assert.rejects(refused({ endpoint: "/v1/images" }), { status: 400 });
  await assert.rejects(refused({ completion_window: "soon" }), { status: 400 });
  await assert.rejects(refused({ completion_window: "31d" }), { status: 400 });
  for (const metadata of [{ "\0": "a" }, { a: "\0" }, { a: "\ud800" }, { ["a".repeat(65)]: "a" }]) {
    await assert.rejects(refused({ metadata }), { status: 400 }, JSON.stringify(metadata));
  }
  const vision = await client.files.create({ file: await toFile(Buffer.from("x")), purpose: "vision" });
  await assert.rejects(refused({ input_file_id: vision.id }), /purpose/);
  await assert.rejects(client.batches.retrieve("batch_none"), { status: 404, code: "batch_unknown" });
  await assert.rejects(client.batches.cancel("batch_none"), { status: 404 });
  const done = await ended((await refused({ completion_window: "30m" })).id);
  assert.equal(done.expires_at, done.created_at + 1_800);
  await assert.rejects(client.batches.cancel(done.id), { status: 409, code: "batch_over" });
});

test("of a file that is deleted while a batch of it is made, either the one is refused or the other", async () => {
  lm.script(echo);
  /** Does the one with the lock held, and the other once it waits for that. */
  const meanwhile = <T>(first: (holder: Client) => Promise<unknown>, second: () => Promise<T>) =>
    transaction(chat.pool, async (holder) => {
      await first(holder);
      const outcome = second().catch((error: unknown) => error);
      const waiting = `select from pg_locks where not granted
        and pid in (select pid from pg_stat_activity where datname = current_database())`;
      await eventually(async () => (await query(chat.pool, waiting)).rowCount, Boolean);
      return { outcome };
    });
  const matches = (error: unknown, status: number, code: string) => {
    assert.ok(error instanceof OpenAI.APIError, String(error));
    assert.deepEqual([error.status, error.code], [status, code]);
  };

  const deleted = await upload([line("a")]);
  const creation = await meanwhile(
    (holder) => holder.query("delete from files where id = $1", [deleted]),
    () => client.batches.create({ input_file_id: deleted, endpoint, completion_window: "24h" }),
  );
  matches(await creation.outcome, 404, "file_unknown");

  const used = await upload([line("a")]);
  const deletion = await meanwhile(
    (holder) => {
      const now = new Date();
      return createBatch(
        holder,
        {
          caller: "local",
          endpoint,
          inputFileId: used,
          completionWindow: "24h",
          createdAt: now,
          expiresAt: new Date(now.getTime() + 86_400_000),
        },
        100,
      );
    },
    () => client.files.delete(used),
  );
  matches(await deletion.outcome, 409, "file_in_use");
});

test("a cancelled batch keeps what was answered, and the model stops", async () => {
  let answered = 0;
  lm.script((request) => {
    answered += 1;
    return answered <= 2 ? echo(request) : { text: "x", failure: { how: "hang", after: 0 } };
  });
  const from = lm.generations.length;
  const { id, input_file_id } = await begin(
    Array.from({ length: 20 }, (_, index) => line(`cancel-${index}`)),
  );
  await when(id, ({ request_counts }) => request_counts?.completed === 2);
  await lm.generation(from + 6);
  await assert.rejects(client.files.delete(input_file_id), { status: 409, code: "file_in_use" });
  const cancelling = await client.batches.cancel(id);
  assert.ok(["cancelling", "cancelled"].includes(cancelling.status));
  const done = await ended(id);
  assert.deepEqual([done.status, done.request_counts], ["cancelled", { total: 20, completed: 2, failed: 0 }]);
  assert.equal((await linesOf(done.output_file_id)).length, 2);
  const left = await linesOf(done.error_file_id);
  assert.equal(left.length, 18);
  assert.deepEqual([left[0].response, left[0].error.code], [null, "batch_cancelled"]);
  for (const { ended: end } of lm.generations.slice(from + 2)) assert.equal(await end, "aborted");
  assert.equal((await client.batches.cancel(id)).status, "cancelled");
  assert.equal((await client.files.delete(input_file_id)).deleted, true);
});

test("a batch whose input is still being read is cancelled at once", async () => {
  const input_file_id = await upload(Array.from({ length: 1_100 }, (_, index) => line(`unread-${index}`)));
  const holder = await chat.pool.connect();
  await holder.query("begin; reset role; lock table file_chunks");
  const { id } = await client.batches.create({ input_file_id, endpoint, completion_window: "24h" });
  const reading = "select from pg_locks where relation = 'file_chunks'::regclass and not granted";
  await eventually(async () => (await holder.query(reading)).rowCount, Boolean);
  assert.equal((await client.batches.cancel(id)).status, "cancelling");
  await holder.query("rollback");
  holder.release(true);
  const done = await ended(id);
  assert.deepEqual([done.status, done.request_counts], ["cancelled", { total: 0, completed: 0, failed: 0 }]);
  const left = await query(chat.pool, "select from batch_lines where batch_id = $1", [id]);
  assert.deepEqual([done.output_file_id, done.error_file_id, left.rowCount], [null, null, 0]);
});

test("a batch whose time is over ends with what there is", async () => {
  let answered = 0;
  lm.script((request) => {
    answered += 1;
    return answered <= 3 ? echo(request) : { text: "x", failure: { how: "hang", after: 0 } };
  });
  const lines = Array.from({ length: 10 }, (_, index) => line(`expire-${index}`));
  const { id } = await begin(lines, { completion_window: "2h" });
  await when(id, ({ request_counts }) => request_counts?.completed === 3);
  clockMs += 7_200_000;
  const done = await ended(id);
  assert.equal(done.status, "expired");
  assert.equal((await linesOf(done.output_file_id)).length, 3);
  const left = await linesOf(done.error_file_id);
  assert.deepEqual([left.length, left[0].error.code], [7, "batch_expired"]);
});

test("while LM Studio is away the batch waits, and no line fails for it", async () => {
  lm.script(echo);
  await lm.goAway();
  const { id } = await begin(Array.from({ length: 30 }, (_, index) => line(`away-${index}`)));
  await when(id, is("in_progress"));
  await eventually(
    () => chat.rows(),
    (rows) => rows.some(({ session_id, outcome }) => session_id === id && outcome === "lm-studio-away"),
  );
  assert.deepEqual((await client.batches.retrieve(id)).request_counts, {
    total: 30,
    completed: 0,
    failed: 0,
  });
  await lm.comeBack();
  const done = await ended(id);
  assert.deepEqual(done.request_counts, { total: 30, completed: 30, failed: 0 });
});

test("while no model is loaded the batch waits; a model's name that is wrong fails its lines", async () => {
  const [model, other] = ["qwen2.5-7b-instruct", "deepseek-r1-distill-qwen-7b"];
  await using idle = await startLmStudio({
    models: [model, other, "third"].map((id) => ({ id, state: "not-loaded" })),
    jit: false,
  });
  // Only this server is to run them.
  await chat[Symbol.asyncDispose]();
  chat = await startChat(idle, database.url, {}, { batches: settings });
  client = new OpenAI({ baseURL: `${chat.url}/v1`, apiKey: "none" });
  const { id } = await begin([line("1"), line("2")]);
  await eventually(
    () => chat.rows(),
    (rows) => rows.some(({ session_id, outcome }) => session_id === id && outcome === "no-model-loaded"),
  );
  assert.deepEqual((await client.batches.retrieve(id)).request_counts, { total: 2, completed: 0, failed: 0 });
  idle.setState(model, "loaded");
  assert.deepEqual((await ended(id)).request_counts, { total: 2, completed: 2, failed: 0 });

  idle.setState(other, "loaded");
  const wrong = await ended((await begin([line("1", "x", { model: "third" })])).id);
  const [refused] = await linesOf(wrong.error_file_id);
  assert.deepEqual(
    [refused.response.status_code, refused.response.body.error.code],
    [404, "model_not_found"],
  );
  await chat[Symbol.asyncDispose]();
  const clock = () => Date.now() + clockMs;
  chat = await startChat(lm, database.url, {}, { batches: settings, clock });
  client = new OpenAI({ baseURL: `${chat.url}/v1`, apiKey: "none" });
});

test("a line that fails again and again fails alone; one that is refused fails at once", async () => {
  lm.script((request) => {
    if (textOf(request) === "crash") return faults.crash;
    if (textOf(request) === "too long") return faults.overflow;
    return echo(request);
  });
  const from = lm.generations.length;
  const lines = [line("1", "crash"), line("2", "too long"), line("3", "fine with that")];
  const done = await ended((await begin(lines)).id);
  assert.deepEqual(done.request_counts, { total: 3, completed: 1, failed: 2 });
  const errors = await linesOf(done.error_file_id);
  assert.deepEqual(
    errors.map(({ custom_id, response }) => [custom_id, response.status_code, response.body.error.code]),
    [
      ["1", 502, "model_crashed"],
      ["2", 400, "context_length_exceeded"],
    ],
  );
  const times = (text: string) => asked(from).filter((each) => each === text).length;
  assert.ok(times("crash") >= 3);
  assert.equal(times("too long"), 1);
});

test("of a body that its route would refuse, the error names the field as the route does", async () => {
  lm.script(echo);
  const bodies = [
    {},
    { messages: "hello" },
    { messages: [{ content: "hello" }] },
    { messages: [{ role: "user", content: "hello" }], n: 2 },
  ];
  const lines = bodies.map((body, index) =>
    JSON.stringify({ custom_id: String(index), method: "POST", url: endpoint, body }),
  );
  const done = await ended((await begin(lines)).id);
  const errors = (await linesOf(done.error_file_id)).map(({ response }) => response.body.error);
  const asRoute = await Promise.all(
    bodies.map(async (body) => {
      const { error } = (await (await chat.post(endpoint, body)).json()) as { error: { param: unknown } };
      return error;
    }),
  );
  assert.deepEqual(errors, asRoute);
  assert.deepEqual(
    errors.map(({ param }) => param),
    ["messages", "messages", "messages[0].role", "n"],
  );
});

test("a person who asks while a batch runs is answered long before it ends", async () => {
  lm.script(async (request) => ({ ...echo(request), tokenDelayMs: 20 }));
  const { id } = await begin(Array.from({ length: 100 }, (_, index) => line(`people-${index}`)));
  await when(id, ({ request_counts }) => (request_counts?.completed ?? 0) > 0);
  const response = await chat.post("/chat", { prompt: "May I?", model: "qwen2.5-7b-instruct" });
  assert.equal(((await response.json()) as { response: string }).response, "You asked: May I?");
  const { status, request_counts } = await client.batches.retrieve(id);
  assert.equal(status, "in_progress");
  assert.ok((request_counts?.completed ?? 100) < 100);
  await client.batches.cancel(id);
  await ended(id);
});

test("identical lines are asked once, and 5,000 different ones are all answered once", async () => {
  lm.script(echo);
  const same = await begin(Array.from({ length: 200 }, (_, index) => line(`same-${index}`, "the same")));
  const first = await ended(same.id);
  assert.equal(first.request_counts?.completed, 200);
  assert.equal(asked().filter((text) => text === "the same").length, 1);

  const from = lm.generations.length;
  const many = await begin(Array.from({ length: 5_000 }, (_, index) => line(`many-${index}`)));
  // As long as it goes on, it may take its time: this machine may be busy.
  let batch = many;
  while (batch.status !== "completed") {
    const before = batch.request_counts?.completed ?? 0;
    const goesOn = ({ status, request_counts }: Batch) =>
      status === "completed" || (request_counts?.completed ?? 0) >= Math.min(5_000, before + 100);
    batch = await when(many.id, goesOn);
  }
  assert.deepEqual(batch.request_counts, { total: 5_000, completed: 5_000, failed: 0 });
  assert.equal(lm.generations.length - from, 5_000);
  const output = await linesOf(batch.output_file_id);
  assert.deepEqual(
    idsOf(output),
    Array.from({ length: 5_000 }, (_, index) => `many-${index}`),
  );
  assert.ok(
    output.every(({ custom_id, response }) => {
      return response.body.choices[0].message.content === `You asked: ${custom_id}`;
    }),
  );
});

test("lists are paged to their end, newest first, and each caller sees only its own", async () => {
  const all: string[] = [];
  for await (const { id } of client.batches.list({ limit: 2 })) all.push(id);
  assert.ok(all.length > 5);
  assert.deepEqual(all, all.toSorted().reverse());
  const keys = "one:0123456789abcdef:write";
  await using guarded = await startChat(lm, database.url, { PUGMARK_API_KEYS: keys }, { batches: settings });
  const other = new OpenAI({ baseURL: `${guarded.url}/v1`, apiKey: "0123456789abcdef" });
  assert.deepEqual((await other.batches.list()).data, []);
  await assert.rejects(other.batches.retrieve(all[0] ?? ""), { status: 404 });
  await assert.rejects(other.batches.cancel(all[0] ?? ""), { status: 404 });
});

test("where a caller's tokens of the day are spent its batches rest, and those of others go on", async () => {
  lm.script(echo);
  const env = {
    PUGMARK_API_KEYS: "poor:0123456789abcdef:write,rich:fedcba9876543210:write",
    CHAT_TOKENS_PER_DAY: "1000000,poor=1",
  };
  await using guarded = await startChat(lm, database.url, env, { batches: settings });
  const [poor, rich] = ["0123456789abcdef", "fedcba9876543210"].map(
    (apiKey) => new OpenAI({ baseURL: `${guarded.url}/v1`, apiKey }),
  ) as [OpenAI, OpenAI];
  const beginAs = async (caller: OpenAI, name: string) => {
    const lines = Array.from({ length: 30 }, (_, index) => line(`${name}-${index}`));
    const file = await caller.files.create({
      file: await toFile(Buffer.from(lines.join("\n"))),
      purpose: "batch",
    });
    return caller.batches.create({ input_file_id: file.id, endpoint, completion_window: "24h" });
  };
  // Only the guarded server knows of the limit.
  await chat[Symbol.asyncDispose]();
  const waiting = await beginAs(poor, "poor");
  await eventually(
    () => guarded.rows(),
    (rows) => rows.some(({ outcome }) => outcome === "token-budget-spent"),
  );
  const going = await beginAs(rich, "rich");
  const done = await eventually(() => rich.batches.retrieve(going.id), is("completed"));
  assert.equal(done.request_counts?.completed, 30);
  const { status, request_counts } = await poor.batches.retrieve(waiting.id);
  assert.equal(status, "in_progress");
  assert.equal(request_counts?.failed, 0);
  assert.ok((request_counts?.completed ?? 30) < 30);
  await poor.batches.cancel(waiting.id);
  assert.equal(
    (await eventually(() => poor.batches.retrieve(waiting.id), is("cancelled"))).status,
    "cancelled",
  );
  const clock = () => Date.now() + clockMs;
  chat = await startChat(lm, database.url, {}, { batches: settings, clock });
  client = new OpenAI({ baseURL: `${chat.url}/v1`, apiKey: "none" });
});

test("callers take turns: a short batch of one does not wait for the end of another's long one", async () => {
  const gate = Promise.withResolvers<void>();
  lm.script(async (request) => {
    await gate.promise;
    return echo(request);
  });
  const env = { PUGMARK_API_KEYS: "long:0123456789abcdef:write,short:fedcba9876543210:write" };
  // The clock of the other server, which takes uploads of hours ago for broken off.
  const clock = () => Date.now() + clockMs;
  await using shared = await startChat(lm, database.url, env, { batches: settings, clock });
  const beginAs = async (apiKey: string, name: string, count: number) => {
    const caller = new OpenAI({ baseURL: `${shared.url}/v1`, apiKey });
    const lines = Array.from({ length: count }, (_, index) => line(`${name}-${index}`));
    const file = await toFile(Buffer.from(lines.join("\n")));
    const { id: input_file_id } = await caller.files.create({ file, purpose: "batch" });
    const { id } = await caller.batches.create({ input_file_id, endpoint, completion_window: "24h" });
    await eventually(() => caller.batches.retrieve(id), is("in_progress"));
    return () => eventually(() => caller.batches.retrieve(id), is("completed"));
  };
  const since = lm.generations.length;
  const longEnds = await beginAs("0123456789abcdef", "long", 1_000);
  const shortEnds = await beginAs("fedcba9876543210", "short", 3);
  gate.resolve();
  await shortEnds();
  await longEnds();
  // Two servers have claimed up to 128 lines each before.
  const order = asked(since);
  const last = order.indexOf("short-2");
  assert.ok(last >= 0 && last < 500, `the last of the short batch was asked as number ${last}`);
  assert.equal(order.length, 1_003);
});

test("a caller may have 100 batches under way, and is told when there are more", async () => {
  await query(
    chat.pool,
    `insert into batches (id, caller, endpoint, input_file_id, completion_window, status, created_at, expires_at, lines_total)
     select 'batch_full_' || n, 'local', '/v1/none', 'file-x', '24h', 'in_progress', now(), 'infinity', 1
     from generate_series(1, 100) n`,
  );
  await assert.rejects(begin([line("a")]), { status: 429, code: "batches_full" });
  await query(chat.pool, "delete from batches where id like 'batch_full_%'");
});
