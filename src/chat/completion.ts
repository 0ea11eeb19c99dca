import type { ToolCallPiece, Usage } from "./lm-studio/chunk.ts";
import type { Delta } from "./lm-studio/reasoning.ts";

/** What identifies an answer, known from its first chunk on. */
export interface Head {
  readonly id: string;
  /** Seconds since 1970. */
  readonly created: number;
  /** The model that answered. LM Studio lets the one that is loaded answer for one it does not know. */
  readonly model: string;
  readonly system_fingerprint?: string;
}

interface ToolCall {
  readonly id: string;
  readonly type: "function";
  readonly function: { readonly name: string; readonly arguments: string };
}

/** A whole answer. The deltas tell it as it came, and everything else is made of them. */
export interface Completion {
  readonly head: Head;
  readonly deltas: readonly Delta[];
  readonly text: string;
  readonly reasoning: string;
  readonly toolCalls: readonly ToolCall[];
  readonly finishReason: string;
  readonly usage: Usage | undefined;
  /** What the endpoints that are no completions answer whole: an `EmbeddingList`, or a response's `FinalEvent`. */
  readonly raw?: unknown;
}

/** Text and thinking of the deltas, each in one piece, and their tool calls. */
export function joinDeltas(deltas: readonly Delta[]): Pick<Completion, "text" | "reasoning" | "toolCalls"> {
  let text = "";
  let reasoning = "";
  const pieces: ToolCallPiece[] = [];
  for (const delta of deltas) {
    if (delta.text) text += delta.text;
    if (delta.reasoning) reasoning += delta.reasoning;
    if (delta.toolCalls) pieces.push(...delta.toolCalls);
  }
  return { text, reasoning, toolCalls: pieces.length > 0 ? joinToolCalls(pieces) : [] };
}

function joinToolCalls(pieces: readonly ToolCallPiece[]): ToolCall[] {
  const calls = new Map<number, ToolCall>();
  for (const { index = 0, id, function: part } of pieces) {
    const before = calls.get(index);
    calls.set(index, {
      id: before?.id ?? id ?? "",
      type: "function",
      function: {
        name: before?.function.name || (part?.name ?? ""),
        arguments: (before?.function.arguments ?? "") + (part?.arguments ?? ""),
      },
    });
  }
  return [...calls.values()];
}
