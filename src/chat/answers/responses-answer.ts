import { ChatError } from "../chat-error.ts";
import { type Completion, type Head, joinDeltas } from "../completion.ts";
import type { Usage } from "../lm-studio/chunk.ts";
import { classify } from "../lm-studio/errors.ts";
import { type Delta, Separator } from "../lm-studio/reasoning.ts";
import type { AnswerEvent, AnswerReader } from "./answer-reader.ts";
import { eventsOfWhole } from "./whole-response.ts";

/** The event that ends a response: the last one sent, and what a completion of this endpoint has as `raw`. */
export interface FinalEvent {
  readonly type: "response.completed" | "response.incomplete";
  readonly sequence_number?: number;
  readonly response: Readonly<Record<string, unknown>>;
}

/**
 * Reads the events of `/v1/responses`. Each is passed on as it came, in `event` of its delta; text and thinking
 * are beside it for the log. Two kinds are kept back. Those that only announce a response wait for the first
 * that has something of it: until then the model may still refuse, which is to be an error answer. The final
 * one is in no delta, but `raw` of the completion: that an answer is whole may be said once it is in the log.
 */
export class ResponsesAnswer implements AnswerReader {
  readonly deltas: Delta[] = [];
  chars = 0;
  head: Head | undefined;
  readonly #announced: { head: Head | undefined; readonly deltas: Delta[] } = { head: undefined, deltas: [] };
  #final: FinalEvent | undefined;

  events(events: readonly AnswerEvent[]): void {
    for (const { event, value } of events) {
      for (const each of event === "whole" ? eventsOfWhole(value) : [value]) this.#event(each, event);
    }
  }

  /** Nothing is held back for that. */
  readAlong(): void {}

  /** Nor for anything else. */
  end(): void {}

  completion(): Completion {
    if (!this.head || !this.#final) {
      throw new ChatError("upstream-invalid", "LM Studio ended its stream without a response.");
    }
    const { response } = this.#final;
    const said = saidIn(response);
    return {
      head: this.head,
      deltas: this.deltas,
      ...said,
      finishReason: finishReasonOf(this.#final, said.toolCalls.length > 0),
      usage: usageOf(response.usage),
      raw: this.#final,
    };
  }

  #event(value: unknown, name: string): void {
    const { type = name, response, delta, message, code } = (value ?? {}) as Loose;
    if (type === "error") throw classify({ error: { message, code } });
    if (type === "response.failed") throw classify({ error: response?.error });
    if (typeof response?.model === "string") this.#announced.head ??= headOf(response);
    if (announcing.test(type)) {
      const event = responseEvent(type, value);
      this.chars += event.length;
      this.#announced.deltas.push({ event });
      return;
    }
    this.head ??= this.#announced.head;
    this.deltas.push(...this.#announced.deltas.splice(0));
    if (type === "response.completed" || type === "response.incomplete") {
      if (!this.head || !Array.isArray(response?.output)) throw noPart();
      this.#final = value as FinalEvent;
      return;
    }
    if (typeof type !== "string" || !type.startsWith("response.")) throw noPart();
    const words = typeof delta === "string" ? delta : undefined;
    const told = responseEvent(type, value);
    // Of a token its words count, as elsewhere; of what has none all of it is kept.
    this.chars += (words || told).length;
    this.deltas.push({
      ...(type === "response.output_text.delta" && words ? { text: words } : {}),
      ...(thinking.test(type) && words ? { reasoning: words } : {}),
      event: told,
    });
  }
}

/** One event of a streamed response. */
export function responseEvent(type: string, value: unknown): string {
  return `event: ${type}\ndata: ${JSON.stringify(value)}\n\n`;
}

// biome-ignore lint/suspicious/noExplicitAny: this is where what others sent is turned into what we know
type Loose = any;

const announcing = /^response\.(created|queued|in_progress)$/;
const thinking = /^response\.reasoning(_summary)?_text\.delta$/;

function noPart(): ChatError {
  return new ChatError("upstream-invalid", "LM Studio sent an event that is no part of a response.");
}

function headOf({ id, created_at, model }: Loose): Head {
  const created = Number.isInteger(created_at) ? created_at : Math.floor(Date.now() / 1000);
  return { id: String(id ?? ""), created, model };
}

/** Text, thinking and calls of the whole response: the output says it all once more, and in its order. */
function saidIn(response: FinalEvent["response"]): ReturnType<typeof joinDeltas> {
  const separator = new Separator({ untagged: "hold", json: false });
  const deltas: Delta[] = [];
  for (const [index, item] of (response.output as Loose[]).entries()) {
    if (item?.type === "function_call") {
      const { call_id, name, arguments: args } = item;
      deltas.push({ toolCalls: [{ index, id: call_id, function: { name, arguments: args } }] });
    }
    if (!/^(message|reasoning)$/.test(item?.type)) continue;
    for (const part of [item.summary ?? [], item.content ?? []].flat()) {
      if (typeof part?.text !== "string") continue;
      if (item.type === "reasoning") deltas.push({ reasoning: part.text });
      // With LM Studio's setting off, tags are in the text here as well.
      else separator.push({ content: part.text, reasoning: "", toolCalls: undefined }, deltas);
    }
  }
  return joinDeltas([...deltas, ...separator.end()]);
}

function finishReasonOf({ type, response }: FinalEvent, called: boolean): string {
  if (type === "response.completed") return called ? "tool_calls" : "stop";
  const reason = (response.incomplete_details as Loose)?.reason;
  return typeof reason === "string" && reason !== "max_output_tokens" ? reason : "length";
}

function usageOf(usage: Loose): Usage | undefined {
  const { input_tokens, output_tokens, output_tokens_details: details } = usage ?? {};
  if (!Number.isInteger(input_tokens) || !Number.isInteger(output_tokens)) return undefined;
  return {
    prompt_tokens: input_tokens,
    completion_tokens: output_tokens,
    total_tokens: input_tokens + output_tokens,
    ...(Number.isInteger(details?.reasoning_tokens)
      ? { completion_tokens_details: { reasoning_tokens: details.reasoning_tokens } }
      : {}),
  };
}
