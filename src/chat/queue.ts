import { ChatError } from "./chat-error.ts";

/** Whose request goes first. A batch waits until no person and no agent does. */
export const priorities = ["people", "agent", "batch"] as const;
export type Priority = (typeof priorities)[number];

/** A request that waits for its turn. */
export interface Waiter {
  readonly model: string;
  readonly priority: Priority;
  readonly caller: string;
  /** Characters that it keeps in memory while it waits. */
  readonly size: number;
  /** When it began to wait, on the clock of who asks, ms. */
  readonly since: number;
}

/** A waiter with its place among those for the same model, from 1. */
export interface Placed<W> {
  readonly waiter: W;
  readonly position: number;
}

/** Requests that wait at most, and the characters that all of them together may keep. */
const waitingMax = 1_000;
const charsMax = 128 * 1024 * 1024;
/** Models whose durations are remembered. */
const modelsMax = 256;
/** Weight of the newest duration in a model's mean. */
const newest = 0.2;
/** The longest that a caller is told to stay away, seconds. */
const retryAfterMaxS = 600;

/** The callers that wait for one model, the next one first, each with its requests in the order they came. */
type Ring<W> = Map<string, Set<W>>;

/**
 * Who waits for a model, and who is next: people before agents before batches, and within one of these the
 * callers in turn, so that one with a hundred requests delays another by one. Knows neither time nor models
 * themselves: who may start is the decision of whoever calls `admit`.
 */
