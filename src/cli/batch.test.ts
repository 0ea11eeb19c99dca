import assert from "node:assert/strict";
import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { eventually, startChat, type TestChat } from "../../test/lm-studio/chat-server.ts";
import { type LmStudio, startLmStudio } from "../../test/lm-studio/lm-studio.ts";
import type { GenerationRequest } from "../../test/lm-studio/reply.ts";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import { query } from "../store/pool.ts";
import { type BatchOptions, batch } from "./batch.ts";
import { unread } from "./unread.fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "pugmark-batch-test-"));
let database: TestDatabase;
let lm: LmStudio;
let chat: TestChat;

before(async () => {
  database = await testDatabase();
  lm = await startLmStudio();
  chat = await startChat(lm, database.url, {}, { batches: { pollMs: 50 } });
});
after(async () => {
  await chat[Symbol.asyncDispose]();
  await lm[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

const textOf = ({ messages, prompt }: GenerationRequest) => String(messages?.at(-1)?.content ?? prompt);
const answering = (tokenDelayMs = 0) =>
  lm.script((request) => ({ text: `You asked: ${textOf(request)}`, tokenDelayMs }));

function write(name: string, lines: readonly unknown[]): string {
  const file = join(folder, name);
  const text = lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n");
  writeFileSync(file, `${text}\n`);
  return file;
}

interface RunOptions extends BatchOptions {
  readonly url?: string;
  readonly tty?: boolean;
  readonly stop?: AbortController;
}

async function run(file: string | undefined, options: RunOptions = {}) {
  const { url = chat.url, tty = false, stop = new AbortController(), ...rest } = options;
  const streams = { out: new PassThrough(), err: new PassThrough() };
  if (tty) Object.assign(streams.err, { isTTY: true });
  const code = await batch(file, rest, { baseUrl: url }, streams, stop.signal);
  const text = (stream: PassThrough) => String(stream.read() ?? "");
  return { code, out: text(streams.out), err: text(streams.err) };
}

// biome-ignore lint/suspicious/noExplicitAny: each test says what it expects
function linesOf(file: string): any[] {
  return readFileSync(file, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
}

/** Where the command line finds the chat server. */
const env = () => ({
  PATH: process.env.PATH ?? "",
  PUGMARK_HOME: folder,
  CHAT_PORT: new URL(chat.url).port,
});

/** Runs `pugmark batch` as a user would. */
function pugmark(...words: readonly string[]): Promise<{ code: number; out: string; err: string }> {
  const main = join(import.meta.dirname, "main.ts");
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [main, "batch", ...words], { env: env() }, (_error, out, err) =>
      resolve({ code: child.exitCode ?? -1, out, err }),
    );
  });
}

/** Passes on to a server the first 256 KiB of each connection, and all that it answers. */
async function stallingRelay(target: string): Promise<{ url: string; close: () => void }> {
  const { hostname, port } = new URL(target);
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    const other = connect(Number(port), hostname);
    for (const [end, far] of [
      [socket, other],
      [other, socket],
    ] as const) {
      sockets.add(end);
      end.on("error", () => {}).on("close", () => far.destroy());
    }
    let passed = 0;
    socket.on("data", (bytes) => {
      passed += bytes.length;
      if (passed <= 256 * 1024) other.write(bytes);
    });
    other.pipe(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const close = () => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close };
}

/** How many files the server has. */
async function filesThere(): Promise<number> {
  const { data } = (await (await chat.get("/v1/files")).json()) as { data: unknown[] };
  return data.length;
}

const answersIn = (file: string) =>
  linesOf(file).map(({ custom_id, response }) => [custom_id, response.body.choices[0].message.content]);

test("a question on each line: the answers come into a file beside it", async () => {
  answering();
  const { code, out, err } = await run(write("birds.txt", ["Where do gulls sleep?", "", "And terns?"]));
  assert.deepEqual([code, out], [0, ""]);
  assert.deepEqual(answersIn(join(folder, "birds.answers.jsonl")), [
    ["line-1", "You asked: Where do gulls sleep?"],
    ["line-3", "You asked: And terns?"],
  ]);
  assert.match(err, /^batch_[0-9a-f]{32}: 2 lines of birds\.txt\n/);
  assert.match(err, /2 of 2 answered\n {2}answers: .*birds\.answers\.jsonl\n$/);
  assert.ok(!existsSync(join(folder, "birds.answers.errors.jsonl")));
});

test("objects with a prompt take parameters, a system text and names of their own", async () => {
  answering();
  const from = lm.generations.length;
  const file = write("notes.jsonl", [
    { id: "n1", prompt: "one", temperature: 0.3 },
    { prompt: "two", system: "Be brief" },
    { custom_id: "n3", messages: [{ role: "user", content: "three" }] },
    { messages: [{ role: "user", content: "four" }], system: "Be fair" },
    {
      messages: [
        { role: "system", content: "Be wise" },
        { role: "user", content: "five" },
      ],
    },
  ]);
  const output = join(folder, "triage.jsonl");
  const { code } = await run(file, { output, system: "Be kind" });
  assert.equal(code, 0);
  assert.deepEqual(answersIn(output), [
    ["n1", "You asked: one"],
    ["line-2", "You asked: two"],
    ["n3", "You asked: three"],
    ["line-4", "You asked: four"],
    ["line-5", "You asked: five"],
  ]);
  const sent = new Map(lm.generations.slice(from).map(({ body }) => [textOf(body), body]));
  assert.equal(sent.get("one")?.temperature, 0.3);
  assert.deepEqual(
    ["one", "two", "three", "four", "five"].map((asked) =>
      sent.get(asked)?.messages?.map(({ role, content }) => (role === "system" ? content : role)),
    ),
    ["Be kind", "Be brief", "Be kind", "Be fair", "Be wise"].map((system) => [system, "user"]),
  );
});

test("each endpoint is asked in its own words", async () => {
  const questions = write("words.txt", ["Where do gulls sleep?"]);
  const bodyOf = async (options: BatchOptions) => {
    const output = join(folder, "words.jsonl");
    const { code, err } = await run(questions, { ...options, output });
    assert.equal(code, 0, err);
    return linesOf(output)[0].response.body;
  };
  answering();
  const asked = "You asked: Where do gulls sleep?";
  const text = await bodyOf({ endpoint: "/v1/completions" });
  assert.equal(text.choices[0].text, asked);
  const embeddings = await bodyOf({ endpoint: "/v1/embeddings", model: "qwen2.5-7b-instruct" });
  assert.ok(embeddings.data[0].embedding.length > 0);
  const response = await bodyOf({ endpoint: "/v1/responses", system: "Be brief." });
  assert.equal(response.output.at(-1).content[0].text, asked);
  assert.equal(response.instructions, "Be brief.");
});

test("options and fields that could mean nothing are refused before anything is uploaded", async () => {
  const before = await filesThere();
  const questions = write("unfit.txt", ["Where do gulls sleep?"]);
  const whole = write("whole.jsonl", [
    { custom_id: "a", method: "POST", url: "/v1/chat/completions", body: { messages: [] } },
  ]);
  const messages = [{ role: "user", content: "x" }];
  const told = [{ role: "system", content: "Be wise" }, ...messages];
  const cases: [string, BatchOptions, RegExp][] = [
    [
      questions,
      { endpoint: "/v1/completions", system: "Be kind" },
      /completions takes no --system: leave it/,
    ],
    [questions, { endpoint: "/v1/embeddings", system: "Be kind" }, /embeddings takes no --system/],
    [questions, { endpoint: "/v1/embeddings" }, /line 1 names no model, .*add --model/],
    [questions, { endpoint: "/v1/none" }, /--endpoint \/v1\/none is none of \/v1\/chat\/completions, /],
    [whole, { system: "Be kind" }, /whole requests: --model and --system belong into each body/],
    [whole, { model: "another" }, /whole requests/],
    [write("unfit1.jsonl", [{ prompt: "x", messages }]), {}, /line 1 has both a prompt and messages/],
    [write("unfit2.jsonl", [{ messages: told, system: "Be kind" }]), {}, /line 1 has a system text beside/],
    [write("unfit3.jsonl", [{ prompt: "x", system: 5 }]), {}, /line 1 has a system that is no text/],
    [write("unfit4.jsonl", [{ messages }]), { endpoint: "/v1/responses" }, /line 1 has messages, which/],
    [
      write("unfit5.jsonl", [{ prompt: "x" }, { prompt: "y", system: "Be kind" }]),
      { endpoint: "/v1/embeddings", model: "another" },
      /line 2 has a system text, which \/v1\/embeddings does not take: write it into the prompt/,
    ],
  ];
  for (const [file, options, message] of cases) {
    const { code, err } = await run(file, options);
    assert.match(err, message);
    assert.equal(code, 2);
  }
  assert.equal(await filesThere(), before);
});

test("OpenAI's own lines go as they are, and those that are refused are told apart", async () => {
  answering();
  const line = (id: string, body: object) => ({
    custom_id: id,
    method: "POST",
    url: "/v1/completions",
    body,
  });
  const file = write("openai.jsonl", [
    line("good", { prompt: "On" }),
    line("bad", { prompt: "On", max_tokens: 999_999 }),
  ]);
  const { code, err } = await run(file);
  assert.equal(code, 1);
  assert.match(err, /1 of 2 answered, 1 refused/);
  assert.equal(
    linesOf(join(folder, "openai.answers.jsonl"))[0].response.body.choices[0].text,
    "You asked: On",
  );
  const [refused] = linesOf(join(folder, "openai.answers.errors.jsonl"));
  assert.deepEqual([refused.custom_id, refused.response.body.error.code], ["bad", "max_tokens_exceeded"]);
});

test("left in the middle the batch goes on, and the same command again watches it to its end", async () => {
  answering(20);
  const from = lm.generations.length;
  const questions = Array.from({ length: 60 }, (_, index) => `long ${index}`);
  const file = write("long.txt", questions);
  const stop = new AbortController();
  const left = run(file, { stop });
  await lm.generation(from + 5);
  stop.abort();
  const { code, err } = await left;
  assert.equal(code, 130);
  const [id] = /batch_[0-9a-f]{32}/.exec(err) ?? [];
  assert.match(err, new RegExp(`${id} goes on\\. .*--resume ${id}.*cancel ${id}`));
  const again = await run(file);
  assert.equal(again.code, 0);
  assert.match(again.err, new RegExp(`long\\.txt is being answered already, as ${id}`));
  assert.equal(answersIn(join(folder, "long.answers.jsonl")).length, 60);
  assert.equal(lm.generations.length, from + 60);

  rmSync(join(folder, "long.answers.jsonl"));
  const third = await run(file);
  assert.match(third.err, /was answered before/);
  assert.equal(answersIn(join(folder, "long.answers.jsonl")).length, 60);
  const resumed = await run(undefined, { resume: id ?? "", output: join(folder, "resumed.jsonl") });
  assert.equal(resumed.code, 0);
  assert.equal(answersIn(join(folder, "resumed.jsonl")).length, 60);
  assert.equal(lm.generations.length, from + 60);
  const anew = await run(file, { again: true });
  assert.doesNotMatch(anew.err, new RegExp(String(id)));
});

test("left while its questions are uploaded, the command ends at once and leaves nothing on the server", async (t) => {
  const relay = await stallingRelay(chat.url);
  t.after(relay.close);
  const whole = await filesThere();
  const isReceiving = async () =>
    ((await query(chat.pool, "select from files where not is_whole")).rowCount ?? 0) > 0;
  const questions = Array.from({ length: 20_000 }, (_, index) => `${"why ".repeat(50)}${index}?`);
  const stop = new AbortController();
  const left = run(write("upload.txt", questions), { stop, url: relay.url });
  await eventually(isReceiving, (is) => is);
  stop.abort();
  const { code, err } = await left;
  assert.deepEqual([code, err], [130, "Stopped; nothing was asked.\n"]);
  await eventually(isReceiving, (is) => !is);
  assert.equal(await filesThere(), whole);
});

test("left while its answers are fetched, the command leaves no half of them and says how to go on", async () => {
  answering();
  const file = write("fetched.txt", ["fetched"]);
  const streams = { out: new PassThrough(), err: new PassThrough() };
  const stop = new AbortController();
  let said = "";
  streams.err.on("data", (text) => {
    said += text;
    if (said.includes("completed")) stop.abort();
  });
  assert.equal(await batch(file, {}, { baseUrl: chat.url }, streams, stop.signal), 130);
  assert.match(said, /(batch_[0-9a-f]{32}) is over; `pugmark batch --resume \1` fetches its answers\.\n$/);
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith("fetched")),
    ["fetched.txt"],
  );
});

