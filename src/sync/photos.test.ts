import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { startFaultProxy } from "../../test/support/fault-proxy.ts";
import { type SupabaseProject, startSupabaseProject } from "../../test/support/supabase-project.ts";
import { withoutMetadata } from "../photos/image-metadata.ts";
import { jpeg } from "../photos/pictures.fixture.ts";
import { subjectIdOf } from "../store/known-ids.ts";
import { PhotoFiles } from "../store/photo-files.ts";
import type { Photo } from "../store/photo-row.ts";
import { notePhotosBucket } from "../store/photo-transfers.ts";
import { PhotoStore, sha256Of } from "../store/photos.ts";
import { query } from "../store/pool.ts";
import type { MirrorChoice } from "./mirror-choice.ts";
import type { SyncStatus } from "./routes/status.ts";
import { eventually, type TestMirror, testMirror } from "./sync.fixture.ts";

let project: SupabaseProject;
let storage: SupabaseClient["storage"];

beforeEach(async () => {
  project = await startSupabaseProject();
  storage = createClient(project.url, project.secretKey).storage;
});
afterEach(() => project[Symbol.asyncDispose]());

interface PhotoStation extends AsyncDisposable {
  readonly mirror: TestMirror;
  readonly photos: PhotoStore;
  readonly home: string;
  readonly start: () => Promise<void>;
  readonly status: () => Promise<SyncStatus>;
  /** Adds a photo of a subject that is registered where it is new. */
  readonly add: (subject: string, bytes?: Buffer) => Promise<Photo>;
  /** The bytes of a photo here; undefined where there are none. */
  readonly bytesOf: (photo: Photo) => Buffer | undefined;
  /** Resolves when nothing waits in either direction. */
  readonly settled: () => Promise<SyncStatus>;
}

/** A station with a home of its own, not yet connected; without a bucket its photos stay with it. */
async function photoStation(
  bucket: string | undefined,
  { url = project.url, ...choice }: Partial<MirrorChoice> & { readonly url?: string } = {},
): Promise<PhotoStation> {
  const home = mkdtempSync(join(tmpdir(), "pugmark-photos-"));
  const mirror = await testMirror({ url, secretKey: project.secretKey }, choice);
  const photos = new PhotoStore(mirror.pool, new PhotoFiles(home));
  const status = async () => (await mirror.ask("GET /status"))[0] as unknown as SyncStatus;
  return {
    ...{ mirror, photos, home, status },
    start: () => mirror.start(bucket === undefined ? {} : { photos: { home, bucket } }),
    add: async (subject, bytes = jpeg()) => {
      const id = subjectIdOf(subject);
      const register = "insert into subjects (id, name) values ($1, $2) on conflict (id) do nothing";
      await mirror.pool.query(register, [id, subject]);
      const added = await photos.add(id, withoutMetadata(bytes), {});
      assert.ok(added);
      return added.photo;
    },
    bytesOf: ({ id }) => {
      const file = join(home, "photos", id);
      return existsSync(file) ? readFileSync(file) : undefined;
    },
    settled: async () =>
      await eventually(status, ({ photos: waiting, changes_waiting, photos_error: error }) =>
        waiting === null
          ? changes_waiting === 0
          : waiting.to_send + waiting.to_fetch + changes_waiting === 0 && error === null,
      ),
    async [Symbol.asyncDispose]() {
      await mirror[Symbol.asyncDispose]();
      rmSync(home, { recursive: true });
    },
  };
}

/** The file behind a photo's object; undefined where there is no object. */
function objectOf(bucket: string, { id, subject_id: subject }: Photo): Buffer | undefined {
  const file = join(project.folder, bucket, subject, `${id}.jpg`);
  return existsSync(file) ? readFileSync(file) : undefined;
}

async function rowsThere({ mirror }: PhotoStation, photo: Photo): Promise<number> {
  const { rowCount } = await query(mirror.pool, "select from photos where id = $1", [photo.id]);
  return rowCount ?? 0;
}

