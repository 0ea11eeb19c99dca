import type { FastifyBaseLogger } from "fastify";
import { AppError } from "../http/problem.ts";
import { StoreError } from "../store/errors.ts";
import type { InteractionLog } from "../store/interaction-log.ts";
import { type AnswerReader, readerFor } from "./answers/answer-reader.ts";
import { askedText } from "./answers/asked-text.ts";
import { ThinkingForms } from "./answers/thinking-forms.ts";
import type { AnswerCache } from "./cache/answer-cache.ts";
import { ChatError } from "./chat-error.ts";
import type { Completion, Head } from "./completion.ts";
import { Flight, type FlightEnd, follow } from "./flight.ts";
import type { Limits } from "./limits.ts";
import type { Endpoint } from "./lm-studio/endpoints.ts";
import { type Delta, hasStrayTag } from "./lm-studio/reasoning.ts";
import type { Upstreams } from "./lm-studio/upstreams.ts";
import { type Priority, priorities } from "./queue.ts";
import { type RequestKey, requestKey } from "./request-key.ts";
import { Trip } from "./trip.ts";

/** What a request allows of the cache. */
export interface Caching {
  /** An answer that is there already will do, and so will one that is under way. */
  readonly read: boolean;
  /** The answer may be kept. */
  readonly write: boolean;
  /** Older answers will not do, seconds. */
  readonly maxAgeS?: number;
  /** Only an answer that is kept will do. */
  readonly onlyIfCached?: boolean;
}

/** One question to a model, from whichever route. */
export interface Call {
  /** UUIDv7, the id of its interaction. */
  readonly id: string;
  readonly route: string;
  readonly endpoint: Endpoint;
  /** Who goes first where the model is busy. */
  readonly priority: Priority;
  readonly caller: string;
  readonly shownKey?: string | undefined;
  readonly requestId: string;
  readonly sessionId?: string | undefined;
  readonly runId?: string | undefined;
  /** What LM Studio is asked: its own parameters, `model` included, without those of streaming. */
  readonly body: Readonly<Record<string, unknown>> & { readonly model: string };
  /** Whether thinking is told apart from the answer. */
  readonly separates: boolean;
  /** What `requestKey` gives for this call, where that is known already. */
  readonly key?: RequestKey | undefined;
  readonly caching: Caching;
  /** Aborted when the caller leaves. */
  readonly stop: AbortController;
  /** Told where it was and what its time went into before its failure is thrown. */
  readonly failed?: (source: Source, timing: Timing) => void;
  readonly log: FastifyBaseLogger;
}

/** Where a streamed answer goes. What returns a promise is waited for before more is handed over. */
interface Sink {
  /** Called once, before the first delta. Nothing has been answered until then. */
  readonly begin: (head: Head, source: Source, timing: Timing) => void;
  readonly deltas: (deltas: readonly Delta[]) => Promise<void> | undefined;
}

/** Where an answer comes from, and how old it is. */
export interface Source {
  readonly cache: "HIT" | "MISS" | "JOINED" | "BYPASS";
  readonly ageS?: number;
}

/** Milliseconds that a call spent, as far as they are known by now. */
export interface Timing {
  readonly totalMs: number;
  /** Waiting for its turn. */
  readonly queuedMs?: number | undefined;
  /** Until the first token, waiting included. */
  readonly firstTokenMs?: number | undefined;
  /** Between LM Studio being asked and its last word. */
  readonly upstreamMs?: number | undefined;
  /** Until its interaction was on disk. */
  readonly logMs?: number | undefined;
}

export interface Answer {
  readonly completion: Completion;
  readonly key: RequestKey;
  readonly source: Source;
  readonly timing: Timing;
}

export interface CompleteParts {
  readonly upstreams: Upstreams;
  readonly cache: AnswerCache;
  readonly interactions: InteractionLog;
  readonly observer: CallObserver;
  readonly limits: Limits;
  /** Tokens of context that a model was loaded with, where that is known. */
  readonly contextOf: (model: string) => number | undefined;
}

/** Told when a call begins, and how it ended. */
export interface CallObserver {
  readonly began: () => void;
  readonly ended: (call: Call, end: CallEnd) => void;
}

export interface CallEnd {
  /** `ok`, or the code of the error. */
  readonly outcome: string;
  readonly source: Source;
  readonly timing: Timing;
  readonly completion?: Completion | undefined;
}

/** Calls under way at once; each holds its answer in memory. */
const callsMax = 1_024;
/** Characters of one answer, thinking and calls included. */
const answerCharsMax = 4 * 1024 * 1024;

/** Gives the answer once its interaction is on disk. */
export type Complete = (call: Call, sink?: Sink) => Promise<Answer>;

/**
 * The way of every question: limits → cache → join an identical one under way → queue → LM Studio → log →
 * answer. Throws a `ChatError`, or `StoreError` where the interaction cannot be stored: then nothing may be
 * answered as done. Failed and abandoned calls are stored too.
 */
