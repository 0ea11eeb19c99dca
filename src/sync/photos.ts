import type { SupabaseClient } from "@supabase/supabase-js";
import type { Log } from "../http/log.ts";
import {
  askAgain,
  forgetObjects,
  noteBucketMade,
  noteObject,
  notePhotoMissing,
  noteSending,
  objectsToRemove,
  type PhotoOnItsWay,
  parkPhoto,
  photosToFetch,
  photosToSend,
  unparkPhotos,
} from "../store/photo-transfers.ts";
import { type PhotoStore, photoBytesMax, sha256Of } from "../store/photos.ts";
import type { Pool } from "../store/pool.ts";
import { LoneWorker } from "./lone-worker.ts";
import { Pace } from "./pace.ts";
import type { Project, Reply } from "./project.ts";
import { troubleOf } from "./trouble.ts";
import { verdictOf } from "./verdict.ts";

export interface PhotoMirrorParts {
  readonly pool: Pool;
  readonly store: PhotoStore;
  readonly project: Project;
  /** Its name in the project's Storage. */
  readonly bucket: string;
  readonly log: Log;
  /** Milliseconds between two looks where nothing waits. Default 2,000. */
  readonly everyMs?: number;
}

/** Of `pg_advisory_lock(7203, …)`: one a database. */
const photosLock = 32;
const everyDefaultMs = 2_000;
/** Files on their way at once: each is in memory whole, 10 MiB at most. */
const lanesMax = 4;
const pagePhotos = 32;
/** Objects of one request. */
const removedAtOnce = 100;
/** Whether the bucket is still private is asked this often. */
const bucketCheckMs = 10 * 60_000;

/**
 * Has the project's Storage hold the files of photos: sends those that are here, fetches those of rows that came from
 * elsewhere, and removes those whose photos are gone. What is to be done is read from the database each time, so whoever
 * is killed goes on where it was, and sends at most again what was on its way.
 */
export class PhotoMirror implements AsyncDisposable {
  readonly #parts: PhotoMirrorParts;
  readonly #worker: LoneWorker<"copying">;
  readonly #pace = new Pace({ firstMs: 200, mostMs: 60_000 });
  #trouble: string | null = null;
  /** Ids of photos whose file did not get through the last time. */
  readonly #failed = new Set<string>();
  /** Of `performance.now()`; undefined where it is not known to be there and private. */
  #bucketSeenAt: number | undefined;