test("a photo is in a private bucket soon after it was added, and its bytes are those that are kept here", async () => {
  await using station = await photoStation("first");
  const early = await station.add("Ada");
  await station.start();
  const late = await station.add("Ada");
  const status = await station.settled();
  assert.deepEqual(status.photos, { bucket: "first", to_send: 0, to_fetch: 0 });
  for (const photo of [early, late]) assert.deepEqual(objectOf("first", photo), station.bytesOf(photo));
  const { data: bucket } = await storage.getBucket("first");
  assert.partialDeepStrictEqual(bucket, {
    public: false,
    file_size_limit: 10 * 1024 * 1024,
    allowed_mime_types: ["image/jpeg", "image/png", "image/webp"],
  });
});

test("files that the project cannot take just now keep no other from it", async () => {
  await using station = await photoStation("picky");
  const photos: Photo[] = [];
  for (let number = 0; number < 10; number += 1) photos.push(await station.add("Ada"));
  const [oldest, ...newer] = photos as [Photo, ...Photo[]];
  // Where a folder is, its Storage fails to write a file.
  for (const { id, subject_id: subject } of newer)
    mkdirSync(join(project.folder, "picky", subject, `${id}.jpg`, "in the way"), { recursive: true });
  await station.start();
  await eventually(
    async () => objectOf("picky", oldest),
    (bytes) => bytes !== undefined,
  );
  assert.notEqual((await station.status()).photos_error, null);
});

test("a new station gets the same bytes, and what it deletes goes from the project and the other one", async () => {
  await using north = await photoStation("shared");
  await using south = await photoStation("shared");
  const photos = [await north.add("Bea"), await north.add("Bea"), await north.add("Bea")];
  await north.start();
  await north.settled();
  await south.start();
  await eventually(
    async () => photos.map((photo) => south.bytesOf(photo)),
    (files) => files.every((bytes, index) => bytes && sha256Of(bytes) === photos[index]?.sha256),
  );
  await south.settled();

  const [first, second, third] = photos as [Photo, Photo, Photo];
  assert.ok(await south.photos.remove(first.id));
  await eventually(
    async () => [await rowsThere(north, first), objectOf("shared", first), north.bytesOf(first)],
    ([rows, object, file]) => rows === 0 && object === undefined && file === undefined,
  );
  // With its subject they go as well, and others stay.
  const other = await north.add("Cleo");
  await north.mirror.pool.query("delete from subjects where id = $1", [second.subject_id]);
  await eventually(
    async () => [objectOf("shared", second), objectOf("shared", third), south.bytesOf(other)],
    ([one, two, more]) => one === undefined && two === undefined && more !== undefined,
  );
  assert.ok(objectOf("shared", other));
});

test("a photo that is deleted before anybody here fetched it goes from the project, too", async () => {
  await using north = await photoStation("unseen");
  await using south = await photoStation("unseen");
  const photo = await north.add("Dora");
  await north.start();
  await north.settled();
  await north.mirror.stop();
  // Its row gets here, and its file no further than the project.
  await notePhotosBucket(south.mirror.pool, "unseen");
  await query(south.mirror.pool, "insert into subjects (id, name) values ($1, 'Dora')", [photo.subject_id]);
  await query(
    south.mirror.pool,
    `insert into photos (id, subject_id, sha256, media_type, bytes) values ($1, $2, $3, 'image/jpeg', $4)`,
    [photo.id, photo.subject_id, photo.sha256, photo.bytes],
  );
  assert.ok(await south.photos.remove(photo.id));
  await south.start();
  await eventually(
    async () => objectOf("unseen", photo),
    (object) => object === undefined,
  );
});

test("a project that is killed in the middle, and a service that is, cost nothing but time", async () => {
  await using station = await photoStation("killed");
  const photos = await Promise.all(Array.from({ length: 12 }, () => station.add("Emma")));
  await using proxy = await startFaultProxy({ target: project.url, seed: 3, rate: 0 });
  await using away = await photoStation("killed", { url: proxy.url });
  await station.start();
  await eventually(
    async () => photos.filter((photo) => objectOf("killed", photo)).length,
    (count) => count > 0,
  );
  await project.kill();
  await eventually(station.status, ({ photos_error: error }) => error !== null);
  assert.match((await station.status()).photos_error ?? "", /^the project does not answer/);
  // Photos are added all the same.
  photos.push(await station.add("Emma"));
  await project.restart();
  await station.settled();
  await away.start();
  await proxy.arrivals(12);
  await away.mirror.stop();
  await away.start();
  await eventually(
    async () => photos.filter((photo) => away.bytesOf(photo)).length,
    (count) => count === photos.length,
  );
  for (const photo of photos) {
    assert.deepEqual(objectOf("killed", photo), station.bytesOf(photo));
    assert.deepEqual(away.bytesOf(photo), station.bytesOf(photo));
  }
});

