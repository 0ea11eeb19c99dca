import type { Completion } from "../completion.ts";
import { isSelected, type KeptAnswer, type Selection } from "./kept-answer.ts";

interface Entry {
  readonly answer: KeptAnswer;
  /** `answer.storedAt`, unless the clock was set back since. */
  storedAt: number;
  readonly bytes: number;
  hits: number;
  /** Counts up over all answers with every request for one. */
  askedAs: number;
  /** Asked for since it was last spared. */
  isWanted: boolean;
}

export interface MemoryOptions {
  /** Milliseconds that an answer is good for. */
  readonly ttlMs: number;
  /** Memory that answers may take, in bytes as estimated; 0: none is kept. */
  readonly bytesMax: number;
  /** Milliseconds since 1970. */
  readonly clock: () => number;
}

/** An answer in memory, without what was asked and said. */
export interface ListedAnswer {
  readonly key: string;
  readonly model: string;
  readonly age_s: number;
  readonly bytes: number;
  readonly hits: number;
}

/** One answer may take this part of the memory: it must not push all others out. */
const shareMax = 1 / 8;

/**
 * Answers in this process, by key. The oldest goes first, unless it was asked for: then it is spared once for that. To
 * move an answer to the end each time that it is asked for took a fifth of a hit's time.
 */
export class MemoryTier {
  /** From the one that goes first to the one that goes last. */
  readonly #entries = new Map<string, Entry>();
  readonly #ttlMs: number;
  readonly #bytesMax: number;
  readonly #clock: () => number;
  #bytes = 0;
  #asked = 0;

  constructor({ ttlMs, bytesMax, clock }: MemoryOptions) {
    this.#ttlMs = ttlMs;
    this.#bytesMax = bytesMax;
    this.#clock = clock;
  }

  get entries(): number {
    return this.#entries.size;
  }

  /** As estimated. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The answer and its age in seconds, unless there is none that is still good, and at most `maxAgeS` old. */
  get(key: string, maxAgeS = Number.POSITIVE_INFINITY): { answer: KeptAnswer; ageS: number } | undefined {
    const entry = this.#entries.get(key);
    if (!entry) return undefined;
    const ageMs = this.#age(entry);
    if (ageMs >= this.#ttlMs) {
      this.#drop(key, entry);
      return undefined;
    }
    if (ageMs > maxAgeS * 1000) return undefined;
    entry.hits += 1;
    entry.isWanted = true;
    entry.askedAs = ++this.#asked;
    return { answer: entry.answer, ageS: Math.floor(ageMs / 1000) };
  }

  set(key: string, answer: KeptAnswer): void {
    const bytes = bytesOf(key, answer.completion);
    if (bytes > this.#bytesMax * shareMax) return;
    const before = this.#entries.get(key);
    if (before) this.#drop(key, before);
    this.#entries.set(key, {
      answer,
      storedAt: answer.storedAt,
      bytes,
      hits: 0,
      askedAs: ++this.#asked,
      isWanted: false,
    });
    this.#bytes += bytes;
    // Comes to those that it spares once more, and then without anything to spare them for.
    for (const [first, entry] of this.#entries) {
      if (this.#bytes <= this.#bytesMax) break;
      if (entry.isWanted || first === key) this.#spare(first, entry);
      else this.#drop(first, entry);
    }
  }

  /** Forgets the answers that are meant; gives their keys. */
  remove(selection: Selection): string[] {
    const removed: string[] = [];
    for (const [key, entry] of this.#entries) {
      if (!isSelected(selection, key, entry.answer.about)) continue;
      this.#drop(key, entry);
      removed.push(key);
    }
    return removed;
  }

  /** The answers that are meant and still good, the one asked for last first. */
  list(selection: Selection): ListedAnswer[] {
    const listed: ListedAnswer[] = [];
    const byRequest = [...this.#entries].sort(([, one], [, other]) => other.askedAs - one.askedAs);
    for (const [key, entry] of byRequest) {
      const ageMs = this.#age(entry);
      if (ageMs >= this.#ttlMs) this.#drop(key, entry);
      else if (isSelected(selection, key, entry.answer.about)) {
        const { model } = entry.answer.about;
        listed.push({ key, model, age_s: Math.floor(ageMs / 1000), bytes: entry.bytes, hits: entry.hits });
      }
    }
    return listed;
  }

  /** Milliseconds. */
  #age(entry: Entry): number {
    const now = this.#clock();
    // Where the clock was set back the answer counts as new, once: it must not stay until the clock is there again.
    if (entry.storedAt > now) entry.storedAt = now;
    return now - entry.storedAt;
  }

  #spare(key: string, entry: Entry): void {
    entry.isWanted = false;
    this.#entries.delete(key);
    this.#entries.set(key, entry);
  }

  #drop(key: string, entry: Entry): void {
    this.#entries.delete(key);
    this.#bytes -= entry.bytes;
  }
}

/** Two bytes a character, and what an object of V8 takes for each delta. Every text is held twice. */
function bytesOf(key: string, { deltas, text, reasoning, toolCalls, raw }: Completion): number {
  const calls = toolCalls.length > 0 ? JSON.stringify(toolCalls).length : 0;
  // Embeddings, and responses with their events.
  let whole = raw === undefined ? 0 : JSON.stringify(raw).length;
  if (whole > 0) for (const { event } of deltas) whole += event?.length ?? 0;
  const chars = (text.length + reasoning.length + calls) * 2 + whole;
  return 512 + (key.length + chars) * 2 + deltas.length * 96;
}
