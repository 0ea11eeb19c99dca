import type { Completion } from "../completion.ts";
import type { About, KeptAnswer, Selection } from "./kept-answer.ts";
import { type ListedAnswer, MemoryTier } from "./memory-tier.ts";
import type { RedisTier } from "./redis-tier.ts";

/** A kept answer, and the seconds since the model gave it. */
export interface Found {
  readonly completion: Completion;
  readonly ageS: number;
}

/** What was forgotten. */
export interface Removal {
  readonly removed: number;
  /** Redis could not be reached: it forgets as soon as it can, and what it had is not counted. */
  readonly pending: boolean;
}

export interface CacheOptions {
  /** Milliseconds that an answer is good for; 0: nothing is kept. */
  readonly ttlMs: number;
  /** Bytes of memory that answers may take, as estimated; 0: none is kept there. */
  readonly bytesMax: number;
  /** Where answers are shared with other servers. It has to tell of removals by `removedElsewhere`. */
  readonly redis?: RedisTier | undefined;
  readonly clock?: () => number;
}

/** Whole answers by the key of their request (`endpoint/model/hash`): in memory first, then in Redis. */
export class AnswerCache implements AsyncDisposable {
  readonly redis: RedisTier | undefined;
  readonly #ttlMs: number;
  readonly #bytesMax: number;
  readonly #clock: () => number;
  readonly #memory: MemoryTier;
  #hitsHere = 0;
  #hitsThere = 0;
  #misses = 0;
  #removals = 0;

  constructor({ ttlMs, bytesMax, redis, clock = Date.now }: CacheOptions) {
    this.redis = redis;
    this.#ttlMs = ttlMs;
    this.#bytesMax = bytesMax;
    this.#clock = clock;
    this.#memory = new MemoryTier({ ttlMs, bytesMax, clock });
  }

  get isOn(): boolean {
    return this.#ttlMs > 0 && (this.#bytesMax > 0 || this.redis !== undefined);
  }

  /**
   * The answer, unless there is none that is still good and at most `maxAgeS` old. At once where memory has it
   * or nobody else could; a promise, soon kept, where Redis is asked.
   */
  get(key: string, maxAgeS?: number): Found | undefined | Promise<Found | undefined> {
    if (!this.isOn) return undefined;
    const found = this.#fromMemory(key, maxAgeS);
    if (found) return found;
    const asked = this.redis?.get(key);
    if (asked) return this.#fromRedis(key, asked, maxAgeS);
    this.#misses += 1;
    return undefined;
  }

  /** Keeps an answer that was just given. */
  set(key: string, completion: Completion, about: About): void {
    if (!this.isOn) return;
    const answer = { completion, about, storedAt: this.#clock() };
    this.#memory.set(key, answer);
    this.redis?.set(key, answer);
  }

  /** Forgets the answers that are meant, here, in Redis and in the servers that share it. */
  async remove(selection: Selection): Promise<Removal> {
    const here = this.#forget(selection);
    const there = this.redis ? await this.redis.remove(selection, new Set(here)) : 0;
    return { removed: here.length + (there ?? 0), pending: there === undefined };
  }

  /** Forgets what another server removed. */
  removedElsewhere(selection: Selection): void {
    this.#forget(selection);
  }

  /** The answers in memory that are meant, the one asked for last first, without what was asked and said. */
  list(selection: Selection): ListedAnswer[] {
    return this.#memory.list(selection);
  }

  get stats() {
    return {
      entries: this.#memory.entries,
      bytes: this.#memory.bytes,
      bytes_max: this.#bytesMax,
      ttl_s: this.#ttlMs / 1000,
      hits: this.#hitsHere + this.#hitsThere,
      misses: this.#misses,
      redis: this.redis ? { ...this.redis.stats, hits: this.#hitsThere } : null,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.redis?.[Symbol.asyncDispose]();
  }

  #fromMemory(key: string, maxAgeS?: number): Found | undefined {
    const found = this.#memory.get(key, maxAgeS);
    if (!found) return undefined;
    this.#hitsHere += 1;
    return { completion: found.answer.completion, ageS: found.ageS };
  }

  async #fromRedis(
    key: string,
    asked: Promise<KeptAnswer | undefined>,
    maxAgeS = Number.POSITIVE_INFINITY,
  ): Promise<Found | undefined> {
    const removals = this.#removals;
    const answer = await asked;
    // It may have been given here meanwhile, by the model or to another who asked Redis.
    const found = this.#fromMemory(key, maxAgeS);
    if (found) return found;
    const ageMs = answer ? Math.max(0, this.#clock() - answer.storedAt) : 0;
    // What was read while something was removed may be what was removed.
    if (!answer || ageMs >= this.#ttlMs || removals !== this.#removals) {
      this.#misses += 1;
      return undefined;
    }
    this.#memory.set(key, answer);
    if (ageMs > maxAgeS * 1000) {
      this.#misses += 1;
      return undefined;
    }
    this.#hitsThere += 1;
    return { completion: answer.completion, ageS: Math.floor(ageMs / 1000) };
  }

  #forget(selection: Selection): string[] {
    this.#removals += 1;
    return this.#memory.remove(selection);
  }
}