test("answers that break off, connections that break, and refusals that pass leave every photo whole on both sides", async () => {
  const faults = ["kill-before", "kill-after", "cut-off", "slow", 409, 429, 500, 502, 503] as const;
  await using proxy = await startFaultProxy({ target: project.url, seed: 7, rate: 0.35, faults, slowMs: 30 });
  await using north = await photoStation("stormy", { url: proxy.url });
  await using south = await photoStation("stormy", { url: proxy.url });
  const photos = await Promise.all(
    Array.from({ length: 10 }, (_, index) =>
      north.add("Fay", jpeg({ noise: Buffer.alloc(200_000, index + 1) })),
    ),
  );
  await north.start();
  await eventually(
    async () => photos.filter((photo) => objectOf("stormy", photo)).length,
    (count) => count === photos.length,
  );
  await south.start();
  await eventually(
    async () => photos.filter((photo) => south.bytesOf(photo)).length,
    (count) => count > 3,
  );
  proxy.calm();
  await Promise.all([north.settled(), south.settled()]);
  for (const photo of photos) {
    assert.equal(sha256Of(objectOf("stormy", photo) ?? Buffer.alloc(0)), photo.sha256);
    assert.equal(sha256Of(south.bytesOf(photo) ?? Buffer.alloc(0)), photo.sha256);
  }
  // Of what was on its way nothing is left over.
  assert.equal(readdirSync(join(south.home, "photos")).length, photos.length);
  assert.equal((await south.status()).parked_rows, 0);
});

test("a bucket that anybody can read gets no photo, and the status says why until it is private", async () => {
  await storage.createBucket("open", { public: true });
  await using station = await photoStation("open");
  const photo = await station.add("Gil");
  await station.start();
  const { photos, photos_error: error } = await eventually(
    station.status,
    ({ photos_error }) => photos_error !== null,
  );
  assert.match(error ?? "", /^the bucket open is public: .*SUPABASE_PHOTOS_BUCKET$/);
  assert.equal(photos?.to_send, 1);
  assert.equal(objectOf("open", photo), undefined);
  await storage.updateBucket("open", { public: false });
  await station.mirror.ask("POST /push");
  await station.settled();
  assert.ok(objectOf("open", photo));
});

test("without a bucket rows are mirrored, and files stay", async () => {
  await using station = await photoStation(undefined);
  await using other = await photoStation("elsewhere");
  const photo = await station.add("Hal");
  await station.start();
  await other.start();
  await station.mirror.ask("POST /push");
  await eventually(
    () => rowsThere(other, photo),
    (rows) => rows === 1,
  );
  // Which is no fault: the file may come.
  const status = await eventually(other.status, ({ photos }) => photos?.to_fetch === 1);
  assert.deepEqual([status.photos_error, status.parked_rows], [null, 0]);
  assert.equal((await station.status()).photos, null);
  assert.ok(!existsSync(join(project.folder, "elsewhere")));
  // As soon as it has one, they go.
  await station.mirror.stop();
  await station.mirror.start({ photos: { home: station.home, bucket: "elsewhere" } });
  await station.settled();
  await other.mirror.ask("POST /pull");
  await other.settled();
  assert.deepEqual(other.bytesOf(photo), station.bytesOf(photo));
});

test("photos that SUPABASE_MIRROR leaves out are not sent, and their deletion is nobody else's", async () => {
  await using station = await photoStation("left-out", { names: ["subjects"] });
  const photo = await station.add("Ida");
  await station.start();
  await station.mirror.ask("POST /push");
  await eventually(station.status, ({ photos_state: state }) => state === "idle");
  assert.deepEqual((await station.status()).photos, { bucket: "left-out", to_send: 0, to_fetch: 0 });
  assert.equal(objectOf("left-out", photo), undefined);
  await station.photos.remove(photo.id);
  const { rowCount } = await query(station.mirror.pool, "select from sync.photo_objects");
  assert.equal(rowCount, 0);
});