test("a time that no batch may take is a mistake of use, with what is meant", async () => {
  const file = write("hurry.txt", ["hurry"]);
  for (const window of ["1.5h", "0h", "2w", "31d", "43201m"]) {
    const { code, err } = await pugmark(file, "--window", window);
    assert.match(err, /'--window <time>' argument '.*' is invalid\. A time from 1m to 30d is needed/);
    assert.equal(code, 2);
  }
  assert.equal((await pugmark(file, "--window", "30d")).code, 0);
});

test("questions of which no batch is made do not stay on the server", async () => {
  const before = await filesThere();
  const { code } = await run(write("window.txt", ["window"]), { window: "soon" });
  assert.equal(code, 2);
  assert.equal(await filesThere(), before);
});

test("questions whose answers were deleted on the server are asked anew", async () => {
  answering();
  const file = write("deleted.txt", ["deleted"]);
  const [first] = /batch_[0-9a-f]{32}/.exec((await run(file)).err) ?? [];
  const { output_file_id: output } = (await (await chat.get(`/v1/batches/${first}`)).json()) as {
    output_file_id: string;
  };
  assert.equal((await fetch(`${chat.url}/v1/files/${output}`, { method: "DELETE" })).status, 200);
  rmSync(join(folder, "deleted.answers.jsonl"));
  const anew = await run(file);
  assert.equal(anew.code, 0, anew.err);
  assert.match(
    anew.err,
    new RegExp(
      `^the answers of ${first} were deleted on the server: asking anew\nbatch_[0-9a-f]{32}: 1 lines of deleted\\.txt\n`,
    ),
  );
  assert.equal(answersIn(join(folder, "deleted.answers.jsonl")).length, 1);
  const third = await run(file);
  assert.match(third.err, /^deleted\.txt was answered before, as /);
});

