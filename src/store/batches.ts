import { v7 as uuidv7 } from "uuid";
import { type Client, type Pool, query } from "./pool.ts";

type BatchStatus =
  | "validating"
  | "failed"
  | "in_progress"
  | "finalizing"
  | "completed"
  | "expired"
  | "cancelling"
  | "cancelled";

/** What is wrong with the input of a batch, and on which of its lines, from 1. */
export interface BatchProblem {
  readonly code: string;
  readonly message: string;
  readonly param: string | null;
  readonly line: number | null;
}

/** A batch as it is stored. */
export interface Batch {
  readonly id: string;
  readonly caller: string;
  readonly endpoint: string;
  readonly input_file_id: string;
  readonly completion_window: string;
  readonly metadata: Readonly<Record<string, string>> | null;
  readonly output_expires_after_s: number | null;
  readonly status: BatchStatus;
  readonly model: string | null;
  readonly errors: readonly BatchProblem[] | null;
  readonly output_file_id: string | null;
  readonly error_file_id: string | null;
  readonly created_at: Date;
  readonly expires_at: Date;
  readonly in_progress_at: Date | null;
  readonly finalizing_at: Date | null;
  readonly completed_at: Date | null;
  readonly failed_at: Date | null;
  readonly expired_at: Date | null;
  readonly cancelling_at: Date | null;
  readonly cancelled_at: Date | null;
  readonly lines_total: number;
  readonly lines_completed: number;
  readonly lines_failed: number;
  readonly input_tokens: number;
  readonly output_tokens: number;
  readonly reasoning_tokens: number;
}

export interface NewBatch {
  readonly caller: string;
  readonly endpoint: string;
  readonly inputFileId: string;
  readonly completionWindow: string;
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  readonly outputExpiresAfterS?: number | undefined;
  readonly createdAt: Date;
  readonly expiresAt: Date;
}

export interface BatchFilter {
  readonly caller: string;
  /** Only those older than this one. */
  readonly after?: string | undefined;
  readonly limit: number;
}

/** All columns; big integers as numbers, which hold any count of tokens there will be. */
const batchColumns = `
  id, caller, endpoint, input_file_id, completion_window, metadata, output_expires_after_s, status, model, errors,
  output_file_id, error_file_id, created_at, expires_at, in_progress_at, finalizing_at, completed_at, failed_at,
  expired_at, cancelling_at, cancelled_at, lines_total, lines_completed, lines_failed,
  input_tokens::float8 as input_tokens, output_tokens::float8 as output_tokens,
  reasoning_tokens::float8 as reasoning_tokens`;

/** Stores a batch that is to be read; `undefined` where the caller has `underWayMax` under way, or no such file. */
export async function createBatch(
  runner: Pool | Client,
  batch: NewBatch,
  underWayMax: number,
): Promise<Batch | undefined> {
  const { rows } = await query<Batch>(
    runner,
    `insert into batches (
       id, caller, endpoint, input_file_id, completion_window, metadata, output_expires_after_s,
       status, created_at, expires_at
     )
     select $1, $2, $3, $4, $5, $6::jsonb, $7::integer, 'validating', $8, $9
     from files
     where id = $4 and caller = $2 and is_whole and (expires_at is null or expires_at > $8) and $10 > (
       select count(*) from batches
       where caller = $2 and status in ('validating', 'in_progress', 'finalizing', 'cancelling')
     )
     -- Whoever deletes the file waits until the batch is there to be seen.
     for key share
     returning ${batchColumns}`,
    [
      `batch_${uuidv7().replaceAll("-", "")}`,
      batch.caller,
      batch.endpoint,
      batch.inputFileId,
      batch.completionWindow,
      batch.metadata === undefined ? null : JSON.stringify(batch.metadata),
      batch.outputExpiresAfterS ?? null,
      batch.createdAt,
      batch.expiresAt,
      underWayMax,
    ],
  );
  return rows[0];
}

export async function findBatch(pool: Pool, id: string, caller: string): Promise<Batch | undefined> {
  const { rows } = await query<Batch>(
    pool,
    `select ${batchColumns} from batches where id = $1 and caller = $2`,
    [id, caller],
  );
  return rows[0];
}

/** A caller's batches, newest first. */
export async function listBatches(pool: Pool, { caller, after, limit }: BatchFilter): Promise<Batch[]> {
  const { rows } = await query<Batch>(
    pool,
    `select ${batchColumns} from batches
     where caller = $1 and ($2::text is null or id < $2)
     order by id desc
     limit $3`,
    [caller, after ?? null, limit],
  );
  return rows;
}