test("a file that the project refuses for good is set aside with its reason, and sent once it is taken", async () => {
  await storage.createBucket("small", { public: false, fileSizeLimit: 2_000 });
  await using station = await photoStation("small");
  const large = await station.add("Jo", jpeg({ noise: Buffer.alloc(5_000, 1) }));
  const small = await station.add("Jo");
  await station.start();
  const { parked, photos_error: error } = await eventually(
    station.status,
    ({ parked_rows }) => parked_rows === 1,
  );
  assert.equal(error, null);
  assert.partialDeepStrictEqual(parked[0], {
    direction: "photo",
    table: "photos",
    id: large.id,
    code: "413",
  });
  assert.match(parked[0]?.reason ?? "", /maximum allowed size/);
  await station.settled();
  assert.deepEqual([objectOf("small", large), objectOf("small", small)], [undefined, station.bytesOf(small)]);
  await storage.updateBucket("small", { public: false, fileSizeLimit: 20_000 });
  const [done] = (await station.mirror.ask("POST /retry")).slice(-1);
  assert.equal(done?.retried, 1);
  await eventually(
    async () => objectOf("small", large),
    (object) => object !== undefined,
  );
  assert.equal((await station.settled()).parked_rows, 0);
});

test("an object that is not the photo is not kept, and said to be none", async () => {
  await using north = await photoStation("swapped");
  await using south = await photoStation("swapped");
  const photo = await north.add("Kim");
  await north.start();
  await north.settled();
  const file = join(project.folder, "swapped", photo.subject_id, `${photo.id}.jpg`);
  const right = readFileSync(file);
  writeFileSync(file, jpeg({ noise: Buffer.alloc(100_000) }));
  await south.start();
  const { parked } = await eventually(south.status, ({ parked_rows }) => parked_rows === 1);
  assert.match(parked[0]?.reason ?? "", /is not the photo/);
  assert.equal(south.bytesOf(photo), undefined);
  writeFileSync(file, right);
  await south.mirror.ask("POST /retry");
  await south.settled();
  assert.deepEqual(south.bytesOf(photo), right);
});

test("a file that is damaged here is not sent, and is once it was added again", async () => {
  await using station = await photoStation("damaged");
  const picture = jpeg();
  const photo = await station.add("Liv", picture);
  writeFileSync(join(station.home, "photos", photo.id), Buffer.alloc(photo.bytes));
  await station.start();
  const { parked } = await eventually(station.status, ({ parked_rows }) => parked_rows === 1);
  assert.match(parked[0]?.reason ?? "", /^the file here is not the photo/);
  assert.equal(objectOf("damaged", photo), undefined);
  assert.equal((await station.add("Liv", picture)).id, photo.id);
  assert.equal((await station.settled()).parked_rows, 0);
  assert.deepEqual(objectOf("damaged", photo), picture);
});

test("a home that has lost its files gets them back, and a bucket that is made anew all that are here", async () => {
  await using station = await photoStation("again");
  const photos = [await station.add("Lea"), await station.add("Lea")];
  await station.start();
  await station.settled();
  await station.mirror.stop();
  const kept = photos.map((photo) => station.bytesOf(photo));
  rmSync(join(station.home, "photos"), { recursive: true });
  await station.start();
  await eventually(
    async () => photos.map((photo) => station.bytesOf(photo)),
    (files) => files.every(Boolean),
  );
  await station.settled();
  assert.deepEqual(
    photos.map((photo) => station.bytesOf(photo)),
    kept,
  );
  await station.mirror.stop();
  await storage.emptyBucket("again");
  await storage.deleteBucket("again");
  rmSync(join(project.folder, "again"), { recursive: true, force: true });
  await station.start();
  await eventually(
    async () => photos.map((photo) => objectOf("again", photo)),
    (objects) => objects.every(Boolean),
  );
});