test("the same questions find their batch behind however many newer ones", async () => {
  answering();
  const file = write("long-ago.txt", ["Do stoats dance?"]);
  assert.equal((await run(file)).code, 0);
  // Of another file each, as a script leaves them that asks a folder of files.
  await query(
    chat.pool,
    `insert into batches (id, caller, endpoint, input_file_id, completion_window, status, created_at, expires_at)
     select 'batch_f' || lpad(n::text, 31, '0'), caller, endpoint, input_file_id, completion_window, 'completed', now(), now()
     from batches, generate_series(1, 250) n
     where id = (select max(id) from batches)`,
  );
  const asked = lm.generations.length;
  const again = await run(file);
  await query(chat.pool, "delete from batches where id like 'batch_f%'");
  assert.match(again.err, /^long-ago.txt was answered before, as batch_/);
  assert.deepEqual([again.code, lm.generations.length], [0, asked]);
});

test("a cancelled batch gives what was answered, with exit code 1", async () => {
  const from = lm.generations.length;
  lm.script((request) =>
    textOf(request) === "cancel 0" ? { text: "done" } : { text: "x", failure: { how: "hang", after: 0 } },
  );
  const file = write("cancel.txt", ["cancel 0", "cancel 1", "cancel 2"]);
  const watched = run(file);
  await lm.generation(from + 3);
  const list = (await (await chat.get("/v1/batches?limit=1")).json()) as { data: { id: string }[] };
  await eventually(
    async () => (await (await chat.get(`/v1/batches/${list.data[0]?.id}`)).json()) as Counted,
    ({ request_counts }) => request_counts.completed === 1,
  );
  await fetch(`${chat.url}/v1/batches/${list.data[0]?.id}/cancel`, { method: "POST" });
  const { code, err } = await watched;
  assert.equal(code, 1);
  assert.match(err, /cancelled: 1 of 3 answered/);
  assert.equal(linesOf(join(folder, "cancel.answers.errors.jsonl"))[0].error.code, "batch_cancelled");
});

