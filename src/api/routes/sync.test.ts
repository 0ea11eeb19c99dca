import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { notePhotosBucket } from "../../store/photo-transfers.ts";
import { openPool } from "../../store/pool.ts";
import { confirmChanges, readChanges, recordChanges } from "../../store/sync-changes.ts";
import { ensureStation, noteError, stopRecording } from "../../store/sync-state.ts";
import { type TestApi, testApi } from "../api.fixture.ts";

let api: TestApi;
before(async () => {
  api = await testApi();
});
after(() => api[Symbol.asyncDispose]());

const report = async () => (await api.get("/api/v1/system/sync")).json();
const metrics = async () => (await api.get("/metrics")).body;

const position = (second: number) => ({
  device: "collar",
  time: new Date(Date.parse("2026-03-01T00:00:00Z") + second * 1_000).toISOString(),
  lat: 1,
  lon: 2,
});

test("a station without a project says so, and records nothing", async () => {
  await api.post("/api/v1/positions", [position(0)]);
  assert.partialDeepStrictEqual(await report(), {
    station: null,
    tables: [],
    changes_waiting: 0,
    parked_rows: 0,
  });
  assert.match(await metrics(), /^pugmark_sync_changes_waiting\{service="api"\} 0$/m);
});

test("what waits, for how long and why, is in the report and the metrics, down to what was sent", async () => {
  await recordChanges(api.pool, ["devices", "positions"]);
  await ensureStation(api.pool, "barn");
  await api.post("/api/v1/positions", [position(1), position(2)]);
  await noteError(api.pool, "push", "the project does not answer");
  const waiting = await report();
  assert.partialDeepStrictEqual(waiting, {
    station: { name: "barn" },
    tables: ["devices", "positions"],
    changes_waiting: 2,
    push_error: "the project does not answer",
  });
  assert.ok(waiting.lag_seconds >= 0 && waiting.error_since !== null);
  assert.match(await metrics(), /^pugmark_sync_changes_waiting\{service="api"\} 2$/m);

  const sent = { direction: "push", table: "positions", outcome: "sent", rows: 2 } as const;
  await confirmChanges(api.pool, await readChanges(api.pool, 100), [sent]);
  await noteError(api.pool, "push", null);
  assert.partialDeepStrictEqual(await report(), { changes_waiting: 0, lag_seconds: 0, push_error: null });
  assert.match(
    await metrics(),
    /^pugmark_sync_rows_total\{direction="push",table="positions",outcome="sent",service="api"\} 2$/m,
  );
});

test("photos wait for the project with their files, and for their files from it, where there is a bucket", async () => {
  const photo = (id: number) => `00000000-0000-5000-8000-00000000000${id}`;
  await api.pool.query(
    `with subject as (insert into subjects (id, name) values (gen_random_uuid(), 'seen') returning id)
     insert into photos (id, subject_id, sha256, media_type, bytes)
     select photo, id, repeat('0', 64), 'image/png', 1 from subject, unnest($1::uuid[]) as photo`,
    [[photo(1), photo(2), photo(3)]],
  );
  await api.pool.query("insert into sync.photo_files values ($1, true), ($2, true)", [photo(1), photo(2)]);
  assert.equal((await report()).photos, null);
  await recordChanges(api.pool, ["subjects", "photos"]);
  await notePhotosBucket(api.pool, "pictures");
  assert.deepEqual((await report()).photos, { bucket: "pictures", to_send: 2, to_fetch: 1 });
  const sent =
    "insert into sync.photo_objects values ($1, 'pictures', 'n', now()), ($2, 'other', 'n', now())";
  await api.pool.query(sent, [photo(1), photo(2)]);
  assert.deepEqual((await report()).photos, { bucket: "pictures", to_send: 1, to_fetch: 1 });
  assert.match(await metrics(), /^pugmark_sync_photos_to_send\{service="api"\} 1$/m);
  assert.match(await metrics(), /^pugmark_sync_photos_to_fetch\{service="api"\} 1$/m);
  // What the project is not told is not waited for.
  await recordChanges(api.pool, ["devices", "positions"]);
  assert.deepEqual((await report()).photos, { bucket: "pictures", to_send: 0, to_fetch: 1 });
});

test("without a project any more, nothing is recorded and nothing waits", async () => {
  await api.post("/api/v1/positions", [position(3)]);
  assert.equal((await report()).changes_waiting, 1);
  const owner = openPool({ url: api.database.url, name: "owner", max: 1 });
  await stopRecording(owner);
  await owner.end();
  await api.post("/api/v1/positions", [position(4)]);
  assert.partialDeepStrictEqual(await report(), { tables: [], changes_waiting: 0, photos: null });
});
