import { setTimeout as delay } from "node:timers/promises";

export interface PaceOptions {
  /** Before the first repetition, and at most, milliseconds. */
  readonly firstMs: number;
  readonly mostMs: number;
  /** From 0 to 1. Default `Math.random`. */
  readonly random?: () => number;
}

/**
 * How long to leave somebody alone who did not take what was sent: twice as long after each failure, with jitter, so that
 * stations that failed together do not come back together. Those who send at once share one.
 */
export class Pace {
  readonly #options: PaceOptions;
  readonly #random: () => number;
  #failures = 0;
  #until = 0;
  #hurry = new AbortController();

  constructor(options: PaceOptions) {
    this.#options = options;
    this.#random = options.random ?? Math.random;
  }

  /** Epoch milliseconds of the next try; 0 where there is nothing to wait for. */
  get nextTryAt(): number {
    return this.#failures === 0 ? 0 : this.#until;
  }

  /** Of several that failed together one counts. `leastMs`: for so long the other side wants to be left alone. */
  failed(leastMs = 0): void {
    const now = Date.now();
    if (now >= this.#until) {
      const { firstMs, mostMs } = this.#options;
      const capMs = Math.min(firstMs * 2 ** Math.min(this.#failures, 30), mostMs);
      this.#failures += 1;
      this.#until = now + capMs * (0.5 + this.#random() / 2);
    }
    this.#until = Math.max(this.#until, now + leastMs);
  }

  succeeded(): void {
    this.#failures = 0;
  }

  /** Resolves when it is time to try again. Throws the reason of the signal. */
  async wait(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const ms = this.#until - Date.now();
    if (this.#failures === 0 || ms <= 0) return;
    const hurry = this.#hurry.signal;
    await delay(ms, undefined, { signal: AbortSignal.any([signal, hurry]) }).catch(() => undefined);
    signal.throwIfAborted();
  }

  /** Ends a wait now: somebody has mended what was wrong. */
  hurry(): void {
    this.#until = 0;
    this.#hurry.abort();
    this.#hurry = new AbortController();
  }
}
