import { type Client, type Pool, query, transaction } from "./pool.ts";

export interface NewLine {
  readonly line: number;
  readonly customId: string;
  /** JSON. */
  readonly body: string;
}

/** Names a line among those of all batches. */
export interface LineKey {
  readonly batchId: string;
  readonly line: number;
}

/** A line that this server is to run. */
export interface ClaimedLine extends LineKey {
  readonly caller: string;
  readonly endpoint: string;
  /** JSON. */
  readonly body: string;
}

/** What came of a line: kept for good, and never run again. */
export interface LineResult extends LineKey {
  readonly statusCode: number;
  readonly requestId: string;
  /** JSON of the body that was answered. */
  readonly response: string;
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly reasoningTokens: number;
}

/** A line as the result files tell of it; without an answer where it was never run to its end. */
export interface EndedLine {
  readonly customId: string;
  readonly answer?: {
    readonly statusCode: number;
    readonly requestId: string;
    readonly response: string;
  };
}

/** Lines that one look at the results gives at most, and the bytes of answers (one line may have more). */
const pageLines = 500;
const pageBytes = 4 * 1024 * 1024;
/** Batches that one claim looks into. */
const batchesPerClaim = 8;

export async function insertLines(client: Client, batchId: string, lines: readonly NewLine[]): Promise<void> {
  await query(
    client,
    `insert into batch_lines (batch_id, line, custom_id, body)
     select $1, * from unnest($2::integer[], $3::text[], $4::text[])`,
    [
      batchId,
      lines.map(({ line }) => line),
      lines.map(({ customId }) => customId),
      lines.map(({ body }) => body),
    ],
  );
}

/**
 * Takes lines that nobody runs for a while: first those that ask the model of the oldest batch, and of them a line of
 * each caller in turn, from its oldest batch on. Whoever has them says so again and again with `renewLeases`, or they are
 * taken from it. The database's clock counts, for servers of several machines share it.
 */
export async function claimLines(
  pool: Pool,
  claim: {
    readonly holder: string;
    readonly leaseMs: number;
    readonly limit: number;
    readonly now: Date;
    /** Whose lines are to be left: ids of batches, names of callers. */
    readonly except: { readonly batches: readonly string[]; readonly callers: readonly string[] };
  },
): Promise<ClaimedLine[]> {
  const { rows } = await query<ClaimedLine & { waits: boolean; turn: number }>(pool, {
    name: "claim-batch-lines",
    text: `
      with due as (
        select id, caller, endpoint, model, row_number() over (partition by caller order by id) as turn
        from batches
        where status = 'in_progress' and expires_at > $4 and not caller = any($5::text[]) and not id = any($6::text[])
          and exists (select from batch_lines where batch_id = id and state = 'pending')
      ),
      free as (
        select l.batch_id, l.line, b.caller, b.endpoint, b.waits,
          row_number() over (partition by b.waits, b.caller order by l.batch_id, l.line) as turn
        from (
          -- To change the model takes as long as many lines do: those of another one wait.
          select id, caller, endpoint, model is distinct from (select model from due order by id limit 1) as waits
          from due
          order by waits, turn, id limit ${batchesPerClaim}
        ) b
        cross join lateral (
          select batch_id, line from batch_lines
          where batch_id = b.id and state = 'pending'
          order by line limit $3 for update skip locked
        ) l
        order by waits, turn, batch_id limit $3
      )
      update batch_lines l
      set state = 'running', leased_by = $1, leased_until = now() + make_interval(secs => $2)
      from free f
      where l.batch_id = f.batch_id and l.line = f.line
      returning l.batch_id as "batchId", l.line, f.caller, f.endpoint, l.body, f.waits, f.turn::integer`,
    values: [
      claim.holder,
      claim.leaseMs / 1000,
      claim.limit,
      claim.now,
      claim.except.callers,
      claim.except.batches,
    ],
  });
  const inTurn = rows.sort(
    (a, b) => Number(a.waits) - Number(b.waits) || a.turn - b.turn || (a.batchId < b.batchId ? -1 : 1),
  );
  return inTurn.map(({ waits: _waits, turn: _turn, ...line }) => line);
}

/** Keeps lines for a while longer; gives those that are still this server's. */
export async function renewLeases(
  pool: Pool,
  lease: { readonly holder: string; readonly leaseMs: number; readonly lines: readonly LineKey[] },
): Promise<LineKey[]> {
  const { rows } = await query<LineKey>(
    pool,
    // Skipping what is locked: a result that is being written locks lines in another order.
    `update batch_lines l set leased_until = now() + make_interval(secs => $2)
     from (
       select batch_id, line from batch_lines
       where (batch_id, line) in (select * from unnest($3::text[], $4::integer[]))
         and leased_by = $1 and state = 'running'
       for update skip locked
     ) held
     where l.batch_id = held.batch_id and l.line = held.line
     returning l.batch_id as "batchId", l.line`,
    [
      lease.holder,
      lease.leaseMs / 1000,
      lease.lines.map(({ batchId }) => batchId),
      lease.lines.map(({ line }) => line),
    ],
  );
  return rows;
}

