import { type Client, type Pool, query } from "./pool.ts";

/** Makes the partitions that positions of these times belong in. Apart from their transaction, since it takes a lock. */
export async function ensurePartitions(pool: Pool, times: readonly string[]): Promise<void> {
  if (times.length === 0) return;
  await query(
    pool,
    `select public.ensure_positions_partition(month)
     from (
       select distinct date_trunc('month', "time", 'UTC') as month from unnest($1::timestamptz[]) as given ("time")
       -- For any other there is none, and the row is refused.
       where "time" >= '1970-01-01T00:00:00Z' and "time" < '2200-01-01T00:00:00Z'
     ) as months`,
    [times],
  );
}

/**
 * Sets the last positions of devices right after some of their positions came or went. A fix from the future must not
 * keep later ones from being the last.
 */
export async function keepLastPositions(client: Client, deviceIds: readonly string[]): Promise<void> {
  const ids = [...new Set(deviceIds)];
  await query(
    client,
    `delete from public.last_positions last
     where device_id = any($1::uuid[]) and not exists (
       select from public.positions p where p.device_id = last.device_id and p.time = last.time
     )`,
    [ids],
  );
  await query(
    client,
    `insert into public.last_positions as last (device_id, time)
     select device_id, newest.time
     from unnest($1::uuid[]) as given (device_id), lateral (
       select p.time from public.positions p
       where p.device_id = given.device_id and p.outlier is null and p.time <= now() + interval '10 minutes'
       order by p.time desc limit 1
     ) as newest
     order by device_id
     on conflict (device_id) do update set time = excluded.time where excluded.time > last.time`,
    [ids],
  );
}
