import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import type { CleanPicture } from "../photos/image-metadata.ts";
import { photoIdOf } from "./known-ids.ts";
import type { PhotoFiles } from "./photo-files.ts";
import { type Photo, type PhotoCursor, photoColumns, utc } from "./photo-row.ts";
import { notePhotoFiles, notePhotoHere, notePhotoLost } from "./photo-transfers.ts";
import { type Client, type Pool, query, transaction } from "./pool.ts";

export interface PhotoWords {
  /** Epoch milliseconds. */
  readonly takenAt?: number | undefined;
  readonly caption?: string | undefined;
}

/** The largest file of a photo, bytes; the table's own bound. */
export const photoBytesMax = 10 * 1024 * 1024;

/**
 * Photos: rows, and the file of each. A file is on disk before its row is there, and goes after it, so that no row which this
 * station made is ever without; what a crash leaves between is a file without a row, which nobody is shown.
 */
export class PhotoStore {
  readonly #pool: Pool;
  readonly #files: PhotoFiles;

  constructor(pool: Pool, files: PhotoFiles) {
    this.#pool = pool;
    this.#files = files;
  }

  /**
   * Keeps a photo of a subject and gives its row; of one that is there already the row stays as it is. Undefined where
   * there is no such subject.
   */
  async add(
    subjectId: string,
    { mediaType, bytes }: CleanPicture,
    { takenAt, caption }: PhotoWords,
  ): Promise<{ readonly photo: Photo; readonly isNew: boolean } | undefined> {
    const sha256 = sha256Of(bytes);
    const id = photoIdOf(subjectId, sha256);
    await using file = await this.#files.write(bytes);
    try {
      return await transaction(this.#pool, async (client) => {
        await lock(client, id);
        await file.place(id);
        const { rowCount } = await client.query(
          `insert into public.photos (id, subject_id, sha256, media_type, bytes, taken_at, caption)
           values ($1, $2, $3, $4, $5, to_timestamp($6::float8 / 1000), $7) on conflict (id) do nothing`,
          [id, subjectId, sha256, mediaType, bytes.length, takenAt ?? null, caption ?? null],
        );
        await notePhotoHere(client, id);
        return { photo: (await findIn(client, id)) as Photo, isNew: rowCount === 1 };
      });
    } catch (error) {
      await this.dropOrphan(id).catch(() => undefined);
      if ((error as { code?: unknown }).code === "23503") return undefined;
      throw error;
    }
  }

  /** Keeps the file of a photo that was added elsewhere. Says whether there still is such a photo. */
  async keep({ id }: Photo, bytes: Uint8Array): Promise<boolean> {
    await using file = await this.#files.write(bytes);
    return await transaction(this.#pool, async (client) => {
      await lock(client, id);
      if (!(await findIn(client, id))) return false;
      await file.place(id);
      await notePhotoHere(client, id);
      return true;
    });
  }

  /** Looks which files are here, for those who only ask the database. */
  async recount(): Promise<void> {
    const lost = await notePhotoFiles(this.#pool, (await this.#files.names()).filter(isId));
    for (const id of lost) await this.#noteLost(id);
  }

  async find(id: string): Promise<Photo | undefined> {
    return await findIn(this.#pool, id);
  }

  /** Photos of a subject, the newest first, those after `after` only, `limit` at most; and the place of the last. */
  async list(
    subjectId: string,
    { limit, after }: { readonly limit: number; readonly after?: PhotoCursor | undefined },
  ): Promise<{ readonly photos: readonly Photo[]; readonly last: PhotoCursor | undefined }> {
    const { rows } = await query<Photo & { place: string }>(
      this.#pool,
      `select ${photoColumns}, ${utc("p.created_at", "US")} as place from public.photos p
       where subject_id = $1 and ($2::timestamptz is null or (p.created_at, p.id) < ($2, $3::uuid))
       order by p.created_at desc, p.id desc limit $4`,
      [subjectId, after?.createdAt ?? null, after?.id ?? null, limit],
    );
    const last = rows.at(-1);
    return {
      photos: rows.map(({ place: _, ...photo }) => photo),
      last: last && { createdAt: last.place, id: last.id },
    };
  }

  /** Its file, to be read; undefined where that has not come from the project yet. Whoever asks closes it. */
  async open({ id, bytes }: Photo): Promise<FileHandle | undefined> {
    const file = await this.#files.open(id, bytes);
    if (!file) await this.#noteLost(id);
    return file;
  }

  /** Deletes row and file. Says whether there was a row. */
  async remove(id: string): Promise<boolean> {
    if (!isId(id)) return false;
    const { rowCount } = await transaction(this.#pool, async (client) => {
      await lock(client, id);
      return await client.query("delete from public.photos where id = $1", [id]);
    });
    await this.dropOrphan(id);
    return rowCount === 1;
  }

  /**
   * Removes files without a row that were written before `before` (epoch milliseconds), and gives their number: a crash
   * left them, or their rows were deleted elsewhere.
   */
  async sweep(before: number): Promise<number> {
    const names = await this.#files.names();
    const known = await this.#knownOf(names.filter(isId));
    let swept = 0;
    for (const name of names) {
      // A database that knows none of them is a new one, and they may be all that is left of those of the one before it.
      if (known.size === 0 && isId(name)) continue;
      const writtenAt = known.has(name) ? undefined : await this.#files.writtenAt(name);
      if (writtenAt === undefined || writtenAt >= before) continue;
      if (isId(name)) await this.dropOrphan(name);
      else await this.#files.remove(name);
      swept += 1;
    }
    return swept;
  }

  /** Removes the file, unless there is a row, of somebody who has added it meanwhile, too. */
  async dropOrphan(id: string): Promise<void> {
    await transaction(this.#pool, async (client) => {
      await lock(client, id);
      if (!(await findIn(client, id))) await this.#files.remove(id);
    });
  }

  async #knownOf(ids: readonly string[]): Promise<Set<string>> {
    const { rows } = await query<{ id: string }>(
      this.#pool,
      "select id from public.photos where id = any($1::uuid[])",
      [ids],
    );
    return new Set(rows.map(({ id }) => id));
  }

  /** Somebody missed the file: it is to be fetched, unless somebody else has brought it meanwhile. */
  async #noteLost(id: string): Promise<void> {
    await transaction(this.#pool, async (client) => {
      await lock(client, id);
      const photo = await findIn(client, id);
      await using file = photo && (await this.#files.open(id, photo.bytes));
      if (!file) await notePhotoLost(client, id);
    });
  }
}

/** SHA-256 in hexadecimal. */
export function sha256Of(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Whether there is a row and whether there is a file are changed together by one at a time. */
async function lock(client: Client, id: string): Promise<void> {
  await client.query("select pg_advisory_xact_lock(7204, hashtext($1))", [id]);
}

async function findIn(runner: Pool | Client, id: string): Promise<Photo | undefined> {
  if (!isId(id)) return undefined;
  const { rows } = await query<Photo>(runner, `select ${photoColumns} from public.photos p where id = $1`, [
    id,
  ]);
  return rows[0];
}

function isId(text: string): boolean {
  return /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/.test(text);
}
