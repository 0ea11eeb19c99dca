import { type Client, type Pool, query } from "./pool.ts";
import type { RowKey } from "./sync-rows.ts";

/** SQLSTATE of what is to be deleted and is referred to, or refers to what is not there. */
export const foreignKeyViolation = "23503";

/** A row that the project refuses, with the server's reason. */
export interface Refusal {
  readonly table: string;
  readonly key: RowKey;
  readonly isDeleted: boolean;
  readonly code: string;
  readonly reason: string;
}

/** A row that was set aside, as it is shown. */
export interface ParkedRow {
  readonly direction: string;
  readonly table: string;
  readonly id: string;
  readonly time: string | null;
  readonly deleted: boolean;
  readonly code: string | null;
  readonly reason: string | null;
  readonly attempts: number;
  readonly parked_at: string;
}

/** Sets rows aside; for those that are already, counts one more attempt. */
export async function parkRows(pool: Pool, refusals: readonly Refusal[]): Promise<void> {
  await query(
    pool,
    `insert into sync.parked_rows as known (direction, table_name, row_id, row_time, is_deleted, code, reason, attempts)
     select 'push', *, 1 from unnest($1::text[], $2::uuid[], $3::timestamptz[], $4::boolean[], $5::text[], $6::text[])
     on conflict (direction, table_name, row_id, row_time) do update set
       is_deleted = excluded.is_deleted, code = excluded.code, reason = excluded.reason,
       attempts = known.attempts + 1, parked_at = now()`,
    [
      refusals.map(({ table }) => table),
      refusals.map(({ key }) => key.id),
      refusals.map(({ key }) => key.time),
      refusals.map(({ isDeleted }) => isDeleted),
      refusals.map(({ code }) => code),
      refusals.map(({ reason }) => reason),
    ],
  );
}

/** Has rows fetched again that were deleted here, and that the project may keep. Until then they are shown among those set aside. */
export async function wantBack(runner: Pool | Client, refusals: readonly Refusal[]): Promise<void> {
  if (refusals.length === 0) return;
  await query(
    runner,
    `insert into sync.parked_rows (direction, table_name, row_id, row_time, code, reason)
     select 'pull', * from unnest($1::text[], $2::uuid[], $3::timestamptz[], $4::text[], $5::text[])
     on conflict (direction, table_name, row_id, row_time) do nothing`,
    [
      refusals.map(({ table }) => table),
      refusals.map(({ key }) => key.id),
      refusals.map(({ key }) => key.time),
      refusals.map(({ code }) => code),
      refusals.map(({ reason }) => reason),
    ],
  );
}

/** How many rows the project refuses now. */
export async function countParked(pool: Pool): Promise<number> {
  const { rows } = await query<{ count: number }>(
    pool,
    "select count(*)::int as count from sync.parked_rows where direction = 'push'",
  );
  return rows[0]?.count ?? 0;
}

/** The rows set aside last, of both directions. */
export async function listParked(pool: Pool, limit: number): Promise<ParkedRow[]> {
  const { rows } = await query<ParkedRow>(
    pool,
    `select direction, table_name as table, row_id as id, row_time::text as time, is_deleted as deleted,
       code, reason, attempts,
       to_char(parked_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as parked_at
     from sync.parked_rows order by sync.parked_rows.parked_at desc limit $1`,
    [limit],
  );
  return rows;
}

/** Takes rows that have gone through out of those set aside. */
export async function unparkRows(pool: Pool, table: string, keys: readonly RowKey[]): Promise<void> {
  await query(
    pool,
    `delete from sync.parked_rows parked using unnest($2::uuid[], $3::timestamptz[]) as sent (id, "time")
     where direction = 'push' and table_name = $1 and row_id = sent.id and row_time is not distinct from sent."time"`,
    [table, keys.map(({ id }) => id), keys.map(({ time }) => time)],
  );
}

/** Forgets that rows of other tables than these were refused by the project: they are no longer sent. */
export async function keepParkedOf(pool: Pool, tables: readonly string[]): Promise<void> {
  await query(
    pool,
    "delete from sync.parked_rows where direction = 'push' and table_name <> all($1::text[])",
    [tables],
  );
}

/** Has the rows that the project refused, all or with one code, sent once more as changes among the others. Gives how many. */
export async function retryParked(pool: Pool, code?: string): Promise<number> {
  const { rowCount } = await query(
    pool,
    `insert into sync.changes (table_name, is_deleted, ids, times)
     select table_name, is_deleted, array[row_id], case when row_time is not null then array[row_time] end
     from sync.parked_rows where direction = 'push' and ($1::text is null or code = $1)`,
    [code],
  );
  return rowCount ?? 0;
}

/** The keys of rows that were set aside in one direction, the longest waiting first. */
export async function listParkedKeys(
  pool: Pool,
  direction: "push" | "pull",
  limit: number,
): Promise<{ table: string; key: RowKey }[]> {
  const { rows } = await query<{ table: string; key: RowKey }>(
    pool,
    `select table_name as table, json_build_object('id', row_id, 'time', row_time at time zone 'UTC' || '+00') as key
     from sync.parked_rows where direction = $1 order by parked_at limit $2`,
    [direction, limit],
  );
  return rows;
}
