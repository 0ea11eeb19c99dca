import { type Client, type Pool, query } from "./pool.ts";
import type { RowKey } from "./sync-rows.ts";

/** A place in the project's feed of changes: all before it and itself is here. */
export interface Cursor {
  readonly xid: string;
  /** Within its transaction. */
  readonly seq: string;
  /** Whose feed it is: another project's places mean nothing. */
  readonly project: string;
}

/** How far the reading of one table's whole contents is. */
export interface TablePull {
  readonly table: string;
  /** Rows up to and including this one are here. */
  readonly after: RowKey | null;
  readonly rowsPulled: number;
  /** About as many as there were in the project when it began. */
  readonly rowsTotal: number;
  readonly isDone: boolean;
}

/** Where in the feed this station is; undefined where it has never read the project as a whole. */
export async function readCursor(pool: Pool): Promise<Cursor | undefined> {
  const { rows } = await query<Cursor>(
    pool,
    `select pull_xid::text as xid, coalesce(pull_seq, 0)::text as seq, project_id as project
     from sync.state where pull_xid is not null and project_id is not null`,
  );
  return rows[0];
}

/**
 * Moves the cursor from where it was read to where what came after that ends. Gives false, and is to be undone, where
 * somebody else has moved it meanwhile.
 */
export async function moveCursor(
  client: Client,
  from: Cursor,
  to: Omit<Cursor, "project">,
): Promise<boolean> {
  const { rowCount } = await query(
    client,
    `update sync.state set pull_xid = $3::text::xid8, pull_seq = $4, pulled_at = now()
     where pull_xid = $1::text::xid8 and coalesce(pull_seq, 0) = $2 and project_id = $5`,
    [from.xid, from.seq, to.xid, to.seq, from.project],
  );
  return rowCount === 1;
}

/**
 * Begins to read everything, each table from its first row. The feed goes on where it was, since it alone tells what is gone,
 * or, where it has never been read, from `head`.
 */
export async function beginPull(
  client: Client,
  head: Cursor,
  tables: readonly Pick<TablePull, "table" | "rowsTotal">[],
): Promise<void> {
  await query(
    client,
    `update sync.state set pull_xid = coalesce(pull_xid, $1::text::xid8),
       pull_seq = case when pull_xid is null then $2 else pull_seq end, pulled_at = null where project_id = $3`,
    [head.xid, head.seq, head.project],
  );
  await query(client, "delete from sync.pull_progress");
  await addPulls(client, tables);
}

/** Where the feed does not go on from where it was: everything is to be read, and then what comes from now on. */
export async function forgetCursor(pool: Pool): Promise<void> {
  await query(pool, "update sync.state set pull_xid = null, pull_seq = null");
}

/** These tables are to be read, each from its first row, beside whatever was or is read. */
export async function addPulls(
  runner: Client | Pool,
  tables: readonly Pick<TablePull, "table" | "rowsTotal">[],
): Promise<void> {
  await query(
    runner,
    "insert into sync.pull_progress (table_name, rows_total) select * from unnest($1::text[], $2::bigint[])",
    [tables.map(({ table }) => table), tables.map(({ rowsTotal }) => rowsTotal)],
  );
}

/** Every table that was read as a whole, or is being read; empty where none was. */
export async function readPulls(pool: Pool): Promise<TablePull[]> {
  const { rows } = await query<TablePull>(
    pool,
    `select table_name as table, rows_pulled::float8 as "rowsPulled", rows_total::float8 as "rowsTotal",
       is_done as "isDone",
       case when last_id is not null then json_build_object('id', last_id, 'time', last_time::text) end as after
     from sync.pull_progress`,
  );
  return rows;
}

/** Notes where one table's reading is. */
export async function keepPull(client: Client, pull: TablePull): Promise<void> {
  const { table, after, rowsPulled, isDone } = pull;
  await query(
    client,
    "update sync.pull_progress set last_id = $2, last_time = $3, rows_pulled = $4, is_done = $5 where table_name = $1",
    [table, after?.id ?? null, after?.time ?? null, rowsPulled, isDone],
  );
}

/** All was read. Which tables that were stays known: what others made in any other, the feed has told before. */
export async function endPull(pool: Pool): Promise<void> {
  await query(
    pool,
    `with over as (update sync.pull_progress set rows_pulled = 0, rows_total = 0)
     update sync.state set pulled_at = now()`,
  );
}

/** Keeps that the project has been asked and nothing new was there. */
export async function notePulled(pool: Pool): Promise<void> {
  await query(pool, "update sync.state set pulled_at = now()");
}
