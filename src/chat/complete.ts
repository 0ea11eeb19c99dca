import type { FastifyBaseLogger } from "fastify";
import { AppError } from "../http/problem.ts";
import { StoreError } from "../store/errors.ts";
import type { InteractionLog } from "../store/interactions.ts";
import { type AnswerReader, readerFor } from "./answers/answer-reader.ts";
import { askedText } from "./answers/asked-text.ts";
import { ThinkingForms } from "./answers/thinking-forms.ts";
import type { AnswerCache } from "./cache/answer-cache.ts";
import { ChatError } from "./chat-error.ts";
import { type Completion, type Head, joinDeltas } from "./completion.ts";
import { type Delta, hasStrayTag } from "./lm-studio/reasoning.ts";
import type { Endpoint, Upstream } from "./lm-studio/upstream.ts";
import { requestKey } from "./request-key.ts";

/** One question to a model, from whichever route. */
export interface Call {
  /** UUIDv7, the id of its interaction. */
  readonly id: string;
  readonly route: string;
  readonly endpoint: Endpoint;
  readonly caller: string;
  readonly requestId: string;
  readonly sessionId?: string | undefined;
  readonly runId?: string | undefined;
  /** What LM Studio is asked: its own parameters, `model` included, without those of streaming. */
  readonly body: Readonly<Record<string, unknown>> & { readonly model: string };
  /** Whether thinking is told apart from the answer. */
  readonly separates: boolean;
  readonly caching: Caching;
  /** Aborted when the caller leaves. */
  readonly stop: AbortController;
  readonly log: FastifyBaseLogger;
}

/** What a caller allows the cache. */
export interface Caching {
  /** Whether a kept answer will do, and up to which age. */
  readonly read: boolean;
  readonly maxAgeS?: number;
  /** Whether the answer may be kept. */
  readonly write: boolean;
  /** The model is not asked: without a kept answer there is none. */
  readonly onlyIfCached?: boolean;
}

/** Where a streamed answer goes. What returns a promise is waited for: a slow reader slows the model down. */
interface Sink {
  /** Called once, before the first delta. Nothing has been answered until then. */
  readonly begin: (head: Head, source: Source) => void;
  readonly deltas: (deltas: readonly Delta[]) => Promise<void> | undefined;
}

/** Where an answer comes from, and how old it is. */
export interface Source {
  readonly cache: "HIT" | "MISS" | "BYPASS";
  readonly ageS?: number;
}

export interface Answer {
  readonly completion: Completion;
  readonly source: Source;
  readonly processingTimeMs: number;
}

export interface CompleteParts {
  readonly upstream: Upstream;
  readonly cache: AnswerCache;
  readonly interactions: InteractionLog;
  /** Told how each call ended. */
  readonly count: (call: Call, outcome: string, source: Source) => void;
}

/** Calls under way at once; each holds its answer in memory. */
const callsMax = 256;
/** Characters of one answer, thinking included. */
const answerCharsMax = 4 * 1024 * 1024;

export type Complete = (call: Call, sink?: Sink) => Promise<Answer>;

/**
 * The way of every question: limits → cache → LM Studio → log → answer. Resolves with the whole answer once
 * its interaction is on disk. Throws a `ChatError`, or `StoreError` where the interaction cannot be stored:
 * then nothing may be answered as done. Failed and abandoned calls are stored too.
 */
