import assert from "node:assert/strict";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { withoutMetadata } from "../../photos/image-metadata.ts";
import { cameraExif, jpeg, png, secrets, webp } from "../../photos/pictures.fixture.ts";
import { PhotoFiles } from "../../store/photo-files.ts";
import { PhotoStore, sha256Of } from "../../store/photos.ts";
import { type TestApi, testApi } from "../api.fixture.ts";

let api: TestApi;
const home = mkdtempSync(join(tmpdir(), "pugmark-photos-"));
const folder = join(home, "photos");

before(async () => {
  api = await testApi({
    PUGMARK_HOME: home,
    PUGMARK_API_KEYS: "reader:r-key-000000000001:read,writer:w-key-000000000001:write+read",
  });
  await register("Ada");
});
after(async () => {
  await api[Symbol.asyncDispose]();
  rmSync(home, { recursive: true });
});

async function register(name: string): Promise<void> {
  await api.pool.query("insert into subjects (id, name) values (gen_random_uuid(), $1)", [name]);
}

type Headers = Record<string, string>;
const key = { "x-api-key": "w-key-000000000001" };
const ask = (method: "GET" | "DELETE", url: string, headers: Headers = {}) =>
  api.app.inject({ method, url, headers: { host: "127.0.0.1", ...key, ...headers } });
const add = (
  subject: string,
  body: Buffer,
  query = "",
  headers: Headers = { "content-type": "image/jpeg" },
) =>
  api.app.inject({
    method: "POST",
    url: `/api/v1/subjects/${subject}/photos${query}`,
    headers: { host: "127.0.0.1", ...key, ...headers },
    payload: body,
  });
const codeOf = ({ statusCode, body }: { statusCode: number; body: string }) =>
  `${statusCode} ${JSON.parse(body).code}`;

test("a photo is kept without what it says of where it was taken, and comes back as it is kept", async () => {
  const sent = jpeg({ exif: cameraExif(6), after: Buffer.from(`a film ${secrets[0]}`) });
  for (const secret of secrets) assert.ok(sent.includes(secret));
  const added = await add("Ada", sent, "?taken_at=2026-03-01T10:00:00%2B01:00&caption=left%20wing");
  assert.equal(added.statusCode, 201);
  const photo = added.json();
  const kept = withoutMetadata(sent).bytes;
  assert.partialDeepStrictEqual(photo, {
    media_type: "image/jpeg",
    bytes: kept.length,
    sha256: sha256Of(kept),
    taken_at: "2026-03-01T09:00:00.000Z",
    caption: "left wing",
  });
  assert.equal(added.headers.location, `/api/v1/photos/${photo.id}`);
  assert.deepEqual((await ask("GET", `/api/v1/photos/${photo.id}`)).json(), photo);

  const content = await ask("GET", `/api/v1/photos/${photo.id}/content`);
  assert.deepEqual(content.rawPayload, kept);
  for (const secret of secrets) assert.ok(!content.rawPayload.includes(secret));
  assert.partialDeepStrictEqual(content.headers, {
    "content-type": "image/jpeg",
    "content-length": String(kept.length),
    "x-content-type-options": "nosniff",
    etag: `"${photo.sha256}"`,
  });
  assert.match(String(content.headers["content-security-policy"]), /(^|; )sandbox$/);
  assert.deepEqual(readFileSync(join(folder, photo.id)), kept);
  assert.equal(statSync(join(folder, photo.id)).mode & 0o777, 0o600);
  assert.equal(statSync(folder).mode & 0o777, 0o700);
});

test("who has it already is not sent it again", async () => {
  const { id, sha256 } = (await add("Ada", png(), "", { "content-type": "image/png" })).json();
  for (const known of [`"${sha256}"`, `"other", W/"${sha256}"`, "*"]) {
    const reply = await ask("GET", `/api/v1/photos/${id}/content`, { "if-none-match": known });
    assert.deepEqual([reply.statusCode, reply.body, reply.headers.etag], [304, "", `"${sha256}"`]);
  }
  const other = await ask("GET", `/api/v1/photos/${id}/content`, { "if-none-match": '"other"' });
  assert.equal(other.statusCode, 200);
});