/** Marks a batch as one to be ended; `undefined` where it is none that is read or run. */
export async function cancelBatch(
  pool: Pool,
  { id, caller, now }: { readonly id: string; readonly caller: string; readonly now: Date },
): Promise<Batch | undefined> {
  const { rows } = await query<Batch>(
    pool,
    `update batches set status = 'cancelling', cancelling_at = $3
     where id = $1 and caller = $2 and status in ('validating', 'in_progress')
     returning ${batchColumns}`,
    [id, caller, now],
  );
  return rows[0];
}

/** Batches of which one is looked for that nobody reads: more servers than this do not share a database. */
const unreadMax = 16;

/**
 * In a transaction: a batch whose lines are to be read, kept from other readers until the transaction ends. Its row is
 * not locked, for reading takes a while and whoever cancels it is not to wait.
 */
export async function claimUnread(client: Client): Promise<Batch | undefined> {
  for (;;) {
    const { rows: free } = await query<{ id: string }>(
      client,
      `select id from (
         select id from batches where status = 'validating' order by id limit ${unreadMax}
       ) oldest
       where pg_try_advisory_xact_lock(hashtextextended(id, 7205)) limit 1`,
    );
    if (!free[0]) return undefined;
    // Another reader may have ended between that look and its lock.
    const { rows } = await query<Batch>(
      client,
      `select ${batchColumns} from batches where id = $1 and status = 'validating'`,
      [free[0].id],
    );
    if (rows[0]) return rows[0];
  }
}

/** Whether a batch is still to be read: not, once it was cancelled. */
export async function isUnread(client: Client, id: string): Promise<boolean> {
  const { rows } = await query(client, "select from batches where id = $1 and status = 'validating'", [id]);
  return rows.length > 0;
}

/** In a transaction: a batch that has run, was cancelled or has expired, none of those, kept from all others. */
export async function lockEnding(
  client: Client,
  now: Date,
  except: readonly string[],
): Promise<Batch | undefined> {
  const { rows } = await query<Batch>(
    client,
    `select ${batchColumns} from batches
     where (status in ('finalizing', 'cancelling') or (status = 'in_progress' and expires_at <= $1))
       and id <> all($2)
     order by id limit 1 for update skip locked`,
    [now, except],
  );
  return rows[0];
}

/** The lines of a batch are stored: they may be run. Where it was cancelled meanwhile, they are dropped. */
export async function beginBatch(
  client: Client,
  { id, model, linesTotal, now }: { id: string; model: string; linesTotal: number; now: Date },
): Promise<void> {
  const { rowCount } = await query(
    client,
    `update batches set status = 'in_progress', in_progress_at = $2, model = $3, lines_total = $4
     where id = $1 and status = 'validating'`,
    [id, now, model, linesTotal],
  );
  if (!rowCount) await dropLines(client, id);
}

/** The input cannot be run as it is: no line of it is. One that was cancelled meanwhile stays so. */
export async function failBatch(
  client: Client,
  { id, problems, now }: { id: string; problems: readonly BatchProblem[]; now: Date },
): Promise<void> {
  await dropLines(client, id);
  await query(
    client,
    `update batches set status = 'failed', failed_at = $2, errors = $3::jsonb
     where id = $1 and status = 'validating'`,
    [id, now, JSON.stringify(problems)],
  );
}

export async function dropLines(client: Client, id: string): Promise<void> {
  await query(client, "delete from batch_lines where batch_id = $1", [id]);
}

/** The result files are written: the lines have had their day. */
export async function endBatch(
  client: Client,
  end: {
    readonly id: string;
    readonly status: "completed" | "expired" | "cancelled";
    readonly outputFileId?: string | undefined;
    readonly errorFileId?: string | undefined;
    readonly now: Date;
  },
): Promise<void> {
  await dropLines(client, end.id);
  await query(
    client,
    `update batches set
       status = $2, output_file_id = $3, error_file_id = $4,
       finalizing_at = coalesce(finalizing_at, $5),
       completed_at = case when $2 = 'completed' then $5::timestamptz end,
       expired_at = case when $2 = 'expired' then $5::timestamptz end,
       cancelled_at = case when $2 = 'cancelled' then $5::timestamptz end
     where id = $1`,
    [end.id, end.status, end.outputFileId ?? null, end.errorFileId ?? null, end.now],
  );
}
