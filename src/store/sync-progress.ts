import { type Pool, query } from "./pool.ts";
import type { RowKey } from "./sync-rows.ts";

/** How far the sending of one table's whole history is. */
export interface TableProgress {
  readonly table: string;
  /** Rows up to and including this one are in the project. */
  readonly after: RowKey | null;
  readonly rowsSent: number;
  /** Rows that there were when it began. */
  readonly rowsTotal: number;
  readonly isDone: boolean;
}

/** Where a sending that was begun is; empty where none was. */
export async function readProgress(pool: Pool): Promise<TableProgress[]> {
  const { rows } = await query<TableProgress>(
    pool,
    `select table_name as table, rows_sent::float8 as "rowsSent", rows_total::float8 as "rowsTotal",
       is_done as "isDone",
       case when last_id is not null then json_build_object('id', last_id, 'time', last_time::text) end as after
     from sync.push_progress`,
  );
  return rows;
}

/** Begins a sending of everything, from the first row of each table. */
export async function beginProgress(
  pool: Pool,
  tables: readonly Pick<TableProgress, "table" | "rowsTotal">[],
): Promise<void> {
  await query(
    pool,
    `with former as (delete from sync.push_progress where table_name <> all($1::text[]))
     insert into sync.push_progress (table_name, rows_total) select * from unnest($1::text[], $2::bigint[])
     on conflict (table_name) do update set
       last_id = null, last_time = null, rows_sent = 0, rows_total = excluded.rows_total, is_done = false`,
    [tables.map(({ table }) => table), tables.map(({ rowsTotal }) => rowsTotal)],
  );
}

export async function keepProgress(pool: Pool, progress: TableProgress): Promise<void> {
  const { table, after, rowsSent, isDone } = progress;
  await query(
    pool,
    `update sync.push_progress set last_id = $2, last_time = $3, rows_sent = $4, is_done = $5 where table_name = $1`,
    [table, after?.id ?? null, after?.time ?? null, rowsSent, isDone],
  );
}

/** Forgets where a sending was, once all of it is over. */
export async function endProgress(pool: Pool): Promise<void> {
  await query(pool, "delete from sync.push_progress");
}
