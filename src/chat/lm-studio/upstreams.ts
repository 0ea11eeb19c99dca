import { setTimeout as delay } from "node:timers/promises";
import type { AnswerEvent } from "../answers/answer-reader.ts";
import { ChatError } from "../chat-error.ts";
import { type Priority, priorities, Queue, type Waiter } from "../queue.ts";
import { type Endpoint, endpoints } from "./endpoints.ts";
import { connectionError, isStaleConnection } from "./errors.ts";
import { Exchange } from "./exchange.ts";
import type { ListedModel } from "./models.ts";
import type { PatienceOptions } from "./patience.ts";
import { breaking, nextStep } from "./retry.ts";
import { type Place, Upstream } from "./upstream.ts";

export interface UpstreamsOptions extends PatienceOptions {
  /** LM Studio's roots: a pool. */
  readonly roots: readonly string[];
  readonly key?: string | undefined;
  /** Requests at once for one model at one LM Studio; default: what LM Studio says of it. */
  readonly concurrency?: number | undefined;
  /** Requests that wait at most. */
  readonly waitingMax?: number;
  /** Milliseconds, never stepping back. */
  readonly clock?: () => number;
}

/** What a model is asked. */
export interface Question {
  readonly endpoint: Endpoint;
  /** JSON, complete as it is to be sent. */
  readonly body: string;
  readonly model: string;
  readonly priority: Priority;
  /** Callers of one priority take turns. */
  readonly caller: string;
  readonly requestId: string;
  /** Aborted when nobody wants the answer any more. */
  readonly signal: AbortSignal;
}

/** Who is told of an answer as it comes: at once, and without being waited for. */
export interface Listener {
  /** The question goes to this LM Studio now, having waited so long. Again, with a new figure, when it is asked anew. */
  readonly admitted: (place: { readonly upstream: string; readonly queuedMs: number }) => void;
  /** Parts of the answer. What it throws ends the question, and `ask` throws it. */
  readonly events: (events: readonly AnswerEvent[]) => void;
}

/** A question on its way. */
interface Asked extends Waiter, Question {
  /** When it began to wait, this time. */
  waitsFrom: number;
  /** Time that it waited for its turns. */
  queuedMs: number;
  /** LM Studios that cannot answer it: not there, or without its model. */
  readonly excluded: Set<Upstream>;
  /** The one that failed last: another is asked first, if there is one. */
  avoided: Upstream | undefined;
  /** It was sent once more because its connection may have been an idle one that was just closed. */
  isResent: boolean;
  /** Why it failed last. */
  failure: ChatError | undefined;
  /** How it is told that it may go on. */
  begin: ((place: Place) => void) | undefined;
  refuse: ((error: unknown) => void) | undefined;
}

/** How long others wait for an LM Studio that is late, once one of the pool has told its models. */
const lateMs = 250;
/** How long the model that is loaded is preferred over those who wait for another. */
const switchPatienceMs = 30_000;
/** Failures in a row after which a model is left alone: soon where another can do its work; else later, since nobody gains. */
const failuresMaxOfMany = 5;
const failuresMaxAlone = 20;

/**
 * Every LM Studio there is, as one. A question waits for its turn, goes to the LM Studio that has its model and
 * the least to do, and is asked again where that can help and nothing has been passed on.
 */
export class Upstreams implements AsyncDisposable {
  readonly #options: UpstreamsOptions;
  readonly #clock: () => number;
  readonly #upstreams: readonly Upstream[];
  readonly #queue: Queue<Asked>;
  /** Among equals, they take turns. */
  #turn = 0;
  #isAdmitting = false;

