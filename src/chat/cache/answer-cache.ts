import type { Completion } from "../completion.ts";
import type { About, Selection } from "./kept-answer.ts";
import { type ListedAnswer, MemoryTier } from "./memory-tier.ts";

/** A kept answer, and the seconds since the model gave it. */
export interface Found {
  readonly completion: Completion;
  readonly ageS: number;
}

export interface CacheOptions {
  /** Milliseconds that an answer is good for; 0: nothing is kept. */
  readonly ttlMs: number;
  /** Bytes of memory that answers may take, as estimated. */
  readonly bytesMax: number;
  readonly clock?: () => number;
}

/** Whole answers by the key of their request (`endpoint/model/hash`). */
export class AnswerCache {
  readonly #ttlMs: number;
  readonly #bytesMax: number;
  readonly #clock: () => number;
  readonly #memory: MemoryTier;
  #hits = 0;
  #misses = 0;

  constructor({ ttlMs, bytesMax, clock = Date.now }: CacheOptions) {
    this.#ttlMs = ttlMs;
    this.#bytesMax = bytesMax;
    this.#clock = clock;
    this.#memory = new MemoryTier({ ttlMs, bytesMax, clock });
  }

  get isOn(): boolean {
    return this.#ttlMs > 0 && this.#bytesMax > 0;
  }

  /** The answer, unless there is none that is still good and at most `maxAgeS` old. */
  get(key: string, maxAgeS?: number): Found | undefined | Promise<Found | undefined> {
    if (!this.isOn) return undefined;
    const found = this.#memory.get(key, maxAgeS);
    if (!found) {
      this.#misses += 1;
      return undefined;
    }
    this.#hits += 1;
    return { completion: found.answer.completion, ageS: found.ageS };
  }

  /** Keeps an answer that was just given. */
  set(key: string, completion: Completion, about: About): void {
    if (this.isOn) this.#memory.set(key, { completion, about, storedAt: this.#clock() });
  }

  /** Forgets the answers that are meant; gives how many those were. */
  remove(selection: Selection): number {
    return this.#memory.remove(selection).length;
  }

  /** The answers that are meant, the one asked for last first, without what was asked and said. */
  list(selection: Selection): ListedAnswer[] {
    return this.#memory.list(selection);
  }

  get stats() {
    return {
      entries: this.#memory.entries,
      bytes: this.#memory.bytes,
      bytes_max: this.#bytesMax,
      ttl_s: this.#ttlMs / 1000,
      hits: this.#hits,
      misses: this.#misses,
    };
  }
}