  constructor(parts: PhotoMirrorParts) {
    this.#parts = parts;
    this.#worker = new LoneWorker({
      ...parts,
      lock: photosLock,
      interrupted: "copying photos was interrupted; it is tried again",
      work: (signal) => this.#copy(signal),
    });
  }

  get state(): LoneWorker<"copying">["state"] {
    return this.#worker.state;
  }

  /** Why no file gets through; null where all is well. */
  get trouble(): string | null {
    return this.#trouble;
  }

  /** Looks at once, tries again at once, and asks again for what the project did not have. */
  async hurry(): Promise<void> {
    await askAgain(this.#parts.pool);
    this.#pace.hurry();
    this.#worker.wake();
  }

  /** Tries once more what was set aside. Gives how many files that are. */
  async retry(): Promise<number> {
    const count = await unparkPhotos(this.#parts.pool, "all");
    await this.hurry();
    return count;
  }

  /** Lets the files under way go; they are sent and fetched again next time. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker[Symbol.asyncDispose]();
  }

  async #copy(signal: AbortSignal): Promise<void> {
    const { store, project, log, everyMs = everyDefaultMs } = this.#parts;
    await store.recount();
    const storage = project.storage(signal);
    while (!signal.aborted) {
      await this.#pace.wait(signal);
      try {
        await this.#ensureBucket(storage, signal);
        const isBusy = await this.#round(storage, signal);
        this.#pace.succeeded();
        if (this.#trouble !== null) log.info({}, "photos get through again");
        this.#trouble = null;
        this.#worker.enter(isBusy ? "copying" : "idle");
        if (!isBusy) await this.#worker.sleep(everyMs);
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof NoWay)) throw error;
        this.#pace.failed(project.quietMs);
        if (this.#trouble !== error.message) log.warn({ reason: error.message }, "photos do not get through");
        this.#trouble = error.message;
        this.#bucketSeenAt = undefined;
        this.#worker.enter("waiting");
      }
    }
  }

  /** Makes the bucket where there is none. Throws `NoWay` for one that anybody can read. */
  async #ensureBucket(storage: Storage, signal: AbortSignal): Promise<void> {
    const { pool, project, bucket, log } = this.#parts;
    if (this.#bucketSeenAt !== undefined && performance.now() - this.#bucketSeenAt < bucketCheckMs) return;
    const found = await project.askStorage(storage.getBucket(bucket), signal);
    if (found.data?.public) throw new NoWay(publicBucket(bucket));
    if (found.status === 404) {
      const wanted = { public: false, fileSizeLimit: photoBytesMax, allowedMimeTypes: mediaTypes };
      // Two stations may meet here: the one that comes second looks again, and finds it.
      succeeded(await project.askStorage(storage.createBucket(bucket, wanted), signal));
      await noteBucketMade(pool, bucket);
      log.info({ bucket }, "the project has a bucket for photos now");
    } else succeeded(found);
    this.#bucketSeenAt = performance.now();
  }

  /** Does what is to be done now, or much of it; says whether there was anything. */
  async #round(storage: Storage, signal: AbortSignal): Promise<boolean> {
    const { pool, store, project, bucket } = this.#parts;
    await unparkPhotos(pool, "gone");
    const left = await objectsToRemove(pool, bucket, removedAtOnce);
    const files = storage.from(bucket);
    if (left.length > 0) {
      succeeded(await project.askStorage(files.remove(left.map(({ name }) => name)), signal));
      // Of photos that were deleted elsewhere the files are still here.
      for (const { photoId } of left) await store.dropOrphan(photoId);
      await forgetObjects(pool, left);
    }
    const toSend = await photosToSend(pool, bucket, pagePhotos);
    const toFetch = await photosToFetch(pool, pagePhotos);
    const tasks = [
      ...toSend.map((photo) => ({ photo, run: () => this.#send(files, photo, signal) })),
      ...toFetch.map((photo) => ({ photo, run: () => this.#fetch(files, photo, signal) })),
    ];
    // What failed before comes last: else a few that the project cannot take would keep all others from it.
    tasks.sort((a, b) => Number(this.#failed.has(a.photo.id)) - Number(this.#failed.has(b.photo.id)));
    await abreast(
      tasks.map(({ photo, run }) => async () => {
        this.#failed.add(photo.id);
        await run();
        this.#failed.delete(photo.id);
      }),
    );
    return left.length + toSend.length + toFetch.length > 0;
  }

  async #send(files: Files, photo: PhotoOnItsWay, signal: AbortSignal): Promise<void> {
    const { pool, store, project, bucket } = this.#parts;
    signal.throwIfAborted();
    await using file = await store.open(photo);
    if (!file) return;
    const bytes = await file.readFile();
    if (sha256Of(bytes) !== photo.sha256)
      return await this.#park(photo, "damaged", "the file here is not the photo: its SHA-256 differs");
    await noteSending(pool, photo, bucket);
    const options = { contentType: photo.media_type, upsert: true };
    const reply = await project.askStorage(files.upload(photo.object, bytes, options), signal);
    if (isRefused(reply)) return await this.#park(photo, String(reply.status), reply.error?.message ?? "");
    succeeded(reply);
    await noteObject(pool, photo, bucket, "push");
  }

  async #fetch(files: Files, photo: PhotoOnItsWay, signal: AbortSignal): Promise<void> {
    const { pool, store, project, bucket } = this.#parts;
    signal.throwIfAborted();
    const reply = await project.askStorage(files.download(photo.object).asStream(), signal);
    // Whoever has it may not have sent it yet. Without a bucket there would be nothing to wait for.
    if (reply.status === 404 && !/bucket/i.test(reply.error?.message ?? ""))
      return await notePhotoMissing(pool, photo.id);
    const bytes = await readUpTo(succeeded(reply), photo.bytes);
    if (sha256Of(bytes) !== photo.sha256)
      return await this.#park(
        photo,
        "damaged",
        "the object in the project is not the photo: its SHA-256 differs",
      );
    if (await store.keep(photo, bytes)) await noteObject(pool, photo, bucket, "pull");
  }

  async #park({ id, object }: PhotoOnItsWay, code: string, reason: string): Promise<void> {
    const { pool, log } = this.#parts;
    await parkPhoto(pool, id, { code, reason });
    log.warn({ photo: id, object, code, reason }, "file of a photo set aside");
  }
}

type Storage = SupabaseClient["storage"];
type Files = ReturnType<Storage["from"]>;

const mediaTypes = ["image/jpeg", "image/png", "image/webp"];

/** Nothing gets through now, for a reason that time or a person can mend. */
class NoWay extends Error {}

function publicBucket(bucket: string): string {
  return (
    `the bucket ${bucket} is public: whoever knows a photo's address could see it. Make it private ` +
    "(dashboard: Storage → the bucket → Edit bucket), or name another one in SUPABASE_PHOTOS_BUCKET"
  );
}

/** Throws `NoWay`, with what keeps the project from it. */
function succeeded<T>(reply: Reply<T>): T {
  if (reply.error !== null) throw new NoWay(troubleOf(reply));
  return reply.data as T;
}

/** Whether it is this file that the project does not take. A conflict passes: somebody else is sending the same one. */
function isRefused(reply: Reply): boolean {
  if (reply.status === 409) return false;
  return reply.status === 415 || verdictOf(reply) === "refused";
}

/** Reads a body to its end, or until it is surely too long. Throws `NoWay` where it breaks off. */
async function readUpTo(body: ReadableStream<Uint8Array>, bytesMax: number): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  try {
    for await (const piece of body) {
      pieces.push(piece);
      bytes += piece.length;
      if (bytes > bytesMax) break;
    }
  } catch (error) {
    throw new NoWay(`a file broke off on its way: ${error instanceof Error ? error.message : error}`);
  }
  return Buffer.concat(pieces);
}

/**
 * Does all of it, a few at once. What fails does not keep the others from being done, unless as many failed as there
 * are lanes. Throws the first failure in the end, when nothing is under way any more.
 */
async function abreast(tasks: readonly (() => Promise<void>)[]): Promise<void> {
  const waiting = [...tasks];
  const failures: unknown[] = [];
  const lane = async () => {
    for (let task = waiting.shift(); task && failures.length < lanesMax; task = waiting.shift()) {
      await task().catch((error: unknown) => failures.push(error));
    }
  };
  await Promise.all(Array.from({ length: lanesMax }, lane));
  if (failures.length > 0) throw failures.find((failure) => !(failure instanceof NoWay)) ?? failures[0];
}