  constructor(options: UpstreamsOptions) {
    const { key, silenceMs, concurrency, waitingMax, clock = () => performance.now() } = options;
    this.#options = options;
    this.#clock = clock;
    this.#queue = new Queue(waitingMax === undefined ? {} : { waitingMax });
    const changed = () => this.#admit();
    const urls = [...new Set(options.roots)];
    const failuresMax = urls.length > 1 ? failuresMaxOfMany : failuresMaxAlone;
    this.#upstreams = urls.map(
      (url) => new Upstream(url, { key, silenceMs, concurrency, clock, failuresMax, changed }),
    );
  }

  /**
   * Asks a model. Resolves after the proper end of its answer, all of which `listener` has had by then. Throws
   * a `ChatError` at anything else, or the reason of `signal`: then LM Studio was left at once.
   */
  async ask(question: Question, listener: Listener): Promise<void> {
    const { signal } = question;
    signal.throwIfAborted();
    const since = this.#clock();
    const asked: Asked = {
      ...question,
      size: question.body.length,
      since,
      waitsFrom: since,
      queuedMs: 0,
      excluded: new Set(),
      avoided: undefined,
      isResent: false,
      failure: undefined,
      begin: undefined,
      refuse: undefined,
    };
    for (const upstream of this.#upstreams) upstream.refresh();
    try {
      await this.#answer(asked, listener);
    } catch (error) {
      throw error === asked.failure ? await this.#told(asked) : error;
    }
  }

  /**
   * All models of all LM Studios that are there. One that is slow or away holds nobody up once another has
   * answered. Throws a `ChatError` where none does.
   */
  async models(): Promise<ListedModel[]> {
    const lists = this.#upstreams.map((upstream) => upstream.list());
    const first = Promise.any(lists);
    const all = Promise.allSettled(lists);
    try {
      await first;
    } catch (error) {
      throw (error as AggregateError).errors[0];
    }
    const late = new AbortController();
    await Promise.race([all, delay(lateMs, undefined, { ref: false, signal: late.signal }).catch(() => {})]);
    late.abort();
    return this.#merged();
  }

  /**
   * Tokens of context that the model is loaded with, from the last list; the least of several. A list that is
   * old is asked for anew on the side, for the questions after this one.
   */
  contextOf(model: string): number | undefined {
    let least: number | undefined;
    for (const upstream of this.#upstreams) {
      upstream.refresh();
      const tokens = upstream.isHealthy ? upstream.listed(model)?.loaded_context_length : undefined;
      if (tokens !== undefined && (least === undefined || tokens < least)) least = tokens;
    }
    return least;
  }

  /** The state of every LM Studio and of the queue, as `GET /queue` shows it. */
  status() {
    const now = this.#clock();
    return {
      upstreams: this.#upstreams.map((upstream) => ({
        url: upstream.url,
        healthy: upstream.isHealthy,
        ...(upstream.trouble ? { detail: upstream.trouble.error.message } : {}),
        active: upstream.active,
        models: this.#modelsOf(upstream),
      })),
      queue: {
        length: this.#queue.length,
        length_max: this.#queue.lengthMax,
        by_priority: { ...this.#queue.lengths },
        waiting: this.#queue.list().map(({ waiter, position }) => {
          const waitMs = this.#queue.waitMs(waiter.model, position, this.#slotsOf(waiter.model));
          return {
            position,
            priority: waiter.priority,
            caller: waiter.caller,
            model: waiter.model,
            request_id: waiter.requestId,
            waited_ms: Math.round(now - waiter.since),
            estimated_wait_ms: waitMs ?? null,
          };
        }),
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#upstreams.map((upstream) => upstream[Symbol.asyncDispose]()));
  }

  async #answer(asked: Asked, listener: Listener): Promise<void> {
    const { signal } = asked;
    for (let attempts = 0, retries = 0; ; attempts += 1) {
      const place = this.#takePlace(asked) ?? (await this.#wait(asked, attempts > 0));
      asked.queuedMs += this.#clock() - asked.waitsFrom;
      const next = await this.#attempt(asked, place, retries, listener);
      if (next === undefined) return;
      if (next.step === "again") {
        retries += 1;
        asked.avoided = place.upstream;
        // By then, one that was away may be back.
        asked.excluded.clear();
        await delay(next.afterMs, undefined, { signal }).catch(() => signal.throwIfAborted());
      } else asked.excluded.add(place.upstream);
      asked.waitsFrom = this.#clock();
    }
  }

  /** One try. Gives what is to come next, nothing where the answer is whole, and throws where it is over. */
  async #attempt(asked: Asked, place: Place, retries: number, listener: Listener) {
    const { upstream, breaker, model } = place;
    const begunAt = this.#clock();
    let exchange: Exchange | undefined;
    let readerFailure: { readonly error: unknown } | undefined;
    const events = (parts: readonly AnswerEvent[]) => {
      this.#heard(place);
      try {
        listener.events(parts);
      } catch (error) {
        readerFailure = { error };
        throw error;
      }
    };
    try {
      asked.signal.throwIfAborted();
      listener.admitted({ upstream: upstream.url, queuedMs: asked.queuedMs });
      exchange = this.#send(asked, place, events);
      try {
        await exchange.done;
      } catch (error) {
        // Once: what kills LM Studio each time must not be sent more often because that looks the same.
        if (asked.isResent || asked.signal.aborted || exchange.isAnswered || !isStaleConnection(error))
          throw error;
        asked.isResent = true;
        exchange = this.#send(asked, place, events);
        await exchange.done;
      }
      breaker.succeeded();
      upstream.isThere();
      this.#queue.measured(model, this.#clock() - begunAt);
      return undefined;
    } catch (error) {
      asked.signal.throwIfAborted();
      if (exchange?.isAnswered) upstream.isThere();
      if (readerFailure) throw readerFailure.error;
      const failure = connectionError(error, upstream.url, model);
      const { code } = failure;
      const { isSent = false, isPassedOn = false, retryAfterS } = exchange ?? {};
      if (isSent && breaking.has(code)) breaker.failed(failure.message);
      if (!isSent && (code === "lm-studio-away" || code === "upstream-timeout")) upstream.isAway(failure);
      // The first is the one that is told, unless the last tells more than that another was not there either.
      if (!asked.failure || code !== "lm-studio-away") asked.failure = failure;
      const next = nextStep({ code, isSent, isPassedOn, retryAfterS }, retries);
      if (next.step === "give-up") throw failure;
      if (next.step === "elsewhere" && !this.#hasOther(asked, upstream)) throw asked.failure;
      return next;
    } finally {
      place.active -= 1;
      this.#admit();
    }
  }

  #send(asked: Asked, place: Place, events: Listener["events"]): Exchange {
    const { upstream, model } = place;
    const { endpoint, body, signal, requestId } = asked;
    return new Exchange(upstream.connections, {
      endpoint,
      path: upstream.path + endpoints[endpoint].path,
      headers: `${upstream.head}x-request-id: ${requestId}\r\n`,
      body,
      signal,
      patience: this.#options,
      look: () => upstream.look(model),
      events,
    });
  }

  /** A token: the model is loaded, and those who waited for that may come. */
  #heard(place: Place): void {
    const wasLoaded = place.upstream.isLoaded(place);
    place.loadedAt = this.#clock();
    // Not before this token was passed on.
    if (!wasLoaded) queueMicrotask(() => this.#admit());
  }

  #hasOther(asked: Asked, than: Upstream): boolean {
    return this.#candidates(asked).some((upstream) => upstream !== than);
  }

  /** The failure, and where the model is not there, those that are. */
  async #told({ failure, model }: Asked): Promise<unknown> {
    if (failure?.code !== "model-not-found" && failure?.code !== "no-model-loaded") return failure;
    const models = await this.models().catch(() => []);
    // LM Studio says the latter of a wrong name too; but then it lists others, and not that one.
    if (
      failure.code === "no-model-loaded" &&
      (models.length === 0 || models.some(({ id }) => id === model))
    ) {
      const detail =
        `No model is loaded in LM Studio, and it loads none by itself: load ${model} (\`lms load ${model}\`), ` +
        "or switch on its just-in-time loading.";
      return new ChatError("no-model-loaded", detail, { cause: failure, param: "model", retryAfterS: 5 });
    }
    const loaded = models.filter(({ state }) => state === "loaded").map(({ id }) => id);
    const others = models.filter(({ state }) => state !== "loaded").map(({ id }) => id);
    const detail = [
      `LM Studio has no model ${model} to answer with.`,
      loaded.length > 0 ? `Loaded: ${loaded.join(", ")}.` : "No model is loaded.",
      ...(others.length > 0 ? [`Can be loaded: ${others.join(", ")}.`] : []),
    ].join(" ");
    return new ChatError("model-not-found", detail, { cause: failure, param: "model" });
  }

  /** A place at once, where nobody waits for it. Throws where there is none to wait for. */
  #takePlace(asked: Asked): Place | undefined {
    if (asked.priority === "batch" ? this.#queue.length > 0 : this.#queue.isWaitedFor(asked.model)) {
      return undefined;
    }
    const place = this.#choose(asked);
    if (place) place.active += 1;
    return place;
  }

  async #wait(asked: Asked, hadItsTurn: boolean): Promise<Place> {
    const { promise, resolve, reject } = Promise.withResolvers<Place>();
    asked.begin = resolve;
    asked.refuse = reject;
    if (hadItsTurn) this.#queue.pushBack(asked);
    else {
      const displaced = this.#queue.push(asked, this.#slotsOf(asked.model));
      displaced?.refuse?.(this.#queue.full(displaced.model, this.#slotsOf(displaced.model)));
    }
    const leave = () => {
      if (!this.#queue.remove(asked)) return;
      reject(asked.signal.reason);
      // A batch may have waited for this one alone.
      this.#admit();
    };
    asked.signal.addEventListener("abort", leave, { once: true });
    this.#admit();
    try {
      return await promise;
    } finally {
      asked.signal.removeEventListener("abort", leave);
    }
  }

  /** Lets everyone go on for whom there is a place, or none to wait for. */
  #admit(): void {
    if (this.#queue.length === 0 || this.#isAdmitting) return;
    this.#isAdmitting = true;
    try {
      let isOneRefused: boolean;
      do {
        isOneRefused = false;
        this.#queue.admit((asked) => {
          try {
            const place = this.#choose(asked);
            if (!place) return false;
            place.active += 1;
            asked.begin?.(place);
          } catch (error) {
            asked.refuse?.(error);
            isOneRefused = true;
          }
          return true;
        });
        // One that was looked at before may have waited for the one refused.
      } while (isOneRefused);
    } finally {
      this.#isAdmitting = false;
    }
  }

  /**
   * The place that this question goes to now; `undefined` while it has to wait. Throws where there is none left.
   * Of those that have its model, or may have it: the healthy ones; loaded before not loaded; the least busy.
   */
  #choose(asked: Asked): Place | undefined {
    const { model } = asked;
    const candidates = this.#candidates(asked);
    let best: Place | undefined;
    let bestRank = Number.POSITIVE_INFINITY;
    let isOneLeft = false;
    let refusal = asked.failure;
    for (let i = 0; i < candidates.length; i += 1) {
      const upstream = candidates[(i + this.#turn) % candidates.length] as Upstream;
      const { trouble } = upstream;
      if (trouble && trouble.at > asked.waitsFrom) {
        // It went away while this one waited: no need to find that out once more.
        refusal ??= trouble.error;
        continue;
      }
      const place = upstream.place(model);
      if (place.breaker.state === "open") {
        refusal ??= openError(place);
        continue;
      }
      isOneLeft = true;
      const slots = upstream.slots(place);
      if (place.active >= slots || this.#waitsForSwitch(place, asked)) continue;
      const loads = upstream.isLoaded(place) ? 0 : 1;
      const rank = (upstream === asked.avoided ? 2 : 0) + loads + place.active / slots;
      if (rank < bestRank) {
        best = place;
        bestRank = rank;
      }
    }
    if (!isOneLeft) throw refusal ?? new ChatError("lm-studio-away", "There is no LM Studio to ask.");
    if (best) this.#turn += 1;
    return best;
  }

  /**
   * Those that list the model or have not told yet, or all where none lists it, without those that failed; the
   * healthy ones, else all of these.
   */
  #candidates({ model, excluded }: Asked): readonly Upstream[] {
    if (this.#upstreams.length === 1) return this.#upstreams;
    const left = this.#upstreams.filter((upstream) => !excluded.has(upstream));
    const isListed = this.#upstreams.some((upstream) => upstream.lists(model));
    const able = isListed ? left.filter((upstream) => upstream.lists(model) !== false) : left;
    const healthy = able.filter(({ isHealthy }) => isHealthy);
    return healthy.length > 0 ? healthy : able;
  }

  /**
   * LM Studio may unload a model for another while it is generating (lmstudio-bug-tracker#671), and loading takes
   * long. So a model that would have to be loaded waits until nothing runs there, and until those who wait for
   * the loaded one are through; after a while it goes first all the same.
   */
  #waitsForSwitch(place: Place, asked: Asked): boolean {
    const { upstream } = place;
    const now = this.#clock();
    if (upstream.wouldLoad(place)) {
      if (upstream.active > place.active) return true;
      if (now - asked.since >= switchPatienceMs) return false;
      const mayGoFirst = (head: Asked) =>
        priorities.indexOf(head.priority) <= priorities.indexOf(asked.priority);
      return this.#someHead(place, (head, other) => upstream.isLoaded(other) && mayGoFirst(head));
    }
    return this.#someHead(
      place,
      (head, other) =>
        upstream.wouldLoad(other) &&
        now - head.since >= switchPatienceMs &&
        head.since < asked.since &&
        // A batch does not start anyway while others wait.
        (head.priority !== "batch" || asked.priority === "batch"),
    );
  }

  #someHead(place: Place, is: (head: Asked, other: Place) => boolean): boolean {
    for (const head of this.#queue.heads()) {
      if (head.model === place.model || head.excluded.has(place.upstream)) continue;
      if (place.upstream.lists(head.model) && is(head, place.upstream.place(head.model))) return true;
    }
    return false;
  }

  #slotsOf(model: string): number {
    const healthy = this.#upstreams.filter(
      (upstream) => upstream.isHealthy && upstream.lists(model) !== false,
    );
    return Math.max(
      1,
      healthy.reduce((sum, upstream) => sum + upstream.slotsOf(model), 0),
    );
  }

  #merged(): ListedModel[] {
    const models = new Map<string, ListedModel>();
    for (const upstream of this.#upstreams.filter(({ isHealthy }) => isHealthy)) {
      for (const model of upstream.models) {
        const before = models.get(model.id);
        if (!before || (before.state !== "loaded" && model.state === "loaded")) models.set(model.id, model);
      }
    }
    return [...models.values()];
  }

  #modelsOf(upstream: Upstream) {
    const places = new Map([...upstream.places].map((place) => [place.model, place]));
    const names = new Set([...upstream.models.map(({ id }) => id), ...places.keys()]);
    return [...names].map((model) => {
      const place = places.get(model);
      const state = upstream.listed(model)?.state;
      const { breaker } = place ?? {};
      return {
        model,
        ...(state ? { state } : {}),
        slots: upstream.slotsOf(model),
        active: place?.active ?? 0,
        breaker: breaker?.state ?? ("closed" as const),
        ...(breaker && breaker.failures > 0
          ? { failures: breaker.failures, last_failure: breaker.last }
          : {}),
        ...(breaker?.openForMs ? { open_for_ms: Math.ceil(breaker.openForMs) } : {}),
      };
    });
  }
}

function openError({ breaker, model }: Place): ChatError {
  const retryAfterS = Math.max(1, Math.ceil(breaker.openForMs / 1_000));
  return new ChatError(
    "upstream-open",
    `${model} failed ${breaker.failures} times in a row and is tried again in ${retryAfterS} s. Last: ${breaker.last}`,
    { retryAfterS },
  );
}
