import { Pool } from "undici";
import type { ChatError } from "../chat-error.ts";
import { Breaker } from "./breaker.ts";
import { Connections } from "./connections.ts";
import { type ListedModel, listModels } from "./models.ts";

export interface UpstreamOptions {
  readonly key?: string | undefined;
  readonly silenceMs: number;
  /** Requests at once for one model; otherwise what LM Studio says of it. */
  readonly concurrency?: number | undefined;
  readonly clock: () => number;
  /** Failures of a model in a row after which it is left alone. */
  readonly failuresMax: number;
  /** Called when it came or went, or told something new of its models. */
  readonly changed: () => void;
}

/** Connections for what must not wait behind answers: is it still there, and what is loaded? */
const controlConnectionsMax = 3;
/** LM Studio closes idle connections after 5 s; leaving earlier, we never write into one it just closed. */
const keepAliveMs = 3_500;
/** What LM Studio does at once unless it says otherwise, and the most we believe. */
const parallelStandard = 4;
const parallelMax = 128;
/** How long a sign that a model is loaded counts; LM Studio unloads what is idle for longer. */
const loadedForMs = 60_000;
/** A list of models that is older is asked for anew by the next call, which does not wait for it. */
const listAgeMaxMs = 15_000;
/** Between two looks at an LM Studio that is away: the first time, and at most. */
const probeMs = 1_000;
const probeMaxMs = 30_000;
/** Models of which something is remembered: callers may name any. */
const modelsMax = 256;

/** What is known of one model at one LM Studio. */
export interface Place {
  readonly upstream: Upstream;
  readonly model: string;
  readonly breaker: Breaker;
  /** Requests under way. */
  active: number;
  /** The newest sign that it is loaded, on the clock. */
  loadedAt: number;
}

/** One LM Studio: its connections, its models, and whether it is there. */
export class Upstream implements AsyncDisposable {
  readonly url: string;
  /** What its paths begin with. */
  readonly path: string;
  readonly headers: readonly string[];
  /** The same as lines. */
  readonly head: string;
  /** For questions; there are as many as there are slots. */
  readonly connections: Connections;
  readonly #control: Pool;
  readonly #options: UpstreamOptions;
  readonly #places = new Map<string, Place>();
  readonly #missing = new Set<string>();
  #models: Map<string, ListedModel> | undefined;
  #listedAt = Number.NEGATIVE_INFINITY;
  #listing: Promise<ListedModel[]> | undefined;
  #trouble: ChatError | undefined;
  #troubleAt = Number.NEGATIVE_INFINITY;
  #probe: NodeJS.Timeout | undefined;
  #probeMs = probeMs;
  #closed = false;