interface Counted {
  readonly request_counts: { readonly completed: number };
}

test("a terminal gets a bar, and a program lines of JSON", async () => {
  answering(5);
  const bar = await run(write("bar.txt", ["bar 1", "bar 2", "bar 3"]), { tty: true });
  assert.ok(bar.err.includes("\r\u001b[K"));
  assert.match(bar.err, /(validating …|in_progress …|[█░]{24} {2}\d+ %)/);
  const json = await run(write("json.txt", ["json 1", "json 2"]), { json: true });
  assert.equal(json.code, 0);
  const lines = json.out
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  const { id, status, total, completed, output } = lines.at(-1);
  assert.match(id, /^batch_/);
  assert.deepEqual([status, total, completed], ["completed", 2, 2]);
  assert.equal(output, join(folder, "json.answers.jsonl"));
  assert.deepEqual(Object.keys(lines[0]), ["id", "status", "total", "completed", "failed", "rate", "left_s"]);
});

test("the answers are written where nobody reads how it goes", async () => {
  answering();
  const file = write("unread.txt", ["unread"]);
  assert.equal((await unread(["batch", file, "--json"], env())).code, 0);
  assert.equal(answersIn(join(folder, "unread.answers.jsonl")).length, 1);
});

test("answers and refusals of an earlier run do not stay beside those of this one", async () => {
  answering();
  const answers = join(folder, "corrected.answers.jsonl");
  const errors = join(folder, "corrected.answers.errors.jsonl");
  const refused = { prompt: "x", max_tokens: 999_999 };
  assert.equal((await run(write("corrected.jsonl", [{ prompt: "x" }, refused]))).code, 1);
  assert.ok(existsSync(answers) && existsSync(errors));
  assert.equal((await run(write("corrected.jsonl", [{ prompt: "x" }]))).code, 0);
  assert.ok(existsSync(answers) && !existsSync(errors));
  assert.equal((await run(write("corrected.jsonl", [refused]))).code, 1);
  assert.ok(!existsSync(answers) && existsSync(errors));
});