test("the same photo of the same subject is one, with and without metadata, at once too; of another it is another", async () => {
  await register("Bea");
  const noise = Buffer.from("the same picture");
  const replies = await Promise.all([
    add("Bea", jpeg({ noise }), "?caption=first"),
    add("Bea", jpeg({ noise, exif: cameraExif(1) }), "?caption=second"),
    add("Bea", jpeg({ noise })),
  ]);
  assert.deepEqual(replies.map(({ statusCode }) => statusCode).sort(), [200, 200, 201]);
  const [first, ...others] = replies.map((reply) => reply.json());
  for (const other of others) assert.deepEqual(other, first);
  const { data } = (await ask("GET", "/api/v1/subjects/Bea/photos")).json();
  assert.deepEqual(data, [first]);
  const ofAda = await add("Ada", jpeg({ noise }));
  assert.equal(ofAda.statusCode, 201);
  assert.notEqual(ofAda.json().id, first.id);
});

test("photos of a subject come in pages, those added last first", async () => {
  await register("Cleo");
  const ids: string[] = [];
  for (let index = 0; index < 5; index += 1) {
    const { id } = (await add("Cleo", jpeg())).json();
    ids.unshift(id);
  }
  const found: string[] = [];
  let cursor: string | null = "";
  do {
    const page: { data: { id: string }[]; next_cursor: string | null } = (
      await ask("GET", `/api/v1/subjects/Cleo/photos?limit=2${cursor ? `&cursor=${cursor}` : ""}`)
    ).json();
    found.push(...page.data.map(({ id }) => id));
    cursor = page.next_cursor;
  } while (cursor !== null);
  assert.deepEqual(found, ids);
  assert.equal(
    codeOf(await ask("GET", "/api/v1/subjects/Cleo/photos?cursor=nonsense")),
    "400 cursor-invalid",
  );
});

test("a WebP and a PNG are as good as a JPEG", async () => {
  await register("Hal");
  for (const [type, picture] of [
    ["image/png", png()],
    ["image/webp", webp()],
  ] as const) {
    const reply = await add("Hal", picture, "", { "content-type": type });
    assert.deepEqual([reply.statusCode, reply.json().media_type], [201, type]);
  }
});

test("what is no picture, too large, or not what it is said to be, is refused and leaves nothing", async () => {
  await register("Dora");
  const before = readdirSync(folder).sort();
  const [type, ...refused] = ["image/jpeg", "image/png", "image/gif", "application/json", "text/plain"];
  for (const [code, body, as] of [
    ["415 photo-unrecognised", Buffer.from("hello"), type],
    ["415 photo-unrecognised", jpeg().subarray(0, 60), type],
    ["415 photo-unrecognised", Buffer.alloc(0), type],
    ["415 photo-unrecognised", jpeg(), refused[0]],
    ["415 media-type-unsupported", jpeg(), refused[1]],
    ["415 media-type-unsupported", Buffer.from("{}"), refused[2]],
    ["415 media-type-unsupported", jpeg(), refused[3]],
    ["413 body-too-large", Buffer.alloc(10 * 1024 * 1024 + 1), type],
  ] as const)
    assert.equal(codeOf(await add("Dora", body, "", { "content-type": as ?? "" })), code);
  assert.equal(codeOf(await add("Dora", jpeg(), "", {})), "415 media-type-unsupported");
  assert.equal(codeOf(await add("Nobody", jpeg())), "404 subject-unknown");
  assert.equal(codeOf(await add("Dora", jpeg(), "?taken_at=yesterday")), "400 request-invalid");
  assert.equal(codeOf(await add("Dora", jpeg(), "?caption=a%00b")), "400 text-invalid");
  assert.equal(codeOf(await add("Dora", jpeg(), `?caption=${"a".repeat(501)}`)), "400 request-invalid");
  assert.deepEqual((await ask("GET", "/api/v1/subjects/Dora/photos")).json().data, []);
  assert.deepEqual(readdirSync(folder).sort(), before);
});

test("a photo of ten megabytes is taken", async () => {
  await register("Emma");
  const noise = Buffer.alloc(10 * 1024 * 1024 - 400, 7);
  const reply = await add("Emma", jpeg({ noise }));
  assert.equal(reply.statusCode, 201);
  assert.ok(reply.json().bytes > 10_000_000);
});

