/** How long it stays open: the first time, and at most. It doubles with every probe that fails. */
const openMs = 1_000;
const openMaxMs = 30_000;

export type BreakerState = "closed" | "open" | "half-open";

/**
 * Keeps requests away from a model that fails every time. Open, it lets nobody through; half-open, whoever uses
 * it is to send one request, which decides. `clock` is in milliseconds and never steps back; `failuresMax` failures
 * one after the other open it.
 */
export class Breaker {
  readonly #failuresMax: number;
  readonly #clock: () => number;
  #failures = 0;
  #openUntil: number | undefined;
  #openForMs = openMs;
  #last = "";

  constructor(failuresMax: number, clock: () => number) {
    this.#failuresMax = failuresMax;
    this.#clock = clock;
  }

  get state(): BreakerState {
    if (this.#openUntil === undefined) return "closed";
    return this.#clock() < this.#openUntil ? "open" : "half-open";
  }

  /** Failures since the last success. */
  get failures(): number {
    return this.#failures;
  }

  /** What happened last. */
  get last(): string {
    return this.#last;
  }

  /** Milliseconds until one request may try again; 0 where it may now. */
  get openForMs(): number {
    return Math.max(0, (this.#openUntil ?? 0) - this.#clock());
  }

  succeeded(): void {
    this.#failures = 0;
    this.#openUntil = undefined;
    this.#openForMs = openMs;
  }

  failed(what: string): void {
    const { state } = this;
    this.#failures += 1;
    this.#last = what;
    // What began before it opened says nothing new.
    if (state === "open" || this.#failures < this.#failuresMax) return;
    if (state === "half-open") this.#openForMs = Math.min(this.#openForMs * 2, openMaxMs);
    this.#openUntil = this.#clock() + this.#openForMs;
  }
}