  constructor(url: string, options: UpstreamOptions) {
    const { origin, pathname } = new URL(url);
    this.url = url;
    this.path = pathname.replace(/\/$/, "");
    this.#options = options;
    this.headers = [
      "content-type",
      "application/json",
      "accept",
      "text/event-stream, application/json",
      ...(options.key ? ["authorization", `Bearer ${options.key}`] : []),
    ];
    this.head = headLines(this.headers);
    this.connections = new Connections(origin, { connectMs: options.silenceMs, idleMs: keepAliveMs });
    this.#control = new Pool(origin, {
      connections: controlConnectionsMax,
      keepAliveTimeout: keepAliveMs,
      keepAliveMaxTimeout: keepAliveMs,
      connect: { timeout: options.silenceMs },
    });
  }

  get isHealthy(): boolean {
    return this.#trouble === undefined;
  }

  /** Why it is away, and since when on the clock. */
  get trouble(): { readonly error: ChatError; readonly at: number } | undefined {
    return this.#trouble && { error: this.#trouble, at: this.#troubleAt };
  }

  get places(): Iterable<Place> {
    return this.#places.values();
  }

  get active(): number {
    let active = 0;
    for (const place of this.#places.values()) active += place.active;
    return active;
  }

  /** The models as last listed; none before the first list. */
  get models(): readonly ListedModel[] {
    return this.#models ? [...this.#models.values()] : [];
  }

  /** Whether it lists the model; `undefined` before the first list. */
  lists(model: string): boolean | undefined {
    return this.#models?.has(model);
  }

  listed(model: string): ListedModel | undefined {
    return this.#models?.get(model);
  }

  place(model: string): Place {
    let place = this.#places.get(model);
    if (!place) {
      if (this.#places.size >= modelsMax) this.#forgetIdle();
      const loadedAt = this.listed(model)?.state === "loaded" ? this.#listedAt : Number.NEGATIVE_INFINITY;
      place = {
        upstream: this,
        model,
        breaker: new Breaker(this.#options.failuresMax, this.#options.clock),
        active: 0,
        loadedAt,
      };
      this.#places.set(model, place);
    }
    return place;
  }

  isLoaded(place: Place): boolean {
    return this.#options.clock() - place.loadedAt < loadedForMs;
  }

  /** True where LM Studio says that asking for this model would load it, and may unload another for it. */
  wouldLoad(place: Place): boolean {
    return !this.isLoaded(place) && this.listed(place.model)?.state === "not-loaded";
  }

  /**
   * Requests that it may have at once for this model. One alone as long as the model is not known to be loaded:
   * several would each load a copy of it (lmstudio-bug-tracker#1751). One as well after a breaker was open.
   */
  slots(place: Place): number {
    return place.breaker.state === "half-open" || !this.isLoaded(place) ? 1 : this.slotsOf(place.model);
  }

  slotsOf(model: string): number {
    const { concurrency } = this.#options;
    return concurrency ?? Math.min(this.listed(model)?.parallel ?? parallelStandard, parallelMax);
  }

  /** It answered. */
  isThere(): void {
    if (this.#trouble === undefined) return;
    this.#trouble = undefined;
    this.#probeMs = probeMs;
    clearTimeout(this.#probe);
    this.#probe = undefined;
    // It may have been updated while it was away.
    this.#missing.clear();
    this.#options.changed();
  }

  /** It could not be reached: from now on it is looked at in the background, until it answers. */
  isAway(error: ChatError): void {
    this.#trouble = error;
    this.#troubleAt = this.#options.clock();
    for (const place of this.#places.values()) place.loadedAt = Number.NEGATIVE_INFINITY;
    this.#probeLater();
    this.#options.changed();
  }

  /** Asks for the models in the background where the last list is too old. */
  refresh(): void {
    if (this.#options.clock() - this.#listedAt < listAgeMaxMs || this.#listing || this.#trouble) return;
    this.list().catch(() => {});
  }

  /** The models, asked for now; those who ask at once share the answer. Throws a `ChatError`. */
  list(): Promise<ListedModel[]> {
    this.#listing ??= this.#list().finally(() => {
      this.#listing = undefined;
    });
    return this.#listing;
  }

  /** Is it there, and is this model still being loaded? Throws a `ChatError` where it is not there. */
  async look(model: string): Promise<{ loading: boolean }> {
    const { clock, silenceMs } = this.#options;
    // Many calls may look at once; none of them needs to know it better than this.
    const isFresh = this.#models && this.isHealthy && clock() - this.#listedAt < silenceMs / 4;
    // One that was asked for earlier may fail earlier than this look has to.
    if (this.#listing) await this.#listing.catch(() => this.list());
    else if (!isFresh) await this.list();
    const state = this.listed(model)?.state;
    return { loading: state === "not-loaded" || state === "loading" };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#probe);
    this.connections.close();
    await this.#control.destroy();
  }

  async #list(): Promise<ListedModel[]> {
    const { clock, silenceMs } = this.#options;
    const { url, path } = this;
    const askedAt = clock();
    // Failed or not: the next call is not to ask again at once.
    this.#listedAt = askedAt;
    try {
      const models = await listModels({
        dispatcher: this.#control,
        url,
        path,
        headers: [...this.headers],
        silenceMs,
        missing: this.#missing,
      });
      this.#take(models, askedAt);
      this.isThere();
      this.#options.changed();
      return models;
    } catch (error) {
      const failure = error as ChatError;
      if (unreachable.has(failure.code) && !this.#closed) this.isAway(failure);
      throw failure;
    }
  }

  #take(models: readonly ListedModel[], askedAt: number): void {
    this.#models = new Map(models.slice(0, modelsMax * 4).map((model) => [model.id, model]));
    for (const place of this.#places.values()) {
      const state = this.listed(place.model)?.state;
      // A token that came since the list was asked for is the newer sign.
      if (state === undefined || place.loadedAt > askedAt) continue;
      place.loadedAt = state === "loaded" ? askedAt : Number.NEGATIVE_INFINITY;
    }
  }

  #probeLater(): void {
    // The look that is set stays: each of many who find it gone would put that off further.
    if (this.#closed || this.#probe) return;
    this.#probe = setTimeout(() => {
      this.#probe = undefined;
      this.#probeMs = Math.min(this.#probeMs * 2, probeMaxMs);
      // What stands in front of it may have answered that it is not there yet.
      this.list().catch(() => this.#trouble && this.#probeLater());
    }, this.#probeMs).unref();
  }

  #forgetIdle(): void {
    for (const [model, { active, breaker }] of this.#places) {
      if (active === 0 && breaker.state === "closed") return void this.#places.delete(model);
    }
  }
}

/** Codes of an LM Studio that is not there, as opposed to one that answers with a failure. */
const unreachable: ReadonlySet<string> = new Set(["lm-studio-away", "upstream-timeout", "upstream-cut"]);

/** Throws at what would end a line and begin one of its own, and at what is not ASCII. */
function headLines(headers: readonly string[]): string {
  if (headers.some((text) => !/^[\x20-\x7e]*$/.test(text)))
    throw new Error("a header for LM Studio is not plain ASCII");
  return headers.map((text, index) => (index % 2 === 0 ? `${text}: ` : `${text}\r\n`)).join("");
}
