import { isToFetch, isToSend } from "./photo-transfers.ts";
import { type Pool, query } from "./pool.ts";

/** How the mirror is doing, as the database knows it. Times are RFC 3339 UTC; null for what never was. */
export interface SyncReport {
  /** Which station this is; null where it never was connected to a project. */
  readonly station: { readonly id: string; readonly name: string | null } | null;
  /** Tables whose changes are recorded, to be sent. */
  readonly tables: readonly string[];
  /** Rows in changes that are not in the project yet; beyond 100,000 changes an estimate. */
  readonly changes_waiting: number;
  /** How long the oldest of them has waited. */
  readonly lag_seconds: number;
  /** Rows that were set aside because one side refuses them. */
  readonly parked_rows: number;
  readonly pushed_at: string | null;
  readonly push_error: string | null;
  readonly pulled_at: string | null;
  readonly pull_error: string | null;
  readonly error_since: string | null;
  /** When all that was there before is known to have been sent. */
  readonly history_sent_at: string | null;
  /** Files of photos that wait; null where they are not mirrored. */
  readonly photos: PhotosReport | null;
}

interface PhotosReport {
  readonly bucket: string;
  /** Those that are not in the project yet. */
  readonly to_send: number;
  /** Those that are not here yet. */
  readonly to_fetch: number;
}

/** Changes that are counted one by one. */
const countedMax = 100_000;

/** Reads it in a few milliseconds, however much waits. */
export async function readSyncReport(pool: Pool): Promise<SyncReport> {
  const { rows } = await query<SyncReport>(
    pool,
    `select
       case when station_id is not null then json_build_object('id', station_id, 'name', station_name) end as station,
       array(select table_name from sync.mirrored_tables where is_recorded order by rank, table_name) as tables,
       case when counted.changes < $1 then counted.keys
         else round(counted.keys / counted.changes * (newest.seq - oldest.seq + 1)) end::float8 as changes_waiting,
       coalesce(greatest(0, extract(epoch from now() - oldest.changed_at)), 0)::float8 as lag_seconds,
       (select count(*) from sync.parked_rows)::float8 as parked_rows,
       ${iso("pushed_at")}, push_error, ${iso("pulled_at")}, pull_error, ${iso("error_since")}, ${iso("history_sent_at")},
       case when photos_bucket is not null then json_build_object(
         'bucket', photos_bucket,
         'to_send', (select count(*) from public.photos p where ${isToSend("photos_bucket")}),
         'to_fetch', (select count(*) from public.photos p where ${isToFetch})
       ) end as photos
     from sync.state
     cross join (
       select count(*) as changes, coalesce(sum(cardinality(ids)), 0) as keys
       from (select ids from sync.changes limit $1) as sampled
     ) as counted
     left join (select seq, changed_at from sync.changes order by seq limit 1) as oldest on true
     left join (select seq from sync.changes order by seq desc limit 1) as newest on true`,
    [countedMax],
  );
  return rows[0] ?? nothingKnown;
}

const nothingKnown: SyncReport = {
  station: null,
  tables: [],
  changes_waiting: 0,
  lag_seconds: 0,
  parked_rows: 0,
  pushed_at: null,
  push_error: null,
  pulled_at: null,
  pull_error: null,
  error_since: null,
  history_sent_at: null,
  photos: null,
};

function iso(column: string): string {
  return `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as ${column}`;
}

/** The id of this station, made on first use; its name is the one given. */
export async function ensureStation(pool: Pool, name: string): Promise<string> {
  const { rows } = await query<{ id: string }>(pool, "select sync.own_station() as id");
  await query(pool, "update sync.state set station_name = $1 where station_name is distinct from $1", [name]);
  return rows[0]?.id as string;
}

/** Keeps which project this station is connected to. With another one than before, it begins anew. */
export async function noteProject(pool: Pool, project: string): Promise<void> {
  await query(
    pool,
    `with moved as (
       update sync.state set project_id = $1, history_sent_at = case when project_id is null then history_sent_at end,
         pull_xid = null, pull_seq = null, pulled_at = null, pushed_at = null
       where project_id is distinct from $1
     )
     -- As they were before this statement: of the first project nothing is to be forgotten.
     delete from sync.photo_objects where exists (select from sync.state where project_id <> $1)`,
    [project],
  );
}

/** Keeps what is wrong with one direction, for whoever looks; null: nothing is. */
export async function noteError(pool: Pool, direction: "push" | "pull", error: string | null): Promise<void> {
  const [own, other] = direction === "push" ? ["push_error", "pull_error"] : ["pull_error", "push_error"];
  await query(
    pool,
    `update sync.state set ${own} = $1,
       error_since = case when coalesce($1, ${other}) is not null then coalesce(error_since, now()) end
     where ${own} is distinct from $1`,
    [error],
  );
}

/** Keeps that the whole history has been sent, or, with `null`, that something may have been missed. */
export async function noteHistorySent(pool: Pool, at: "now" | null): Promise<void> {
  await query(pool, "update sync.state set history_sent_at = case when $1 then now() end", [at === "now"]);
}

/** What was counted since ever: how many rows of a table came to what. */
export async function readRowCounts(
  pool: Pool,
): Promise<{ direction: string; table: string; outcome: string; rows: number }[]> {
  const { rows } = await query<{ direction: string; table: string; outcome: string; rows: number }>(
    pool,
    "select direction, table_name as table, outcome, rows::float8 as rows from sync.row_counts",
  );
  return rows;
}

/**
 * For a station without a project: from now on no change is recorded, and what waits to be sent is dropped, or both would
 * grow for ever. A database that is itself a project is left as it is: others read what it records.
 */
export async function stopRecording(pool: Pool): Promise<void> {
  await query(
    pool,
    `with station as (select from sync.state where not is_feed),
       off as (
         update sync.mirrored_tables set is_recorded = false
         where is_recorded and exists (select from station) returning 1
       ),
       dropped as (delete from sync.changes where exists (select from station))
     update sync.state set photos_bucket = null,
       history_sent_at = case when not exists (select from off) then history_sent_at end
     where not is_feed and (photos_bucket is not null or exists (select from off))`,
  );
}
