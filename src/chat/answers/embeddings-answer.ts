import { ChatError } from "../chat-error.ts";
import type { Completion, Head } from "../completion.ts";
import type { Delta } from "../lm-studio/reasoning.ts";
import type { AnswerEvent, AnswerReader } from "./answer-reader.ts";

/** What `/v1/embeddings` answers when it is asked for numbers. */
export interface EmbeddingList {
  readonly object: "list";
  readonly model: string;
  readonly data: readonly {
    readonly object: "embedding";
    readonly index: number;
    readonly embedding: readonly number[];
  }[];
  readonly usage?: { readonly prompt_tokens: number; readonly total_tokens: number };
}

/** Reads the answer of `/v1/embeddings`, which always comes whole: `raw` of its completion is the `EmbeddingList`. */
export class EmbeddingsAnswer implements AnswerReader {
  readonly deltas: readonly Delta[] = [];
  /** It has come whole, and its bytes are bounded. */
  readonly chars = 0;
  head: Head | undefined;
  #list: EmbeddingList | undefined;

  events(events: readonly AnswerEvent[]): void {
    for (const { value } of events) {
      if (!isEmbeddingList(value)) {
        throw new ChatError("upstream-invalid", "LM Studio answered with something else than embeddings.");
      }
      this.#list = value;
      this.head = { id: "", created: Math.floor(Date.now() / 1000), model: value.model };
    }
  }

  /** Nothing is held back for that. */
  readAlong(): void {}

  /** Nor for anything else. */
  end(): void {}

  completion(): Completion {
    if (!this.head || !this.#list) {
      throw new ChatError("upstream-invalid", "LM Studio ended its answer without embeddings.");
    }
    const { data, usage } = this.#list;
    return {
      head: this.head,
      deltas: [],
      // What the log keeps of thousands of numbers.
      text: `${data.length} × ${data[0]?.embedding.length ?? 0} numbers`,
      reasoning: "",
      toolCalls: [],
      finishReason: "stop",
      usage: Number.isInteger(usage?.prompt_tokens)
        ? {
            prompt_tokens: usage?.prompt_tokens ?? 0,
            completion_tokens: 0,
            total_tokens: usage?.prompt_tokens ?? 0,
          }
        : undefined,
      raw: this.#list,
    };
  }
}

function isEmbeddingList(value: unknown): value is EmbeddingList {
  const { model, data } = (value ?? {}) as Partial<EmbeddingList>;
  if (typeof model !== "string" || !Array.isArray(data) || data.length === 0) return false;
  return data.every(
    (item) =>
      Array.isArray(item?.embedding) && item.embedding.length > 0 && item.embedding.every(Number.isFinite),
  );
}
