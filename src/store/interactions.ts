import { type Pool, query } from "./pool.ts";

/** One call in a list: everything but its long texts. */
export interface InteractionSummary {
  readonly id: string;
  readonly created_at: Date;
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

export interface InteractionFilter {
  readonly sessionId?: string | undefined;
  readonly runId?: string | undefined;
  readonly model?: string | undefined;
  readonly outcome?: string | undefined;
  /** Not before. */
  readonly from?: Date | undefined;
  /** Before. */
  readonly to?: Date | undefined;
  /** Only those older than this one. */
  readonly after?: { readonly createdAt: Date; readonly id: string } | undefined;
  readonly limit: number;
}

/** Past calls, newest first. */
export async function listInteractions(pool: Pool, filter: InteractionFilter): Promise<InteractionSummary[]> {
  const { rows } = await query<InteractionSummary>(
    pool,
    `select id, created_at, route, caller, request_id, session_id, run_id, model,
       left(coalesce(prompt -> -1 ->> 'content', prompt #>> '{}'), 200) as prompt_preview,
       left(response, 200) as response_preview,
       finish_reason, prompt_tokens, completion_tokens, reasoning_tokens,
       cached, cache, upstream, outcome, error, queued_ms, first_token_ms, processing_time_ms
     from interactions
     where ($1::text is null or session_id = $1)
       and ($2::uuid is null or run_id = $2)
       and ($3::text is null or model = $3)
       and ($4::text is null or outcome = $4)
       and ($5::timestamptz is null or created_at >= $5)
       and ($6::timestamptz is null or created_at < $6)
       and ($7::timestamptz is null or (created_at, id) < ($7, $8::uuid))
     order by created_at desc, id desc
     limit $9`,
    [
      filter.sessionId ?? null,
      filter.runId ?? null,
      filter.model ?? null,
      filter.outcome ?? null,
      filter.from ?? null,
      filter.to ?? null,
      filter.after?.createdAt ?? null,
      filter.after?.id ?? null,
      filter.limit,
    ],
  );
  return rows;
}

export async function findInteraction(pool: Pool, id: string): Promise<Interaction | undefined> {
  const { rows } = await query<Interaction>(pool, "select * from interactions where id = $1", [id]);
  return rows[0];
}
