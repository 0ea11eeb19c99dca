import type { Completion } from "./completion.ts";

/** Memory that answers may take, in bytes as estimated. */
const cacheBytesMax = 64 * 1024 * 1024;

interface Entry {
  readonly completion: Completion;
  readonly storedAt: number;
  readonly bytes: number;
}

export interface CacheOptions {
  /** Milliseconds that an answer is good for; 0: nothing is kept. */
  readonly ttlMs: number;
  readonly bytesMax?: number;
  readonly clock?: () => number;
}

/** Whole answers by the hash of their request. The one not asked for the longest goes first. */
export class AnswerCache {
  readonly #entries = new Map<string, Entry>();
  readonly #ttlMs: number;
  readonly #bytesMax: number;
  readonly #clock: () => number;
  #bytes = 0;
  #hits = 0;
  #misses = 0;

  constructor({ ttlMs, bytesMax = cacheBytesMax, clock = Date.now }: CacheOptions) {
    this.#ttlMs = ttlMs;
    this.#bytesMax = bytesMax;
    this.#clock = clock;
  }

  get isOn(): boolean {
    return this.#ttlMs > 0;
  }

  /** The answer and its age in seconds, unless there is none that is still good. */
  get(key: string): { readonly completion: Completion; readonly ageS: number } | undefined {
    const entry = this.#entries.get(key);
    const ageMs = entry ? this.#clock() - entry.storedAt : 0;
    // A clock that was set back makes an age negative: such an answer is new, not eternal.
    if (!entry || ageMs >= this.#ttlMs) {
      if (entry) this.#remove(key, entry);
      this.#misses += 1;
      return undefined;
    }
    this.#hits += 1;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return { completion: entry.completion, ageS: Math.max(0, Math.floor(ageMs / 1000)) };
  }

  set(key: string, completion: Completion): void {
    const bytes = bytesOf(completion);
    if (!this.isOn || bytes > this.#bytesMax / 8) return;
    const before = this.#entries.get(key);
    if (before) this.#remove(key, before);
    this.#entries.set(key, { completion, storedAt: this.#clock(), bytes });
    this.#bytes += bytes;
    for (const [oldest, entry] of this.#entries) {
      if (this.#bytes <= this.#bytesMax) break;
      this.#remove(oldest, entry);
    }
  }

  /** Forgets everything; gives how many answers that were. */
  clear(): number {
    const { size } = this.#entries;
    this.#entries.clear();
    this.#bytes = 0;
    return size;
  }

  get stats() {
    return {
      entries: this.#entries.size,
      bytes: this.#bytes,
      bytes_max: this.#bytesMax,
      ttl_s: this.#ttlMs / 1000,
      hits: this.#hits,
      misses: this.#misses,
    };
  }

  #remove(key: string, entry: Entry): void {
    this.#entries.delete(key);
    this.#bytes -= entry.bytes;
  }
}

/** Two bytes a character, and what an object of V8 takes for each delta. Every text is held twice. */
function bytesOf({ deltas, text, reasoning, toolCalls, raw }: Completion): number {
  const calls = toolCalls.length > 0 ? JSON.stringify(toolCalls).length : 0;
  const whole = raw === undefined ? 0 : JSON.stringify(raw).length;
  let events = 0;
  for (const { event } of deltas) events += event?.length ?? 0;
  return 512 + deltas.length * 96 + (text.length + reasoning.length + calls) * 4 + (events + whole) * 2;
}
