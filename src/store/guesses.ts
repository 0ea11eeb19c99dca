import { type Client, query } from "./pool.ts";

/**
 * What a station registers by itself, because a report names it, is a guess until somebody edits it: its version is older
 * than whatever anybody said, so that a station that has not heard of an animal yet does not wipe out what others know of it.
 * Of two guesses, the one that says more is the newer.
 */
export const bareGuess = "1970-01-01T00:00:00Z";
export const toldGuess = "1970-01-02T00:00:00Z";
export const guessesEnd = "1971-01-01T00:00:00Z";

/** A deployment as it is pulled, as far as it matters here. */
export interface PulledDeployment {
  readonly id: string;
  readonly device_id: string;
  readonly changed_at: string;
}

/**
 * Of deployments that are about to be stored: has guesses give way to other deployments of their device, since each is for
 * all time, and gives the ids of those not to be stored. What gives way is recorded as deleted, so that it goes everywhere. Of
 * two guesses all stations keep the same one.
 */
export async function giveWay(client: Client, pulled: readonly PulledDeployment[]): Promise<Set<string>> {
  const columns = [
    pulled.map(({ id }) => id),
    pulled.map(({ device_id }) => device_id),
    pulled.map(({ changed_at }) => changed_at),
  ];
  const given = "unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) as pulled (id, device_id, changed_at)";
  await client.query("set local pugmark.applying = 'off'");
  const { rows: mine } = await query<{ subject_id: string }>(
    client,
    `delete from public.deployments mine using ${given}
     where mine.device_id = pulled.device_id and mine.id <> pulled.id
       and mine.changed_at < $4 and (mine.changed_at, mine.id) < (pulled.changed_at, pulled.id)
     returning mine.subject_id`,
    [...columns, guessesEnd],
  );
  if (mine.length > 0)
    await query(
      client,
      `delete from public.subjects s
       where id = any($1) and changed_at < $2 and station_id is null
         and not exists (select from public.deployments where subject_id = s.id)
         and not exists (select from public.photos where subject_id = s.id)`,
      [mine.map(({ subject_id }) => subject_id), guessesEnd],
    );
  await client.query("set local pugmark.applying = 'on'");
  const { rows: theirs } = await query<{ id: string }>(
    client,
    `with beaten as (
       select distinct pulled.id, mine.id as better
       from ${given} join public.deployments mine on mine.device_id = pulled.device_id and mine.id <> pulled.id
       where pulled.changed_at < $4 and (pulled.changed_at, pulled.id) < (mine.changed_at, mine.id)
     ), told as (
       -- What the project refused because of the guess may go there once that is gone.
       insert into sync.changes (table_name, is_deleted, ids)
       select 'deployments', is_deleted, ids from (
         select true as is_deleted, array_agg(distinct id) as ids from beaten
         union all select false, array_agg(distinct better) from beaten
       ) as news
       where ids is not null
         and exists (select from sync.mirrored_tables where table_name = 'deployments' and is_recorded)
     )
     select distinct id from beaten`,
    [...columns, guessesEnd],
  );
  return new Set(theirs.map(({ id }) => id));
}
