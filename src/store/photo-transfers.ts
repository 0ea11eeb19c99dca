import { type Photo, photoColumns } from "./photo-row.ts";
import { type Client, type Pool, query, transaction } from "./pool.ts";
import { countRowsSent } from "./sync-changes.ts";

/** A photo whose file is to go over, and what its object is called there. */
export interface PhotoOnItsWay extends Photo {
  readonly object: string;
}

/** An object whose photo is no longer here. */
export interface LeftObject {
  readonly photoId: string;
  readonly name: string;
}

const isMirrored = "exists (select from sync.mirrored_tables where table_name = 'photos' and is_recorded)";
const isParked =
  "exists (select from sync.parked_rows where direction = 'photo' and table_name = 'photos' and row_id = p.id)";

/** Of `public.photos p`, given an SQL expression for the bucket: those whose file is here, and not there. */
export const isToSend = (bucket: string) => `
  exists (select from sync.photo_files f where f.photo_id = p.id and f.is_here)
  and not exists (
    select from sync.photo_objects o where o.photo_id = p.id and o.bucket = ${bucket} and o.sent_at is not null
  )
  and not ${isParked} and ${isMirrored}`;

/** Of `public.photos p`: those whose file is not here. */
export const isToFetch = `
  not exists (select from sync.photo_files f where f.photo_id = p.id and f.is_here) and not ${isParked}`;

/** Keeps the name of the bucket that photos are mirrored to; null where they are not. */
export async function notePhotosBucket(pool: Pool, bucket: string | null): Promise<void> {
  await query(pool, "update sync.state set photos_bucket = $1 where photos_bucket is distinct from $1", [
    bucket,
  ]);
}

/** Keeps that these files are here, and gives those that were believed to be as well. */
export async function notePhotoFiles(pool: Pool, names: readonly string[]): Promise<string[]> {
  return await transaction(pool, async (client) => {
    await client.query(
      `insert into sync.photo_files as f (photo_id, is_here)
       select id, true from public.photos where id = any($1::uuid[])
       on conflict (photo_id) do update set is_here = true where not f.is_here`,
      [names],
    );
    const { rows } = await client.query<{ id: string }>(
      "select photo_id as id from sync.photo_files where is_here and photo_id <> all($1::uuid[])",
      [names],
    );
    return rows.map(({ id }) => id);
  });
}

/** Keeps that the file of a photo is here, as it should be: what was wrong with it before is forgotten. */
export async function notePhotoHere(client: Client, id: string): Promise<void> {
  await client.query("delete from sync.parked_rows where direction = 'photo' and row_id = $1", [id]);
  await client.query(
    `insert into sync.photo_files (photo_id, is_here) values ($1, true)
     on conflict (photo_id) do update set is_here = true`,
    [id],
  );
}

/** Keeps that it is not, although it was believed to be: it is to be fetched. */
export async function notePhotoLost(client: Client, id: string): Promise<void> {
  await query(
    client,
    "update sync.photo_files set is_here = false, attempts = 0, ask_at = now() where photo_id = $1 and is_here",
    [id],
  );
}

/** Keeps that the project has no such file yet: it is asked again after half a minute, and ever less often, down to hourly. */
export async function notePhotoMissing(pool: Pool, id: string): Promise<void> {
  await query(
    pool,
    `insert into sync.photo_files as f (photo_id, is_here, attempts, ask_at)
     select id, false, 1, now() + interval '30 seconds' from public.photos where id = $1
     on conflict (photo_id) do update set attempts = f.attempts + 1,
       ask_at = now() + least(interval '30 seconds' * 2 ^ least(f.attempts, 10), interval '1 hour')`,
    [id],
  );
}

/** Has the project asked again at once for every file that it did not have. */
export async function askAgain(pool: Pool): Promise<void> {
  await query(pool, "update sync.photo_files set ask_at = now() where not is_here and ask_at > now()");
}

/** The next ones to be sent, those added last first. */
export async function photosToSend(pool: Pool, bucket: string, limit: number): Promise<PhotoOnItsWay[]> {
  return await select(pool, isToSend("$2"), [limit, bucket]);
}