/** Lets others have at once whatever this server still holds. */
export async function releaseLines(pool: Pool, holder: string): Promise<void> {
  await query(
    pool,
    `update batch_lines set state = 'pending', leased_by = null, leased_until = null
     where state = 'running' and leased_by = $1`,
    [holder],
  );
}

/** Frees the lines of servers that were not heard from in time. Gives how many those were. */
export async function freeAbandonedLines(pool: Pool): Promise<number> {
  const { rowCount } = await query(
    pool,
    `update batch_lines l set state = 'pending', leased_by = null, leased_until = null
     from (
       select batch_id, line from batch_lines
       where state = 'running' and leased_until < now()
       for update skip locked
     ) lost
     where l.batch_id = lost.batch_id and l.line = lost.line`,
  );
  return rowCount ?? 0;
}

/**
 * Stores results, each once: where a line has one already, or has gone with its batch, the new one is dropped.
 * The batches count them in the same commit. Gives whether one of them has now run to its end.
 */
export async function recordResults(
  pool: Pool,
  results: readonly LineResult[],
  now: Date,
): Promise<{ readonly hasEnded: boolean }> {
  return transaction(pool, async (client) => {
    const ids = [...new Set(results.map(({ batchId }) => batchId))];
    // First the batches and in order, as everybody does who writes both: else two could wait for each other.
    await query(client, "select from batches where id = any($1) order by id for update", [ids]);
    const { rows } = await query<{ status: string }>(client, {
      name: "record-batch-results",
      text: `
        with result as (
          select * from unnest(
            $1::text[], $2::integer[], $3::integer[], $4::text[], $5::text[],
            $6::bigint[], $7::bigint[], $8::bigint[]
          ) as r (batch_id, line, status_code, request_id, response, input, output, reasoning)
        ),
        done as (
          update batch_lines l set
            state = 'done', leased_by = null, leased_until = null,
            status_code = r.status_code, request_id = r.request_id, response = r.response
          from result r
          where l.batch_id = r.batch_id and l.line = r.line and l.state <> 'done'
          returning r.batch_id, r.status_code, r.input, r.output, r.reasoning
        ),
        tally as (
          select
            batch_id, count(*) as lines, count(*) filter (where status_code < 300) as good,
            sum(input) as input, sum(output) as output, sum(reasoning) as reasoning
          from done group by batch_id
        )
        update batches b set
          lines_completed = b.lines_completed + t.good,
          lines_failed = b.lines_failed + t.lines - t.good,
          input_tokens = b.input_tokens + t.input,
          output_tokens = b.output_tokens + t.output,
          reasoning_tokens = b.reasoning_tokens + t.reasoning,
          status = case when ended then 'finalizing' else status end,
          finalizing_at = case when ended then $9 else finalizing_at end
        from tally t
        cross join lateral (
          select status = 'in_progress' and lines_completed + lines_failed + t.lines = lines_total as ended
          from batches where id = t.batch_id
        ) e
        where b.id = t.batch_id
        returning b.status`,
      values: [
        results.map(({ batchId }) => batchId),
        results.map(({ line }) => line),
        results.map(({ statusCode }) => statusCode),
        results.map(({ requestId }) => requestId),
        results.map(({ response }) => response),
        results.map(({ inputTokens }) => inputTokens),
        results.map(({ outputTokens }) => outputTokens),
        results.map(({ reasoningTokens }) => reasoningTokens),
        now,
      ],
    });
    return { hasEnded: rows.some(({ status }) => status === "finalizing") };
  });
}

/** In a transaction: the lines of a batch in order, so many at a time as fit into memory easily. */
export async function* endedLines(client: Client, batchId: string): AsyncGenerator<EndedLine[], void> {
  for (let after = 0; ; ) {
    const { rows } = await query<{
      line: number;
      custom_id: string;
      status_code: number | null;
      request_id: string | null;
      response: string | null;
    }>(
      client,
      `select line, custom_id, status_code, request_id, response from (
         select *, sum(coalesce(octet_length(response), 0)) over (order by line) as bytes_through
         from (
           select * from batch_lines where batch_id = $1 and line > $2 order by line limit ${pageLines}
         ) page
       ) measured
       where bytes_through - coalesce(octet_length(response), 0) < ${pageBytes}
       order by line`,
      [batchId, after],
    );
    if (rows.length === 0) return;
    yield rows.map(({ custom_id, status_code, request_id, response }) => ({
      customId: custom_id,
      ...(status_code === null || request_id === null || response === null
        ? {}
        : { answer: { statusCode: status_code, requestId: request_id, response } }),
    }));
    after = rows.at(-1)?.line ?? after;
  }
}
