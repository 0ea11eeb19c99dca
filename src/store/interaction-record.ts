import type { Written } from "./journal/journal.ts";

/** What was asked and answered. Interactions that share one (hits of the cache) have it written once. */
export interface InteractionContent {
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
}

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
  readonly content: InteractionContent;
  readonly cache: "HIT" | "MISS" | "JOINED" | "BYPASS";
  /** Which LM Studio answered. */
  readonly upstream?: string | undefined;
  /** `ok`, or the code of the error that was answered. */
  readonly outcome: string;
  readonly error?: string | undefined;
  readonly queuedMs?: number | undefined;
  readonly firstTokenMs?: number | undefined;
  readonly processingTimeMs: number;
}

/** Hides what nobody may read later: given the text of a value, gives what is kept of it. */
export type Redact = (text: string) => string;

/** What stands in the place of what was redacted. */
const redacted = "[redacted]";

/** Replaces all that one of the patterns matches; undefined where there is none. */
export function redactionOf(patterns: readonly RegExp[]): Redact | undefined {
  if (patterns.length === 0) return undefined;
  return (text) => patterns.reduce((kept, pattern) => kept.replace(pattern, redacted), text);
}

/**
 * Lines of the journal for an interaction: `C` and its content where the segment does not have that yet, then `I` and
 * its own fields. Both are JSON objects in the columns' names, joined by `ref`; Postgres takes them as they are.
 */
export function encodeInteraction(interaction: NewInteraction, written: Written, redact?: Redact): string {
  const { content } = interaction;
  const known = written.numbers.get(content);
  if (known !== undefined) return ownLine(known, interaction, redact);
  const ref = written.count + 1;
  const lines = contentLine(ref, content, redact) + ownLine(ref, interaction, redact);
  written.count = ref;
  written.numbers.set(content, ref);
  return lines;
}

function contentLine(ref: number, content: InteractionContent, redact: Redact | undefined): string {
  const { usage } = content;
  const clean = redact ? (value: unknown) => redactIn(value, redact) : (value: unknown) => value;
  const prompt = redact ? JSON.stringify(clean(JSON.parse(content.promptJson))) : content.promptJson;
  const rest = JSON.stringify({
    model: content.model,
    parameters: clean(content.parameters),
    response: clean(content.text),
    reasoning: clean(content.reasoning) || undefined,
    tool_calls: content.toolCalls.length > 0 ? clean(content.toolCalls) : undefined,
    finish_reason: content.finishReason,
    prompt_tokens: usage?.prompt_tokens,
    completion_tokens: usage?.completion_tokens,
    reasoning_tokens: usage?.completion_tokens_details?.reasoning_tokens,
  });
  // A line feed between the tokens of JSON means nothing there, and would end the line here.
  const oneLine = prompt.includes("\n") ? prompt.replaceAll("\n", " ") : prompt;
  return storable(`C{"ref":${ref},"prompt":${oneLine},${rest.slice(1)}\n`);
}

/** Put together by hand: it is the hot path of the cache, and takes a third of the time that one big object does. */
function ownLine(ref: number, interaction: NewInteraction, redact: Redact | undefined): string {
  const { sessionId, runId, upstream, error, queuedMs, firstTokenMs } = interaction;
  let line = `I{"ref":${ref},"id":${JSON.stringify(interaction.id)},"created_at":"${interaction.createdAt.toISOString()}"`;
  line += `,"route":${JSON.stringify(interaction.route)},"caller":${JSON.stringify(interaction.caller)}`;
  line += `,"request_id":${JSON.stringify(interaction.requestId)},"cache":"${interaction.cache}"`;
  line += `,"outcome":${JSON.stringify(interaction.outcome)},"processing_time_ms":${interaction.processingTimeMs}`;
  if (sessionId !== undefined) line += `,"session_id":${JSON.stringify(sessionId)}`;
  if (runId !== undefined) line += `,"run_id":${JSON.stringify(runId)}`;
  if (upstream !== undefined) line += `,"upstream":${JSON.stringify(upstream)}`;
  if (error !== undefined) line += `,"error":${JSON.stringify(redact ? redact(error) : error)}`;
  if (queuedMs !== undefined) line += `,"queued_ms":${queuedMs}`;
  if (firstTokenMs !== undefined) line += `,"first_token_ms":${firstTokenMs}`;
  return storable(`${line}}\n`);
}

/** The value with every text in it redacted; names of fields stay. */
export function redactIn(value: object, redact: Redact): object;
export function redactIn(value: unknown, redact: Redact): unknown;
export function redactIn(value: unknown, redact: Redact): unknown {
  if (typeof value === "string") return redact(value);
  if (Array.isArray(value)) return value.map((item) => redactIn(item, redact));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, redactIn(item, redact)]));
}

/** Postgres stores neither U+0000 nor half a surrogate pair, which JSON can spell; both become U+FFFD. */
function storable(json: string): string {
  if (!json.includes("\\u")) return json;
  // An escaped backslash before a "u" is no escape: pairs of backslashes are skipped as such.
  return json.replace(/\\\\|\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})/g, (found) =>
    found === "\\\\" ? found : "\\ufffd",
  );
}
