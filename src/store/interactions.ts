import { GroupCommit } from "./group-commit.ts";
import { type Pool, query } from "./pool.ts";

/** One call of a model, as it is stored. */
export interface NewInteraction {
  /** UUIDv7. */
  readonly id: string;
  readonly createdAt: Date;
  /** Which door it came by, such as `/chat`. */
  readonly route: string;
  /** Name of the key that asked, or `local`. */
  readonly caller: string;
  readonly requestId: string;
  readonly sessionId?: string | undefined;
  /** UUID of the agent's run. */
  readonly runId?: string | undefined;
  readonly model: string;
  /** JSON text of the messages, or of the prompt where there are none. */
  readonly promptJson: string;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly text: string;
  readonly reasoning: string;
  readonly toolCalls: readonly unknown[];
  readonly finishReason?: string | undefined;
  readonly usage?:
    | {
        readonly prompt_tokens: number;
        readonly completion_tokens: number;
        readonly completion_tokens_details?: { readonly reasoning_tokens?: number };
      }
    | undefined;
  readonly cached: boolean;
  /** `ok`, or the code of the error that was answered. */
  readonly outcome: string;
  readonly error?: string | undefined;
  readonly firstTokenMs?: number | undefined;
  readonly processingTimeMs: number;
}

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
  readonly outcome: string;
  readonly error: string | null;
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

/** A question of a session and its answer. */
export interface Turn {
  readonly question: string;
  readonly answer: string;
}

/** The log of every call of a model. */
export interface InteractionLog {
  /** Resolves once the row is on disk. Throws `StoreError` `database-away` or `store-busy`. */
  readonly record: (interaction: NewInteraction) => Promise<void>;
}

/** KiB of rows in one statement, and of rows that may wait: what the log takes of memory. */
const groupKib = 4 * 1024;
const waitingKib = 64 * 1024;

/** Opens the log for writing. Calls that end together share one commit. */
export function openInteractionLog(pool: Pool): InteractionLog {
  const commits = new GroupCommit<string, undefined>({
    write: async (rows) => {
      await query(pool, { name: "record-interactions", text: insert, values: [`[${rows.join(",")}]`] });
      return rows.map(() => undefined);
    },
    weigh: (row) => 1 + (row.length >> 10),
    groupMax: groupKib,
    waitingMax: waitingKib,
    // A second writer works while the first waits for the disk.
    writers: 2,
  });
  return { record: (interaction) => commits.submit(rowOf(interaction)) };
}

/** Repeating a row is harmless: an answer whose commit got lost on the way is sent again. */
const insert = `
  insert into interactions (
    id, created_at, route, caller, request_id, session_id, run_id, model, prompt, parameters,
    response, reasoning, tool_calls, finish_reason, prompt_tokens, completion_tokens, reasoning_tokens,
    cached, outcome, error, first_token_ms, processing_time_ms
  )
  select
    id, created_at, route, caller, request_id, session_id, run_id, model, prompt, parameters,
    response, reasoning, tool_calls, finish_reason, prompt_tokens, completion_tokens, reasoning_tokens,
    cached, outcome, error, first_token_ms, processing_time_ms
  from jsonb_populate_recordset(null::interactions, $1::jsonb)
  on conflict (id) do nothing`;

function rowOf(interaction: NewInteraction): string {
  const { usage } = interaction;
  const row = JSON.stringify({
    id: interaction.id,
    created_at: interaction.createdAt,
    route: interaction.route,
    caller: interaction.caller,
    request_id: interaction.requestId,
    session_id: interaction.sessionId,
    run_id: interaction.runId,
    model: interaction.model,
    parameters: interaction.parameters,
    response: interaction.text,
    reasoning: interaction.reasoning || undefined,
    tool_calls: interaction.toolCalls.length > 0 ? interaction.toolCalls : undefined,
    finish_reason: interaction.finishReason,
    prompt_tokens: usage?.prompt_tokens,
    completion_tokens: usage?.completion_tokens,
    reasoning_tokens: usage?.completion_tokens_details?.reasoning_tokens,
    cached: interaction.cached,
    outcome: interaction.outcome,
    error: interaction.error,
    first_token_ms: interaction.firstTokenMs,
    processing_time_ms: interaction.processingTimeMs,
  });
  return storable(`${row.slice(0, -1)},"prompt":${interaction.promptJson}}`);
}

/** Postgres stores neither U+0000 nor half a surrogate pair, which JSON can spell; both become U+FFFD. */
function storable(json: string): string {
  if (!json.includes("\\u")) return json;
  // An escaped backslash before a "u" is no escape: pairs of backslashes are skipped as such.
  return json.replace(/\\\\|\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})/g, (found) =>
    found === "\\\\" ? found : "\\ufffd",
  );
}

/** Past calls, newest first. */
export async function listInteractions(pool: Pool, filter: InteractionFilter): Promise<InteractionSummary[]> {
  const { rows } = await query<InteractionSummary>(
    pool,
    `select id, created_at, route, caller, request_id, session_id, run_id, model,
       left(coalesce(prompt -> -1 ->> 'content', prompt #>> '{}'), 200) as prompt_preview,
       left(response, 200) as response_preview,
       finish_reason, prompt_tokens, completion_tokens, reasoning_tokens,
       cached, outcome, error, first_token_ms, processing_time_ms
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

/**
 * The newest turns of a caller's session by `/chat` that were answered, oldest first: at most `limit`, and no
 * more than fit into `charsMax` characters.
 */
export async function turnsOfSession(
  pool: Pool,
  session: {
    readonly id: string;
    readonly caller: string;
    readonly limit: number;
    readonly charsMax: number;
  },
): Promise<Turn[]> {
  const { rows } = await query<Turn>(
    pool,
    `select prompt -> -1 ->> 'content' as question, response as answer
     from interactions
     where session_id = $1 and caller = $2 and route = '/chat' and outcome = 'ok'
       and jsonb_typeof(prompt) = 'array' and response <> ''
     order by created_at desc, id desc
     limit $3`,
    [session.id, session.caller, session.limit],
  );
  let chars = 0;
  const fitting = rows.findIndex(({ question, answer }) => {
    chars += question.length + answer.length;
    return chars > session.charsMax;
  });
  return rows.slice(0, fitting < 0 ? rows.length : fitting).reverse();
}