/** The next ones to be fetched, those added last first, without those that the project did not have a moment ago. */
export async function photosToFetch(pool: Pool, limit: number): Promise<PhotoOnItsWay[]> {
  const isDue = "not exists (select from sync.photo_files f where f.photo_id = p.id and f.ask_at > now())";
  return await select(pool, `${isToFetch} and ${isDue}`, [limit]);
}

async function select(pool: Pool, condition: string, values: unknown[]): Promise<PhotoOnItsWay[]> {
  const { rows } = await query<PhotoOnItsWay>(
    pool,
    `select ${photoColumns}, sync.photo_object_name(p) as object from public.photos p
     where ${condition} order by p.created_at desc, p.id desc limit $1`,
    values,
  );
  return rows;
}

/** Objects in the bucket whose photos are no longer here, where deletions are for the project, too. */
export async function objectsToRemove(pool: Pool, bucket: string, limit: number): Promise<LeftObject[]> {
  const { rows } = await query<LeftObject>(
    pool,
    `select photo_id as "photoId", name from sync.photo_objects o
     where bucket = $1 and ${isMirrored} and not exists (select from public.photos where id = o.photo_id)
     limit $2`,
    [bucket, limit],
  );
  return rows;
}

export async function forgetObjects(pool: Pool, objects: readonly LeftObject[]): Promise<void> {
  const ids = objects.map(({ photoId }) => photoId);
  await query(pool, "delete from sync.photo_objects where photo_id = any($1::uuid[])", [ids]);
}

/** Has every photo sent anew: the bucket is a new one. */
export async function noteBucketMade(pool: Pool, bucket: string): Promise<void> {
  await query(pool, "update sync.photo_objects set sent_at = null where bucket = $1", [bucket]);
}

/** Keeps that an object may be there from now on: whatever happens, it is removed once its photo is deleted. */
export async function noteSending(pool: Pool, { id, object }: PhotoOnItsWay, bucket: string): Promise<void> {
  await query(
    pool,
    `insert into sync.photo_objects (photo_id, bucket, name) values ($1, $2, $3)
     on conflict (photo_id) do update set bucket = excluded.bucket, name = excluded.name, sent_at = null`,
    [id, bucket, object],
  );
}

/** Keeps that the object is there: it was sent, or fetched. */
export async function noteObject(
  pool: Pool,
  { id, object }: PhotoOnItsWay,
  bucket: string,
  direction: "push" | "pull",
): Promise<void> {
  await transaction(pool, async (client) => {
    await client.query(
      `insert into sync.photo_objects (photo_id, bucket, name, sent_at) values ($1, $2, $3, now())
       on conflict (photo_id) do update set bucket = excluded.bucket, name = excluded.name, sent_at = excluded.sent_at`,
      [id, bucket, object],
    );
    const outcome = direction === "push" ? "uploaded" : "downloaded";
    await countRowsSent(client, [{ direction, table: "photos", outcome, rows: 1 }]);
  });
}

/** Sets a file aside, with the reason. */
export async function parkPhoto(
  pool: Pool,
  id: string,
  { code, reason }: { readonly code: string; readonly reason: string },
): Promise<void> {
  await query(
    pool,
    `insert into sync.parked_rows as known (direction, table_name, row_id, code, reason)
     values ('photo', 'photos', $1, $2, $3)
     on conflict (direction, table_name, row_id, row_time) do update set
       code = excluded.code, reason = excluded.reason, attempts = known.attempts + 1, parked_at = now()`,
    [id, code, reason],
  );
}

/** Takes back all that were set aside, or those alone whose photos are no longer here. Gives how many there were. */
export async function unparkPhotos(pool: Pool, which: "all" | "gone"): Promise<number> {
  const { rowCount } = await query(
    pool,
    `delete from sync.parked_rows where direction = 'photo'
       and ($1 or not exists (select from public.photos where id = row_id))`,
    [which === "all"],
  );
  return rowCount ?? 0;
}
