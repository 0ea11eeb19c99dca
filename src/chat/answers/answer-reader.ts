import type { Completion, Head } from "../completion.ts";
import type { Endpoint } from "../lm-studio/endpoints.ts";
import type { Delta } from "../lm-studio/reasoning.ts";
import { ChatAnswer } from "./chat-answer.ts";
import { EmbeddingsAnswer } from "./embeddings-answer.ts";
import { ResponsesAnswer } from "./responses-answer.ts";
import type { ThinkingForms } from "./thinking-forms.ts";

/** One event of LM Studio's answer. An answer that came in one piece is a single event named `whole`. */
export interface AnswerEvent {
  readonly event: string;
  readonly value: unknown;
  /** Where it is there, the event is `value` but for the delta of its one choice, which is this. */
  readonly delta?: unknown;
}

/** Makes one answer out of the events of one endpoint. Each answer has a reader of its own. */
export interface AnswerReader {
  /** From the first event on. */
  readonly head: Head | undefined;
  /** All that was given out so far, for the log of an answer that broke off. */
  readonly deltas: readonly Delta[];
  /** Characters that it was told so far, what is still held back included. */
  readonly chars: number;
  /**
   * Takes these events in: what they settle is in `deltas` then. Throws `ChatError` `upstream-invalid` on what is no part of an answer, or the
   * error that the model reports.
   */
  events(events: readonly AnswerEvent[]): void;
  /** Somebody reads along from now on: what was held back only until the answer is whole is given out. */
  readAlong(): void;
  /** Gives out what was held back until no more came. To be called once, also where the answer broke off. */
  end(): void;
  /** The answer, after `end`. Throws `ChatError` `upstream-invalid` where it is not whole. */
  completion(): Completion;
}

export interface ReaderOptions {
  /** The model that was asked. */
  readonly model: string;
  /** Whether thinking is told apart from the answer. */
  readonly separates: boolean;
  /** JSON was asked for. */
  readonly json: boolean;
  /** Somebody reads along from the start. */
  readonly isRead: boolean;
  readonly forms: ThinkingForms;
}

export function readerFor(endpoint: Endpoint, options: ReaderOptions): AnswerReader {
  if (endpoint === "embeddings") return new EmbeddingsAnswer();
  if (endpoint === "responses") return new ResponsesAnswer();
  return new ChatAnswer(options);
}
