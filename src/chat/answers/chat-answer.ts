import { ChatError } from "../chat-error.ts";
import { type Completion, type Head, joinDeltas } from "../completion.ts";
import { readChunk, readDelta, type Said, type Usage } from "../lm-studio/chunk.ts";
import { type Delta, hasStrayTag, Separator } from "../lm-studio/reasoning.ts";
import type { AnswerEvent, AnswerReader, ReaderOptions } from "./answer-reader.ts";

/**
 * Reads the answers of `/v1/chat/completions` and `/v1/completions`, with thinking told apart where that is
 * asked for, and remembers the form that the model's thinking took.
 */
export class ChatAnswer implements AnswerReader {
  readonly deltas: Delta[] = [];
  chars = 0;
  head: Head | undefined;
  readonly #options: ReaderOptions;
  readonly #separator: Separator | undefined;
  #finishReason: string | undefined;
  #usage: Usage | undefined;
  /** In one piece, there are no chunks to count tokens by. */
  #isWhole = false;

  constructor(options: ReaderOptions) {
    const { model, json, isRead, forms } = options;
    this.#options = options;
    // Where nobody reads along, holding back costs nothing.
    const untagged = forms.isUnopened(model) ? "think" : isRead ? "text" : "hold";
    this.#separator = options.separates ? new Separator({ untagged, json }) : undefined;
  }

  events(events: readonly AnswerEvent[]): void {
    for (const { event, value, delta } of events) {
      if (delta === undefined) this.#chunk(event, value);
      else this.#say(readDelta(delta));
    }
  }

  readAlong(): void {
    this.deltas.push(...(this.#separator?.release() ?? []));
  }

  end(): void {
    const isCutOff = this.#finishReason === undefined || this.#finishReason === "length";
    this.deltas.push(...(this.#separator?.end({ isCutOff }) ?? []));
  }

  completion(): Completion {
    if (!this.head || this.#finishReason === undefined) {
      throw new ChatError("upstream-invalid", "LM Studio ended its stream without an answer.");
    }
    const deltas = this.#corrected();
    const joined = joinDeltas(deltas);
    this.#remember(joined.text);
    return {
      head: this.head,
      deltas,
      ...joined,
      finishReason: this.#finishReason,
      usage: withReasoning(this.#usage, this.#isWhole ? 0 : (this.#separator?.reasoningTokens ?? 0)),
    };
  }

  #chunk(event: string, value: unknown): void {
    const chunk = readChunk(value);
    const { id, created, model, system_fingerprint } = chunk;
    this.head ??= { id, created, model, ...(system_fingerprint === undefined ? {} : { system_fingerprint }) };
    this.#isWhole ||= event === "whole";
    this.#finishReason ??= chunk.finishReason;
    this.#usage ??= chunk.usage;
    this.#say(chunk.said);
  }

  #say(said: Said): void {
    this.chars += charsOf(said);
    if (this.#separator) this.#separator.push(said, this.deltas);
    else if (said.content) this.deltas.push({ text: said.content });
  }

  /** Without what was taken for thinking and then given out once more as text. */
  #corrected(): readonly Delta[] {
    const mistaken = this.#separator?.mistaken;
    if (!mistaken) return this.deltas;
    const repeated = this.deltas.findIndex(({ text }) => text !== undefined);
    return [...mistaken.map((text) => ({ text })), ...this.deltas.slice(repeated + 1)];
  }

  #remember(text: string): void {
    const { model, json, forms } = this.#options;
    if (!this.#separator) return;
    if (this.#separator.unopened || hasStrayTag(text)) forms.remember(model, "unopened");
    // Under a schema a model does not think, which says nothing of how it does; nor does an empty answer.
    else if (this.#separator.reasoningTokens === 0 && text && !json && !forms.isKnown(model)) {
      forms.remember(model, "plain");
    }
  }
}

function charsOf({ content, reasoning, toolCalls }: Said): number {
  return content.length + reasoning.length + (toolCalls ? JSON.stringify(toolCalls).length : 0);
}

/** LM Studio counts thinking only where it separates it itself. */
function withReasoning(usage: Usage | undefined, counted: number): Usage | undefined {
  if (!usage || counted === 0 || usage.completion_tokens_details?.reasoning_tokens) return usage;
  return { ...usage, completion_tokens_details: { reasoning_tokens: counted } };
}
