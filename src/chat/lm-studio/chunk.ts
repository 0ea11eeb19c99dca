import { ChatError } from "../chat-error.ts";

/** A part of one tool call: the first names it, later ones carry pieces of its arguments. */
export interface ToolCallPiece {
  readonly index: number;
  readonly id?: string;
  readonly type?: string;
  readonly function?: { readonly name?: string; readonly arguments?: string };
}

export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly completion_tokens_details?: { readonly reasoning_tokens?: number };
}

/** What the model says in one event. */
export interface Said {
  readonly content: string;
  readonly reasoning: string;
  readonly toolCalls: readonly ToolCallPiece[] | undefined;
}

/** One event of LM Studio's stream, of either endpoint, as far as it matters here. */
interface Chunk {
  readonly id: string;
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint?: string;
  readonly said: Said;
  readonly finishReason: string | undefined;
  readonly usage: Usage | undefined;
}

// biome-ignore lint/suspicious/noExplicitAny: this is where what others sent is turned into what we know
type Loose = any;

/** Reads the payload of one event, or a whole answer as one. Throws `ChatError` `upstream-invalid` where it is not a completion's chunk. */
export function readChunk(value: unknown): Chunk {
  const raw = value as Loose;
  if (typeof raw?.model !== "string" || !Array.isArray(raw.choices)) {
    throw new ChatError("upstream-invalid", "LM Studio sent an event that is no part of an answer.");
  }
  const choice: Loose = raw.choices[0];
  const delta: Loose = choice?.delta ?? choice?.message;
  return {
    id: text(raw.id),
    created: typeof raw.created === "number" ? raw.created : Math.floor(Date.now() / 1000),
    model: raw.model,
    ...(typeof raw.system_fingerprint === "string" ? { system_fingerprint: raw.system_fingerprint } : {}),
    said: delta ? readDelta(delta) : { content: text(choice?.text), reasoning: "", toolCalls: undefined },
    finishReason: typeof choice?.finish_reason === "string" ? choice.finish_reason : undefined,
    usage: usage(raw.usage),
  };
}

/** Reads the delta of a choice. Throws as `readChunk` does. */
export function readDelta(delta: Loose): Said {
  return {
    content: text(delta?.content),
    // gpt-oss has it under the shorter name.
    reasoning: text(delta?.reasoning_content) || text(delta?.reasoning),
    toolCalls: toolCalls(delta?.tool_calls),
  };
}

function toolCalls(value: Loose): ToolCallPiece[] | undefined {
  if (!Array.isArray(value)) return undefined;
  const pieces = value.filter((piece) => piece !== null);
  if (!pieces.every(isPiece)) {
    throw new ChatError("upstream-invalid", "LM Studio sent a tool call that is none.");
  }
  // In a whole answer their order is all that numbers them.
  return pieces.length > 0 ? pieces.map((piece, index) => ({ index, ...piece })) : undefined;
}

function isPiece(piece: Loose): boolean {
  if (typeof piece !== "object" || !Number.isInteger(piece.index ?? 0)) return false;
  const { id, function: part } = piece;
  const texts = [id, part?.name, part?.arguments];
  return typeof (part ?? {}) === "object" && texts.every((text) => typeof (text ?? "") === "string");
}

function usage(value: Loose): Usage | undefined {
  const { prompt_tokens, completion_tokens, completion_tokens_details: details } = value ?? {};
  if (!Number.isInteger(prompt_tokens) || !Number.isInteger(completion_tokens)) return undefined;
  return {
    prompt_tokens,
    completion_tokens,
    total_tokens: prompt_tokens + completion_tokens,
    ...(Number.isInteger(details?.reasoning_tokens)
      ? { completion_tokens_details: { reasoning_tokens: details.reasoning_tokens } }
      : {}),
  };
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
