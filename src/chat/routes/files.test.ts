import assert from "node:assert/strict";
import { createReadStream, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import OpenAI, { toFile } from "openai";
import { eventually, startChat, type TestChat } from "../../../test/lm-studio/chat-server.ts";
import { type TestDatabase, testDatabase } from "../../../test/support/postgres.ts";
import { query } from "../../store/pool.ts";

const folder = mkdtempSync(join(tmpdir(), "pugmark-files-"));
let database: TestDatabase;
let chat: TestChat;
let client: OpenAI;
let now = Date.parse("2026-11-22T10:00:00Z");

before(async () => {
  database = await testDatabase();
  // No file is about a model.
  chat = await startChat({ url: "http://127.0.0.1:1" }, database.url, {}, { clock: () => now });
  client = new OpenAI({ baseURL: `${chat.url}/v1`, apiKey: "none" });
});
after(async () => {
  await chat[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

const file = (content: string | Buffer, name = "in.jsonl") => toFile(Buffer.from(content), name);
const create = (content: string | Buffer, name?: string) =>
  file(content, name).then((made) => client.files.create({ file: made, purpose: "batch" }));
const countOf = async (table: string) => (await query(chat.pool, `select from ${table}`)).rows.length;

test("a file goes up, is listed, comes down byte for byte, and goes", async () => {
  const made = await create('{"é":1}\n', "später.jsonl");
  assert.match(made.id, /^file-[0-9a-f]{32}$/);
  assert.deepEqual(
    { ...made, id: "" },
    {
      id: "",
      object: "file",
      bytes: 9,
      created_at: now / 1000,
      filename: "später.jsonl",
      purpose: "batch",
      status: "processed",
    },
  );
  assert.deepEqual(await client.files.retrieve(made.id), made);
  assert.equal(await (await client.files.content(made.id)).text(), '{"é":1}\n');
  assert.deepEqual(await client.files.delete(made.id), { id: made.id, object: "file", deleted: true });
  await assert.rejects(client.files.retrieve(made.id), { status: 404, code: "file_unknown" });
  await assert.rejects(client.files.delete(made.id), { status: 404 });
});

test("a large file streams in without a length and out again, whatever its bytes are", async () => {
  const bytes = Buffer.alloc(5 * 1024 * 1024 + 13, Buffer.from(Array.from({ length: 251 }, (_, i) => i)));
  const path = join(folder, "large.bin");
  writeFileSync(path, bytes);
  const made = await client.files.create({ file: createReadStream(path), purpose: "user_data" });
  assert.deepEqual([made.bytes, made.filename], [bytes.length, "large.bin"]);
  const back = Buffer.from(await (await client.files.content(made.id)).arrayBuffer());
  assert.ok(back.equals(bytes));
  await client.files.delete(made.id);
  assert.equal(await countOf("file_chunks"), 0);
});

test("lists are paged to their end in either order", async () => {
  const ids: string[] = [];
  for (const name of ["a", "b", "c", "d", "e"]) ids.push((await create(name, name)).id);
  for (const order of ["asc", "desc"] as const) {
    const seen: string[] = [];
    for await (const { id } of client.files.list({ limit: 2, order })) seen.push(id);
    assert.deepEqual(seen, order === "asc" ? ids : ids.toReversed());
  }
  const none = await client.files.list({ purpose: "vision" });
  assert.deepEqual([none.data, none.has_more], [[], false]);
  for (const id of ids) await client.files.delete(id);
});

test("a file that expires is gone when its time is over", async () => {
  const made = await client.files.create({
    file: await file("x"),
    purpose: "batch",
    expires_after: { anchor: "created_at", seconds: 3600 },
  });
  assert.equal(made.expires_at, now / 1000 + 3600);
  now += 3_600_000;
  await assert.rejects(client.files.retrieve(made.id), { status: 404 });
  assert.deepEqual((await client.files.list()).data, []);
  await client.files.delete((await create("the next upload sweeps")).id);
  assert.equal(await countOf("files"), 0);
});

test("what is no upload is refused, and leaves nothing", async () => {
  const post = async (body: FormData | string, headers: Record<string, string> = {}) => {
    const response = await fetch(`${chat.url}/v1/files`, { method: "POST", body, headers });
    const { error } = (await response.json()) as { error: { code: string; message: string } };
    return [response.status, error.code, error.message];
  };
  const form = (parts: Record<string, string | Blob>) => {
    const made = new FormData();
    for (const [name, part] of Object.entries(parts)) made.append(name, part);
    return made;
  };
  const bytes = new Blob(["x"]);
  const cases: [unknown[], RegExp][] = [
    [await post(form({ file: bytes, purpose: "party" })), /purpose/],
    [await post(form({ file: bytes })), /purpose/],
    [await post(form({ purpose: "batch" })), /no part `file`/],
    [await post(form({ file: bytes, purpose: "batch", "expires_after[seconds]": "5" })), /3600/],
    [await post("x", { "content-type": "multipart/form-data" }), /boundary/],
    [
      await post(
        '--b\r\ncontent-disposition: form-data; name="other"; filename="x"\r\ncontent-type: text/plain\r\n\r\nx',
        { "content-type": "multipart/form-data; boundary=b" },
      ),
      /not whole/,
    ],
    [await post("--b\r\ngarbage", { "content-type": "multipart/form-data; boundary=b" }), /not whole/],
  ];
  for (const [[status, code, message], said] of cases) {
    assert.deepEqual([status, code], [400, "request_invalid"]);
    assert.match(String(message), said);
  }
  assert.equal((await post("{}", { "content-type": "application/json" }))[0], 415);
  assert.equal(await countOf("files"), 0);
});

test("a file past the limit is refused by name, without being kept", async () => {
  const piece = Buffer.alloc(1024 * 1024, 97);
  const head = '--b\r\ncontent-disposition: form-data; name="file"; filename="big"\r\n\r\n';
  const status = await new Promise((resolve, reject) => {
    const headers = { "content-type": "multipart/form-data; boundary=b" };
    const sent = request(`${chat.url}/v1/files`, { method: "POST", headers }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    sent.on("error", reject);
    sent.write(head);
    for (let mib = 0; mib < 201; mib += 1) sent.write(piece);
    sent.end("\r\n--b--\r\n");
  });
  assert.equal(status, 413);
  await eventually(
    () => countOf("files"),
    (files) => files === 0,
  );
});

test("an uploader who leaves in the middle leaves nothing", async () => {
  const headers = { "content-type": "multipart/form-data; boundary=b", "content-length": 9_000_000 };
  const sent = request(`${chat.url}/v1/files`, { method: "POST", headers });
  sent.on("error", () => {});
  sent.write('--b\r\ncontent-disposition: form-data; name="file"; filename="big"\r\n\r\n');
  sent.write(Buffer.alloc(3 * 1024 * 1024));
  await eventually(
    () => countOf("file_chunks"),
    (chunks) => chunks > 0,
  );
  sent.destroy();
  await eventually(
    () => countOf("files"),
    (files) => files === 0,
  );
});

test("callers see only their own files", async () => {
  const keys = "one:0123456789abcdef:write,two:fedcba9876543210:write";
  await using guarded = await startChat({ url: "http://127.0.0.1:1" }, database.url, {
    PUGMARK_API_KEYS: keys,
  });
  const [one, two] = ["0123456789abcdef", "fedcba9876543210"].map(
    (apiKey) => new OpenAI({ baseURL: `${guarded.url}/v1`, apiKey }),
  ) as [OpenAI, OpenAI];
  const { id } = await one.files.create({ file: await file("mine"), purpose: "batch" });
  assert.equal((await one.files.list()).data.length, 1);
  assert.equal((await two.files.list()).data.length, 0);
  const unknown = { status: 404, code: "file_unknown" };
  await assert.rejects(two.files.retrieve(id), unknown);
  await assert.rejects(two.files.content(id), unknown);
  await assert.rejects(two.files.delete(id), unknown);
  await one.files.delete(id);
});