test("answers go to standard output or a pipe as they come, and refusals to a file", async (t) => {
  answering();
  const refused = { id: "no", prompt: "x", max_tokens: 999_999 };
  const file = write("out.jsonl", [{ id: "yes", prompt: "out" }, refused]);
  const errors = join(folder, "out.answers.errors.jsonl");
  for (const output of ["-", "/dev/stdout"]) {
    const { code, out, err } = await pugmark(file, "-o", output);
    assert.deepEqual([code, JSON.parse(out).custom_id], [1, "yes"]);
    assert.match(
      err,
      /1 of 2 answered, 1 refused\n {2}the others, with the reason: .*answers\.errors\.jsonl\n$/,
    );
    assert.equal(linesOf(errors)[0].custom_id, "no");
    rmSync(errors);
  }
  const fifo = join(folder, "fifo");
  execFileSync("mkfifo", [fifo]);
  const reader = spawn("cat", [fifo], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => reader.kill());
  const [{ code }, read] = await Promise.all([run(file, { output: fifo }), text(reader.stdout)]);
  assert.deepEqual([code, JSON.parse(read).custom_id], [1, "yes"]);
  assert.ok(statSync(fifo).isFIFO());
  assert.equal(linesOf(errors)[0].custom_id, "no");
});

test("answers that find the disk full are kept on the server, and it says how to fetch them", async () => {
  answering();
  const { code, err } = await run(write("full.txt", ["Do gulls sleep?"]), { output: "/dev/full" });
  const [, id] = /^(batch_\w+): 1 lines/.exec(err) ?? [];
  assert.match(err, /\/dev\/full .*cannot be written \(ENOSPC.*\)/);
  assert.ok(err.endsWith(`\`pugmark batch --resume ${id}\` fetches its answers.\n`), err);
  assert.equal(code, 1);
});

