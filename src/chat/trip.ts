import type { InteractionContent, NewInteraction } from "../store/interaction-record.ts";
import type { Call, Source, Timing } from "./complete.ts";
import { type Completion, joinDeltas } from "./completion.ts";
import type { Flight } from "./flight.ts";

/** What is noted of a call on its way: where its answer came from, how long each part took, and its log row. */
export class Trip {
  readonly call: Call;
  source: Source = { cache: "BYPASS" };
  flight: Flight | undefined;
  #loggingAt: number | undefined;
  readonly #promptJson: string;
  readonly #createdAt = new Date();
  readonly #begun = performance.now();

  constructor(call: Call, promptJson: string) {
    this.call = call;
    this.#promptJson = promptJson;
  }

  /** So far. Who joined a flight counts from when they did. */
  timing(): Timing {
    const now = performance.now();
    const since = (at: number | undefined) => (at === undefined ? undefined : Math.max(0, at - this.#begun));
    const { admittedAt, firstTokenAt, landedAt } = this.flight ?? {};
    return {
      totalMs: now - this.#begun,
      queuedMs: since(admittedAt),
      firstTokenMs: since(firstTokenAt),
      upstreamMs:
        admittedAt === undefined ? undefined : (landedAt ?? now) - Math.max(admittedAt, this.#begun),
      logMs: this.#loggingAt === undefined ? undefined : now - this.#loggingAt,
    };
  }

  /** The row of the log: it is about to be written. */
  interaction(end: {
    readonly completion?: Completion;
    readonly outcome: string;
    readonly error?: unknown;
  }): NewInteraction {
    const { call } = this;
    const { totalMs, queuedMs, firstTokenMs } = this.timing();
    this.#loggingAt = performance.now();
    return {
      id: call.id,
      createdAt: this.#createdAt,
      route: call.route,
      caller: call.caller,
      requestId: call.requestId,
      sessionId: call.sessionId,
      runId: call.runId,
      content: end.completion ? this.#wholeContent(end.completion) : this.#brokenContent(),
      cache: this.source.cache,
      upstream: this.flight?.upstream,
      outcome: end.outcome,
      error: end.error instanceof Error ? end.error.message : undefined,
      queuedMs,
      firstTokenMs,
      processingTimeMs: totalMs,
    };
  }

  /** One content for all who got the same answer: the log writes it once for many of them. */
  #wholeContent(completion: Completion): InteractionContent {
    const isOwn = individual.some((name) => name in this.call.body);
    const known = isOwn ? undefined : contents.get(completion);
    if (known) return known;
    const { head, text, reasoning, toolCalls, finishReason, usage } = completion;
    const content = { ...this.#asked(head.model), text, reasoning, toolCalls, finishReason, usage };
    // Remembered from the second one on: most answers are given once, and each entry costs the collector.
    if (!isOwn && this.source.cache !== "MISS") contents.set(completion, content);
    return content;
  }

  #brokenContent(): InteractionContent {
    const { head, deltas = [] } = this.flight?.answer ?? {};
    return { ...this.#asked(head?.model ?? this.call.body.model), ...joinDeltas(deltas) };
  }

  #asked(model: string) {
    const { messages: _messages, prompt: _prompt, input: _input, ...parameters } = this.call.body;
    return { model, promptJson: this.#promptJson, parameters };
  }
}

/** Parameters in which two requests may differ that are answered alike. */
const individual = ["user", "metadata", "ttl"];

const contents = new WeakMap<Completion, InteractionContent>();
