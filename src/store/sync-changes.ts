import type { PoolClient } from "pg";
import { type Pool, query } from "./pool.ts";
import type { MirroredTable, RowKey } from "./sync-rows.ts";

/** Of one table, what a statement changed. */
export interface Change {
  readonly seq: string;
  readonly table: string;
  readonly isDeleted: boolean;
  readonly keys: readonly RowKey[];
}

/** What of which rows became of them; counted for good. */
export interface RowCount {
  readonly direction: "push" | "pull" | "inbox";
  readonly table: string;
  readonly outcome: string;
  readonly rows: number;
}

/** Times as text, whatever the session's time zone, down to microseconds. */
const utc = `array(select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') from unnest(times) as at)`;

/** The oldest changes that wait to be sent, of so many keys in all, or one whole. */
export async function readChanges(pool: Pool, keysMax: number): Promise<Change[]> {
  const { rows } = await query<{
    seq: string;
    table: string;
    isDeleted: boolean;
    ids: string[];
    times: string[];
  }>(
    pool,
    `select seq, table_name as table, is_deleted as "isDeleted", ids::text[] as ids, ${utc} as times
     from (
       select *, sum(cardinality(ids)) over (order by seq) - cardinality(ids) as before
       from (select * from sync.changes order by seq limit $1) as oldest
     ) as page
     where before < $1 order by seq`,
    [keysMax],
  );
  return rows.map(({ seq, table, isDeleted, ids, times }) => ({
    seq,
    table,
    isDeleted,
    keys: ids.map((id, index) => ({ id, time: times[index] ?? null })),
  }));
}

/**
 * Forgets changes that are in the project, or parked, and counts their rows. Does not wait for the disk, which others are
 * waiting for: what a crash brings back is sent once more, and changes nothing there.
 */
export async function confirmChanges(
  pool: Pool,
  changes: readonly Pick<Change, "seq">[],
  counts: readonly RowCount[],
): Promise<void> {
  await query(
    pool,
    `with gone as (delete from sync.changes where seq = any($1::bigint[])), counted as (${count(2)})
     update sync.state set pushed_at = now() where set_config('synchronous_commit', 'off', true) = 'off'`,
    [changes.map(({ seq }) => seq), ...columnsOf(counts)],
  );
}

/** What has got into the project so far, by table and outcome: how many rows. */
export type Landed = ReadonlyMap<string, string>;

/** Reads it. Whatever lands makes another count of it, in the transaction that forgets the change. */
export async function readLanded(runner: Pool | PoolClient): Promise<Landed> {
  const { rows } = await query<{ key: string; rows: string }>(
    runner,
    `select table_name || ' ' || outcome as key, rows::text as rows from sync.row_counts where direction = 'push'`,
  );
  return new Map(rows.map(({ key, rows: count }) => [key, count]));
}

/** Counts rows that were sent without a change of theirs, or that came in; within the caller's transaction, if it has one. */
export async function countRowsSent(runner: Pool | PoolClient, counts: readonly RowCount[]): Promise<void> {
  await query(runner, count(1), columnsOf(counts));
}

function count(first: number): string {
  const [direction, table, outcome, rows] = [0, 1, 2, 3].map((offset) => `$${first + offset}`);
  return `insert into sync.row_counts as known (direction, table_name, outcome, rows)
    select * from unnest(${direction}::text[], ${table}::text[], ${outcome}::text[], ${rows}::bigint[])
    on conflict (direction, table_name, outcome) do update set rows = known.rows + excluded.rows`;
}

function columnsOf(counts: readonly RowCount[]): unknown[][] {
  return [
    counts.map(({ direction }) => direction),
    counts.map(({ table }) => table),
    counts.map(({ outcome }) => outcome),
    counts.map(({ rows }) => rows),
  ];
}

/**
 * Has changes of these tables recorded from now on, and of no others. Gives those for which that is new: what they had before
 * is in no change. Throws SQLSTATE 55P03 where others write just now; then trying again helps.
 */
export async function recordChanges(pool: Pool, tables: readonly string[]): Promise<string[]> {
  const { rows } = await query<{ table: string; isRecorded: boolean }>(
    pool,
    `update sync.mirrored_tables set is_recorded = table_name = any($1)
     where is_recorded <> (table_name = any($1)) returning table_name as table, is_recorded as "isRecorded"`,
    [tables],
  );
  return rows.filter(({ isRecorded }) => isRecorded).map(({ table }) => table);
}

/** Has rows sent, or deleted in the project, after what is being sent now. */
export async function addChange(
  client: PoolClient,
  { name, key }: MirroredTable,
  { isDeleted, keys }: Pick<Change, "isDeleted" | "keys">,
): Promise<void> {
  if (keys.length === 0) return;
  await query(
    client,
    "insert into sync.changes (table_name, is_deleted, ids, times) values ($1, $2, $3, $4)",
    [name, isDeleted, keys.map(({ id }) => id), key.length === 1 ? null : keys.map(({ time }) => time)],
  );
}

/** Whether a change up to that one still waits. */
export async function isWaiting(pool: Pool, seq: string): Promise<boolean> {
  const { rows } = await query<{ waits: boolean }>(
    pool,
    "select exists (select from sync.changes where seq <= $1) as waits",
    [seq],
  );
  return rows[0]?.waits === true;
}

/** The newest change that waits; 0 where none does. */
export async function newestChange(pool: Pool): Promise<string> {
  const { rows } = await query<{ seq: string }>(
    pool,
    "select coalesce(max(seq), 0)::text as seq from sync.changes",
  );
  return rows[0]?.seq ?? "0";
}