export class Queue<W extends Waiter> {
  readonly #rings: Record<Priority, Map<string, Ring<W>>> = {
    people: new Map(),
    agent: new Map(),
    batch: new Map(),
  };
  readonly #lengths: Record<Priority, number> = { people: 0, agent: 0, batch: 0 };
  /** How long an answer of each model takes, ms. */
  readonly #meanMs = new Map<string, number>();
  readonly #waitingMax: number;
  #chars = 0;

  constructor(options: { readonly waitingMax?: number } = {}) {
    this.#waitingMax = options.waitingMax ?? waitingMax;
  }

  get length(): number {
    return this.#lengths.people + this.#lengths.agent + this.#lengths.batch;
  }

  get lengthMax(): number {
    return this.#waitingMax;
  }

  get lengths(): Readonly<Record<Priority, number>> {
    return this.#lengths;
  }

  /**
   * Lets a request wait. `slots` is how many the model answers at once, for an estimate. Where the queue is full, one
   * of those who would go later gives way, or of the caller who has the most: it is out then, and given back. Throws
   * `ChatError` `queue-full` where there is none.
   */
  push(waiter: W, slots: number): W | undefined {
    const isFull = this.length >= this.#waitingMax || this.#chars + waiter.size > charsMax;
    const displaced = isFull ? this.#displacedBy(waiter) : undefined;
    if (isFull && !displaced) throw this.full(waiter.model, slots);
    if (displaced) this.remove(displaced);
    const waiters = this.#ringOf(waiter).get(waiter.caller);
    if (waiters) waiters.add(waiter);
    else this.#ringOf(waiter).set(waiter.caller, new Set([waiter]));
    this.#count(waiter, 1);
    return displaced;
  }

  /** What one is told for whom there is no room: how long it takes until there is. */
  full(model: string, slots: number): ChatError {
    const waitMs = this.waitMs(model, this.length, slots) ?? 1_000;
    const retryAfterS = Math.min(retryAfterMaxS, Math.max(1, Math.ceil(waitMs / 1_000)));
    const detail = `${this.length} questions wait for a model already; try again in ${retryAfterS} s.`;
    return new ChatError("queue-full", detail, { retryAfterS });
  }

  /** Whether anybody waits for this model. */
  isWaitedFor(model: string): boolean {
    return priorities.some((priority) => this.#rings[priority].has(model));
  }

  /** Puts one that had its turn, and failed, before all others of its priority. It was within the bound before. */
  pushBack(waiter: W): void {
    const rings = this.#rings[waiter.priority];
    const others = [...(rings.get(waiter.model) ?? [])].filter(([caller]) => caller !== waiter.caller);
    const mine = rings.get(waiter.model)?.get(waiter.caller) ?? [];
    rings.set(waiter.model, new Map([[waiter.caller, new Set([waiter, ...mine])], ...others]));
    this.#count(waiter, 1);
  }

  /** Takes out one that no longer wants to wait; false where it did not wait. */
  remove(waiter: W): boolean {
    const ring = this.#rings[waiter.priority].get(waiter.model);
    const waiters = ring?.get(waiter.caller);
    if (!ring || !waiters?.delete(waiter)) return false;
    if (waiters.size === 0) ring.delete(waiter.caller);
    if (ring.size === 0) this.#rings[waiter.priority].delete(waiter.model);
    this.#count(waiter, -1);
    return true;
  }

  /**
   * Offers the waiters to `start` in their order. Those for which it gives true have left the queue. One that
   * cannot start holds up its own caller alone, and only for its model.
   */
  admit(start: (waiter: W) => boolean): void {
    for (const priority of priorities) {
      if (priority === "batch" && this.#lengths.people + this.#lengths.agent > 0) return;
      for (const ring of this.#rings[priority].values()) {
        let refused = 0;
        while (refused < ring.size) {
          const [caller, waiters] = ring.entries().next().value as [string, Set<W>];
          const waiter = waiters.values().next().value as W;
          // Whatever comes of it, the next turn is another caller's.
          ring.delete(caller);
          ring.set(caller, waiters);
          if (start(waiter)) {
            this.remove(waiter);
            refused = 0;
          } else refused += 1;
        }
      }
    }
  }

  /** Those for one model in the order of their turns. */
  *waitingFor(model: string): Generator<W> {
    for (const priority of priorities) {
      const turns = [...(this.#rings[priority].get(model)?.values() ?? [])].map((set) => set.values());
      while (turns.length > 0) {
        for (const turn of turns.splice(0)) {
          const { value, done } = turn.next();
          if (done) continue;
          yield value;
          turns.push(turn);
        }
      }
    }
  }

  /** Models that are waited for, each with the first of every priority's callers. */
  *heads(): Generator<W> {
    if (this.length === 0) return;
    for (const priority of priorities) {
      for (const ring of this.#rings[priority].values()) {
        for (const waiters of ring.values()) yield waiters.values().next().value as W;
      }
    }
  }

  /** Everyone, with their place among those who wait for the same model. */
  list(): Placed<W>[] {
    const models = new Set(priorities.flatMap((priority) => [...this.#rings[priority].keys()]));
    return [...models].flatMap((model) =>
      [...this.waitingFor(model)].map((waiter, index) => ({ waiter, position: index + 1 })),
    );
  }

  /** Notes how long an answer took, ms. */
  measured(model: string, ms: number): void {
    const mean = this.#meanMs.get(model);
    if (mean === undefined && this.#meanMs.size >= modelsMax) {
      this.#meanMs.delete(this.#meanMs.keys().next().value as string);
    }
    this.#meanMs.set(model, mean === undefined ? ms : mean + newest * (ms - mean));
  }

  /** How long the one at this position is going to wait, ms; `undefined` where the model was not measured yet. */
  waitMs(model: string, position: number, slots: number): number | undefined {
    const mean = this.#meanMs.get(model);
    return mean === undefined ? undefined : Math.round((mean * position) / Math.max(1, slots));
  }

  /**
   * Who gives way to this one: the last of the caller who has the most waiting, of the lowest priority that anybody
   * has. Within its own priority only a caller who has more than this one will have.
   */
  #displacedBy(waiter: W): W | undefined {
    const lowest = priorities.findLast((priority) => this.#lengths[priority] > 0);
    if (lowest === undefined || priorities.indexOf(lowest) < priorities.indexOf(waiter.priority)) {
      return undefined;
    }
    const sums = new Map<string, { count: number; most: ReadonlySet<W> }>();
    for (const ring of this.#rings[lowest].values()) {
      for (const [caller, waiters] of ring) {
        const { count = 0, most = waiters } = sums.get(caller) ?? {};
        sums.set(caller, {
          count: count + waiters.size,
          most: waiters.size > most.size ? waiters : most,
        });
      }
    }
    const own = lowest === waiter.priority ? (sums.get(waiter.caller)?.count ?? 0) + 1 : 0;
    const [first] = [...sums.values()].sort((one, other) => other.count - one.count);
    const last = first && first.count > own ? [...first.most].at(-1) : undefined;
    return last && this.#chars - last.size + waiter.size <= charsMax ? last : undefined;
  }

  #ringOf({ priority, model }: W): Ring<W> {
    const rings = this.#rings[priority];
    let ring = rings.get(model);
    if (!ring) {
      ring = new Map();
      rings.set(model, ring);
    }
    return ring;
  }

  #count(waiter: W, change: 1 | -1): void {
    this.#lengths[waiter.priority] += change;
    this.#chars += change * waiter.size;
  }
}