test("a place that answers cannot go to is told before anything is uploaded", async () => {
  const before = await filesThere();
  const file = write("place.txt", ["Where do gulls sleep?"]);
  const same = write("place.errors.jsonl", [{ prompt: "x" }]);
  const cases: [string, BatchOptions, RegExp][] = [
    [
      file,
      { output: join(folder, "missing", "x.jsonl") },
      /missing\/x\.jsonl cannot be written: make the folder/,
    ],
    [file, { output: join(file, "x.jsonl") }, /place\.txt\/x\.jsonl cannot be written/],
    [file, { output: folder }, /is a folder: name a file in it/],
    [file, { output: file }, /place\.txt has the questions: name another file with -o/],
    [same, { output: join(folder, "place.jsonl") }, /place\.errors\.jsonl has the questions/],
    [file, { output: "-", json: true }, /--json is on standard output already/],
  ];
  for (const [questions, options, message] of cases) {
    const { code, err } = await run(questions, options);
    assert.match(err, message);
    assert.equal(code, 2);
  }
  assert.equal(await filesThere(), before);
});

test("what cannot be asked is a mistake of use, with the line", async () => {
  const from = lm.generations.length;
  const cases: [string | undefined, RegExp][] = [
    [undefined, /a file is needed/],
    [join(folder, "none.txt"), /no such file/],
    [write("empty.txt", ["", ""]), /no lines/],
    [write("mixed.jsonl", [{ prompt: "one" }, "two"]), /line 2 is not a JSON object/],
    [write("blank.jsonl", [{ prompt: "one" }, { answer: "two" }]), /line 2 has neither a prompt/],
    [write("wrong.jsonl", [{ custom_id: "a", method: "POST", url: "/v1/none", body: {} }]), /endpoint/],
    [
      write("twice.jsonl", ["", { id: 1, prompt: "a" }, { id: 1, prompt: "b" }]),
      /line 3: custom_id "1" is on line 2 already/,
    ],
  ];
  for (const [file, message] of cases) {
    const { code, err, out } = await run(file);
    assert.match(err, message);
    assert.deepEqual([code, out], [2, ""]);
  }
  assert.equal(lm.generations.length, from);
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.endsWith(".part")),
    [],
  );
});

test("a station that is not running, and a batch that is not there, are said so at once", async () => {
  const away = await run(write("away.txt", ["x"]), { url: "http://127.0.0.1:1" });
  assert.equal(away.code, 1);
  assert.match(away.err, /the station is not running/);
  const unknown = await run(undefined, { resume: "batch_none" });
  assert.equal(unknown.code, 1);
  assert.match(unknown.err, /You have no batch batch_none/);
});

test("batches are listed, looked at and cancelled by their verbs", async () => {
  answering();
  await run(write("verbs.txt", ["verbs"]));
  const list = await pugmark("list");
  assert.match(
    list.out,
    /^BATCH +STATUS +LINES +ANSWERED +REFUSED +SINCE\nbatch_[0-9a-f]{32} +completed +1 +1 +0 /,
  );
  const [{ id }] = JSON.parse((await pugmark("list", "--json")).out);
  assert.match((await pugmark("status", id)).out, new RegExp(`${id} +completed`));
  const cancel = await pugmark("cancel", id);
  assert.equal(cancel.code, 1);
  assert.match(cancel.err, /The batch is over: it is completed/);
  const resume = await pugmark("--resume", id, "--system", "Be kind");
  assert.equal(resume.code, 2);
  assert.match(resume.err, /'--resume <id>' cannot be used with option '--system <text>'/);
});