export function createComplete({ upstream, cache, interactions, count }: CompleteParts): Complete {
  let underWay = 0;
  const forms = new ThinkingForms();

  return async (call, sink) => {
    if (underWay >= callsMax) {
      throw new ChatError("chat-busy", `${callsMax} questions are under way; try again in a moment.`, {
        retryAfterS: 1,
      });
    }
    underWay += 1;
    try {
      return await complete(call, sink);
    } finally {
      underWay -= 1;
    }
  };

  async function complete(call: Call, sink: Sink | undefined): Promise<Answer> {
    const asked = requestKey(call);
    const begunAt = Date.now();
    const begun = performance.now();
    const progress: Progress = { reader: undefined, firstTokenMs: undefined };
    const { read, write, maxAgeS, onlyIfCached } = call.caching;
    const found = read ? await cache.get(asked.key, maxAgeS) : undefined;
    const bypass = !read || !cache.isOn;
    const source: Source = found ? { cache: "HIT", ageS: found.ageS } : { cache: bypass ? "BYPASS" : "MISS" };

    const record = (end: { completion?: Completion; error?: unknown }, processingTimeMs: number) => {
      const outcome = end.error === undefined ? "ok" : codeOf(end.error);
      count(call, outcome, source);
      const { completion } = end;
      return interactions.record({
        id: call.id,
        createdAt: new Date(begunAt),
        route: call.route,
        caller: call.caller,
        requestId: call.requestId,
        sessionId: call.sessionId,
        runId: call.runId,
        model: (completion?.head ?? progress.reader?.head)?.model ?? call.body.model,
        promptJson: asked.prompt,
        parameters: parametersOf(call),
        ...(completion ?? joinDeltas(progress.reader?.deltas ?? [])),
        finishReason: completion?.finishReason,
        usage: completion?.usage,
        cached: found !== undefined,
        outcome,
        error: end.error instanceof Error ? end.error.message : undefined,
        firstTokenMs: progress.firstTokenMs,
        processingTimeMs,
      });
    };

    try {
      if (!found && onlyIfCached)
        throw new ChatError("cache-miss", "There is no answer to this in the cache.");
      const completion = found?.completion ?? (await generate(call, progress, source, begun, sink));
      if (found && sink) {
        sink.begin(completion.head, source);
        await sink.deltas(completion.deltas);
      }
      call.stop.signal.throwIfAborted();
      const processingTimeMs = performance.now() - begun;
      await record({ completion }, processingTimeMs);
      if (!found && write && isReusable(call, completion)) {
        cache.set(asked.key, completion, { model: call.body.model, caller: call.caller });
      }
      return { completion, source, processingTimeMs };
    } catch (error) {
      // The log itself failed: there is no way to note that there.
      if (error instanceof StoreError) throw error;
      await record({ error }, performance.now() - begun).catch((reason: unknown) =>
        call.log.warn({ err: reason, interactionId: call.id }, "failed call not stored"),
      );
      throw error;
    }
  }

  async function generate(
    call: Call,
    progress: Progress,
    source: Source,
    begun: number,
    sink: Sink | undefined,
  ): Promise<Completion> {
    const { model } = call.body;
    const json = "response_format" in call.body;
    const isRead = sink !== undefined;
    const reader = readerFor(call.endpoint, { model, separates: call.separates, json, isRead, forms });
    progress.reader = reader;
    let chars = 0;

    const pass = (deltas: readonly Delta[]) => {
      for (const { text, reasoning } of deltas) chars += (text?.length ?? 0) + (reasoning?.length ?? 0);
      if (chars > answerCharsMax) throw new ChatError("upstream-invalid", "The model's answer does not end.");
      return deltas.length > 0 ? sink?.deltas(deltas) : undefined;
    };

    try {
      for await (const events of upstream.stream(call.endpoint, askedText(call), model, call.stop)) {
        const deltas = reader.events(events);
        if (progress.firstTokenMs === undefined && reader.head) {
          progress.firstTokenMs = performance.now() - begun;
          sink?.begin(reader.head, source);
        }
        await pass(deltas);
      }
    } catch (error) {
      // What was held back is logged like the rest of a broken answer.
      reader.end();
      throw error;
    }
    await pass(reader.end());
    return reader.completion();
  }
}

/** What there is of an answer so far. */
interface Progress {
  reader: AnswerReader | undefined;
  firstTokenMs: number | undefined;
}

/** Whole, told apart, and from the model that was asked: another one may have answered in its place. */
function isReusable(call: Call, { finishReason, head, text }: Completion): boolean {
  const whole = finishReason === "stop" || finishReason === "tool_calls";
  return whole && head.model === call.body.model && !(call.separates && hasStrayTag(text));
}

function parametersOf(call: Call): Record<string, unknown> {
  const { messages: _messages, prompt: _prompt, input: _input, ...parameters } = call.body;
  return parameters;
}

function codeOf(error: unknown): string {
  return error instanceof AppError ? error.code : "internal";
}