test("who may only read adds and deletes nothing", async () => {
  const readOnly = { "x-api-key": "r-key-000000000001" };
  const { id } = (await add("Ada", jpeg())).json();
  const refused = await add("Ada", jpeg(), "", { "content-type": "image/jpeg", ...readOnly });
  assert.equal(codeOf(refused), "403 scope-missing");
  assert.equal(codeOf(await ask("DELETE", `/api/v1/photos/${id}`, readOnly)), "403 scope-missing");
  assert.equal((await ask("GET", `/api/v1/photos/${id}/content`, readOnly)).statusCode, 200);
});

test("a deleted photo is gone, row and file, and may be added again", async () => {
  const picture = jpeg();
  const { id } = (await add("Ada", picture)).json();
  assert.equal((await ask("DELETE", `/api/v1/photos/${id}`)).statusCode, 204);
  assert.ok(!readdirSync(folder).includes(id));
  for (const path of ["", "/content"])
    assert.equal(codeOf(await ask("GET", `/api/v1/photos/${id}${path}`)), "404 photo-unknown");
  assert.equal(codeOf(await ask("DELETE", `/api/v1/photos/${id}`)), "404 photo-unknown");
  assert.equal(codeOf(await ask("DELETE", "/api/v1/photos/no-id")), "404 photo-unknown");
  assert.equal((await add("Ada", picture)).json().id, id);
});

test("a photo whose file is not here, or not whole, is elsewhere; adding it again brings it here", async () => {
  const picture = jpeg();
  const { id, sha256 } = (await add("Ada", picture)).json();
  const content = () => ask("GET", `/api/v1/photos/${id}/content`);
  writeFileSync(join(folder, id), "half");
  assert.equal(codeOf(await content()), "404 photo-elsewhere");
  rmSync(join(folder, id));
  assert.equal(codeOf(await content()), "404 photo-elsewhere");
  assert.equal((await add("Ada", picture)).statusCode, 200);
  assert.equal(sha256Of((await content()).rawPayload), sha256);
});

test("files that a crash left without a row are shown to nobody, and swept once they are old", async () => {
  const { id } = (await add("Ada", jpeg())).json();
  const orphan = "00000000-0000-5000-8000-000000000001";
  const [fresh, half] = ["00000000-0000-5000-8000-000000000002", ".0123456789ab"];
  for (const name of [orphan, fresh, half]) writeFileSync(join(folder, name), jpeg());
  const old = new Date(Date.now() - 2 * 60 * 60_000);
  for (const name of [id, orphan, half]) utimesSync(join(folder, name), old, old);
  assert.equal(codeOf(await ask("GET", `/api/v1/photos/${orphan}/content`)), "404 photo-unknown");
  const photos = new PhotoStore(api.pool, new PhotoFiles(home));
  const hourAgo = Date.now() - 60 * 60_000;
  assert.equal(await photos.sweep(hourAgo), 2);
  const left = readdirSync(folder);
  assert.deepEqual(
    [id, orphan, fresh, half].map((name) => left.includes(name)),
    [true, false, true, false],
  );
  assert.equal(await photos.sweep(hourAgo), 0);
});

test("a database that knows none of the files keeps them: they may be all that is left", async () => {
  const other = join(home, "other");
  mkdirSync(join(other, "photos"), { recursive: true });
  const file = join(other, "photos", "00000000-0000-5000-8000-000000000003");
  writeFileSync(file, jpeg());
  utimesSync(file, 0, 0);
  assert.equal(await new PhotoStore(api.pool, new PhotoFiles(other)).sweep(Date.now()), 0);
  assert.ok(readFileSync(file).length > 0);
});

test("a subject that is deleted takes its photos along", async () => {
  await register("Fay");
  const { id } = (await add("Fay", jpeg())).json();
  await api.pool.query("delete from subjects where name = 'Fay'");
  assert.equal(codeOf(await ask("GET", `/api/v1/photos/${id}/content`)), "404 photo-unknown");
  const photos = new PhotoStore(api.pool, new PhotoFiles(home));
  assert.equal(await photos.sweep(Date.now() + 60_000), 2);
});

test("a photo that cannot be written is refused with the reason, and the path is told to nobody", async () => {
  renameSync(folder, `${folder}.away`);
  writeFileSync(folder, "no folder");
  const refused = await add("Ada", jpeg({ after: Buffer.from("unwritten") }));
  rmSync(folder);
  renameSync(`${folder}.away`, folder);
  assert.equal(codeOf(refused), "503 photo-unwritable");
  assert.match(refused.json().detail, /the disk refuses to be written/);
  assert.ok(!refused.body.includes(home));
});
