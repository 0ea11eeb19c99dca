import { forgetTurns } from "./conversations.ts";
import { type InteractionFilter, whereOf } from "./interaction-filter.ts";
import { type Pool, query, transaction } from "./pool.ts";

/** One call in a list: everything but its long texts. */
export interface InteractionSummary {
  readonly id: string;
  readonly created_at: Date;
  /** Name of the station that made it, or its id where that is all that is known of it; null: this one. */
  readonly station: string | null;
  readonly route: string;
  readonly caller: string;
  readonly request_id: string;
  readonly session_id: string | null;
  readonly run_id: string | null;
  readonly model: string;
  readonly prompt_preview: string | null;
  readonly response_preview: string | null;
  readonly finish_reason: string | null;
  readonly prompt_tokens: number | null;
  readonly completion_tokens: number | null;
  readonly reasoning_tokens: number | null;
  readonly cached: boolean;
  /** Null in rows from before there was such a column, as are `upstream` and `queued_ms`. */
  readonly cache: "HIT" | "MISS" | "JOINED" | "BYPASS" | null;
  readonly upstream: string | null;
  readonly outcome: string;
  readonly error: string | null;
  readonly queued_ms: number | null;
  readonly first_token_ms: number | null;
  readonly processing_time_ms: number;
}

/** One call with all that was asked and answered. */
export interface Interaction extends Omit<InteractionSummary, "prompt_preview" | "response_preview"> {
  readonly prompt: unknown;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly response: string | null;
  readonly reasoning: string | null;
  readonly tool_calls: readonly unknown[] | null;
}

const station = `case when station_id is not null then
    coalesce((select name from stations where stations.id = interactions.station_id), station_id::text) end as station`;

/** Past calls, newest first, `limit` at most. */
export async function listInteractions(
  pool: Pool,
  { limit, ...filter }: InteractionFilter & { readonly limit: number },
): Promise<InteractionSummary[]> {
  const { sql, values } = whereOf(filter);
  const { rows } = await query<InteractionSummary>(
    pool,
    `select id, created_at, ${station}, route, caller, request_id, session_id, run_id, model,
       left(interaction_question(prompt), 200) as prompt_preview,
       left(response, 200) as response_preview,
       finish_reason, prompt_tokens, completion_tokens, reasoning_tokens,
       cached, cache, upstream, outcome, error, queued_ms, first_token_ms, processing_time_ms
     from interactions where ${sql}
     order by created_at desc, id desc limit $${values.length + 1}`,
    [...values, limit],
  );
  return rows;
}

const whole = `id, created_at, ${station}, route, caller, request_id, session_id, run_id, model, prompt, parameters, response, reasoning,
  tool_calls, finish_reason, prompt_tokens, completion_tokens, reasoning_tokens, cached, cache, upstream, outcome, error,
  queued_ms, first_token_ms, processing_time_ms`;
/** Calls of an export whose sizes one statement tells, and the bytes that the next one reads (one call may have more). */
const measuredRows = 128;
const exportPageBytes = 8 * 1024 * 1024;

/** Past calls, whole, newest first, a page at a time. */
export async function* exportInteractions(
  pool: Pool,
  filter: InteractionFilter,
): AsyncGenerator<Interaction[]> {
  for (let { after } = filter; ; ) {
    const { sql, values } = whereOf({ ...filter, after });
    const { rows: measured } = await query<{ id: string; created_at: Date; bytes: number }>(
      pool,
      // Measured outside, so that calls beyond the limit are not. To join nothing to JSON unpacks it, five times as fast
      // as to write it out; as it is stored it may be a hundredth of its size.
      `select id, created_at, pg_column_size(prompt || '[]') + pg_column_size(parameters || '{}')
         + coalesce(pg_column_size(tool_calls || '[]'), 0) + coalesce(octet_length(response), 0)
         + coalesce(octet_length(reasoning), 0) as bytes
       from (
         select * from interactions where ${sql} order by created_at desc, id desc limit ${measuredRows}
       ) newest
       order by created_at desc, id desc`,
      values,
    );
    for (const ids of pagesOf(measured)) {
      const { rows } = await query<Interaction>(
        pool,
        `select ${whole} from interactions where id = any($1::uuid[]) order by created_at desc, id desc`,
        [ids],
      );
      yield rows;
    }
    const last = measured.at(-1);
    if (!last || measured.length < measuredRows) return;
    after = { createdAt: last.created_at, id: last.id };
  }
}

function* pagesOf(measured: readonly { readonly id: string; readonly bytes: number }[]): Generator<string[]> {
  let page: string[] = [];
  let pageBytes = 0;
  for (const { id, bytes } of measured) {
    if (page.length > 0 && pageBytes + bytes > exportPageBytes) {
      yield page;
      page = [];
      pageBytes = 0;
    }
    page.push(id);
    pageBytes += bytes;
  }
  if (page.length > 0) yield page;
}

type OwnFilter = Omit<InteractionFilter, "stations">;

/** Rows in one deletion: so many are locked and logged at once. */
const deletedRowsMax = 1_000;

/**
 * Deletes past calls of this station for good, some at a time, until none is left or the signal aborts; where words are meant, repeats
 * from the cache too. What their conversations had made of them goes with them. Gives how many.
 */
export async function deleteInteractions(
  pool: Pool,
  filter: OwnFilter,
  signal?: AbortSignal,
): Promise<number> {
  if (filter.words === undefined || filter.cached !== undefined) return await deleteAll(pool, filter, signal);
  const said = await deleteAll(pool, { ...filter, cached: false }, signal);
  return said + (await deleteAll(pool, { ...filter, cached: true }, signal));
}

async function deleteAll(pool: Pool, filter: OwnFilter, signal: AbortSignal | undefined): Promise<number> {
  const { sql, values } = whereOf(filter);
  const some = `select id from interactions where ${sql} limit ${deletedRowsMax}`;
  for (let deleted = 0; ; ) {
    const count = await deleteWhere(pool, `id in (${some})`, values);
    deleted += count;
    if (count < deletedRowsMax || signal?.aborted) return deleted;
  }
}

/** Deletes one call of this station for good, as `deleteInteractions` does. Says whether it was there. */
export async function deleteInteraction(pool: Pool, id: string): Promise<boolean> {
  return (await deleteWhere(pool, "id = $1 and station_id is null", [id])) === 1;
}

function deleteWhere(pool: Pool, condition: string, values: unknown[]): Promise<number> {
  return transaction(pool, async (client) => {
    const { rows } = await query<{ caller: string; id: string | null; since: Date; calls: number }>(
      client,
      `with deleted as (
         delete from interactions where ${condition} returning caller, session_id, created_at
       )
       select caller, session_id as id, min(created_at) as since, count(*)::int as calls
       from deleted group by caller, session_id`,
      values,
    );
    await forgetTurns(
      client,
      rows.flatMap(({ caller, id, since }) => (id === null ? [] : [{ caller, id, since }])),
    );
    return rows.reduce((sum, { calls }) => sum + calls, 0);
  });
}

/** One call, of whatever station. */
export async function findInteraction(pool: Pool, id: string): Promise<Interaction | undefined> {
  const { rows } = await query<Interaction>(pool, `select ${whole} from interactions where id = $1`, [id]);
  return rows[0];
}