export function createComplete(parts: CompleteParts): Complete {
  const { upstreams, cache, interactions, observer, limits, contextOf } = parts;
  const forms = new ThinkingForms();
  const flights = new Map<string, Flight>();
  let underWay = 0;

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
    const asked = call.key ?? requestKey(call);
    const trip = new Trip(call, asked.prompt);
    observer.began();
    try {
      const completion = (await fromCache(trip, asked.key, sink)) ?? (await fromModel(trip, asked.key, sink));
      call.stop.signal.throwIfAborted();
      await interactions.record(trip.interaction({ completion, outcome: "ok" }));
      const end = { outcome: "ok", source: trip.source, timing: trip.timing(), completion, key: asked };
      observer.ended(call, end);
      return end;
    } catch (error) {
      const outcome = error instanceof AppError ? error.code : "internal";
      observer.ended(call, { outcome, source: trip.source, timing: trip.timing() });
      // Where the log itself failed there is no way to note that there.
      if (!(error instanceof StoreError)) {
        await interactions.record(trip.interaction({ error, outcome })).catch((reason: unknown) => {
          call.log.warn({ err: reason, interactionId: call.id }, "failed call not stored");
        });
      }
      call.failed?.(trip.source, trip.timing());
      throw error;
    }
  }

  async function fromCache(trip: Trip, key: string, sink: Sink | undefined): Promise<Completion | undefined> {
    const { read, maxAgeS, onlyIfCached } = trip.call.caching;
    const looked = read ? cache.get(key, maxAgeS) : undefined;
    const found = looked instanceof Promise ? await looked : looked;
    if (!found) {
      if (read && cache.isOn) trip.source = { cache: "MISS" };
      if (onlyIfCached) throw new ChatError("cache-miss", "There is no answer to this in the cache.");
      return undefined;
    }
    trip.source = { cache: "HIT", ageS: found.ageS };
    if (sink) {
      sink.begin(found.completion.head, trip.source, trip.timing());
      await sink.deltas(found.completion.deltas);
    }
    return found.completion;
  }

  async function fromModel(trip: Trip, key: string, sink: Sink | undefined): Promise<Completion> {
    const { call } = trip;
    const budgetRead = limits.admit(call, contextOf(call.body.model));
    if (budgetRead) await budgetRead;
    // Who has left meanwhile is no passenger, and what nobody waits for nobody could stop.
    call.stop.signal.throwIfAborted();
    const other = call.caching.read ? flights.get(key) : undefined;
    const joined = other && isCompany(other, call) ? other : undefined;
    if (joined) trip.source = { cache: "JOINED" };
    // Whoever asked before may have wanted it whole.
    if (joined && sink) joined.answer.readAlong();
    trip.flight = joined ?? launch(call, key, sink !== undefined);
    const begin = (head: Head) => sink?.begin(head, trip.source, trip.timing());
    return follow(trip.flight, call.stop.signal, sink && { begin, deltas: sink.deltas });
  }

  /** Asks the model. The flight lands by itself, whoever is still aboard then. */
  function launch(call: Call, key: string, isRead: boolean): Flight {
    const { model, response_format: format } = call.body;
    // Clients may name plain text as well.
    const json = (format as { type?: unknown } | null | undefined)?.type === "json_schema";
    const reader = readerFor(call.endpoint, { model, separates: call.separates, json, isRead, forms });
    const flight = new Flight(reader, call.priority);
    if (call.caching.read) flights.set(key, flight);
    void fly(flight, reader, call).then((end) => {
      if (flights.get(key) === flight) flights.delete(key);
      if ("completion" in end) {
        const { completion } = end;
        limits.spent(call, completion.usage);
        // In the turn in which it lands: who asks next finds the answer in one of the two places.
        if (call.caching.write && isReusable(call, completion)) {
          cache.set(key, completion, { model, caller: call.caller });
        }
      } else if (reader.head) limits.spentAbout(call, reader.deltas.length);
      flight.land(end);
    });
    return flight;
  }

  async function fly(flight: Flight, reader: AnswerReader, call: Call): Promise<FlightEnd> {
    try {
      const { endpoint, priority, caller, requestId, body } = call;
      const { signal } = flight.stop;
      const question = {
        endpoint,
        body: askedText(call),
        model: body.model,
        priority,
        caller,
        requestId,
        signal,
      };
      await upstreams.ask(question, {
        admitted: (place) => flight.admitted(place),
        events: (events) => {
          try {
            reader.events(events);
          } finally {
            flight.said();
          }
          if (reader.chars > answerCharsMax) {
            throw new ChatError("upstream-invalid", "The model's answer does not end.");
          }
        },
      });
      reader.end();
      const completion = reader.completion();
      flight.said();
      return { completion };
    } catch (error) {
      // What was held back is logged like the rest of a broken answer.
      reader.end();
      return { error };
    }
  }
}

/** Waiting behind those who go later is no company. */
function isCompany(flight: Flight, { priority }: Call): boolean {
  const isAhead = priorities.indexOf(flight.priority) <= priorities.indexOf(priority);
  return flight.isJoinable && (flight.admittedAt !== undefined || isAhead);
}

/**
 * Whole, told apart, with something in it, and from the model that was asked: another one may have answered in its
 * place.
 */
function isReusable(call: Call, { finishReason, head, text, toolCalls, raw }: Completion): boolean {
  const isWhole = finishReason === "stop" || finishReason === "tool_calls";
  const isEmpty = text.trim() === "" && toolCalls.length === 0 && raw === undefined;
  return isWhole && !isEmpty && head.model === call.body.model && !(call.separates && hasStrayTag(text));
}
