import type { AnswerReader } from "./answers/answer-reader.ts";
import type { Completion, Head } from "./completion.ts";
import type { Delta } from "./lm-studio/reasoning.ts";
import type { Priority } from "./queue.ts";

/** Somebody who waits for a flight's answer. Told at once, in the turn in which it came. */
export interface Passenger {
  /** There is more to read: the head, or further deltas. */
  readonly progress?: () => void;
  readonly landed: (end: FlightEnd) => void;
}

export type FlightEnd = { readonly completion: Completion } | { readonly error: unknown };

/**
 * One question under way to a model, with everybody who waits for its answer. Who boards late reads what was
 * said so far and then goes on like the rest. One who leaves does not stop the others; with the last one the
 * question itself is stopped.
 *
 * Nobody holds the model up: each reads the deltas at a pace of their own, and an answer's length is bounded.
 */
export class Flight {
  /** What was said so far. */
  readonly answer: Pick<AnswerReader, "head" | "deltas" | "readAlong">;
  /** By which it waits for its turn. */
  readonly priority: Priority;
  /** Where it was sent to last. Times are milliseconds of `performance.now`. */
  upstream: string | undefined;
  admittedAt: number | undefined;
  queuedMs: number | undefined;
  firstTokenAt: number | undefined;
  landedAt: number | undefined;
  end: FlightEnd | undefined;
  /** Aborted when the last passenger has left. */
  readonly stop = new AbortController();
  readonly #passengers = new Set<Passenger>();

  constructor(answer: Flight["answer"], priority: Priority) {
    this.answer = answer;
    this.priority = priority;
  }

  /** False for one that nobody waits for any more: it is about to fail. */
  get isJoinable(): boolean {
    return this.end === undefined && !this.stop.signal.aborted;
  }

  board(passenger: Passenger): void {
    this.#passengers.add(passenger);
    if (this.answer.head) passenger.progress?.();
  }

  leave(passenger: Passenger, reason: unknown): void {
    if (this.#passengers.delete(passenger) && this.#passengers.size === 0 && !this.end) {
      this.stop.abort(reason);
    }
  }

  /** It was let through to an LM Studio; again where a first try failed. */
  admitted({ upstream }: { readonly upstream: string }): void {
    this.upstream = upstream;
    this.admittedAt = performance.now();
  }

  /** There may be more of the answer. */
  said(): void {
    if (!this.answer.head) return;
    this.firstTokenAt ??= performance.now();
    for (const passenger of this.#passengers) passenger.progress?.();
  }

  land(end: FlightEnd): void {
    this.end = end;
    this.landedAt = performance.now();
    for (const passenger of this.#passengers) passenger.landed(end);
    this.#passengers.clear();
  }
}

/**
 * Waits for a flight's answer, and hands over what is said on the way. Rejects with what the flight failed of,
 * or with the signal's reason once the caller leaves; it must not be aborted yet.
 */
export function follow(
  flight: Flight,
  caller: AbortSignal,
  sink?: {
    readonly begin: (head: Head) => void;
    readonly deltas: (deltas: readonly Delta[]) => Promise<void> | undefined;
  },
): Promise<Completion> {
  const { promise, resolve, reject } = Promise.withResolvers<Completion>();
  let told = 0;
  let begun = false;
  let isBusy = false;
  const passenger: Passenger = { ...(sink ? { progress } : {}), landed: settle };
  const leave = () => {
    flight.leave(passenger, caller.reason);
    reject(caller.reason);
  };
  caller.addEventListener("abort", leave, { once: true });
  flight.board(passenger);
  return promise.finally(() => caller.removeEventListener("abort", leave));

  function progress(): void {
    const { head, deltas } = flight.answer;
    if (isBusy || !sink || !head) return;
    if (!begun) {
      begun = true;
      sink.begin(head);
    }
    if (told === deltas.length) return;
    const more = deltas.slice(told);
    told = deltas.length;
    const taken = sink.deltas(more);
    if (!taken) return;
    isBusy = true;
    taken.then(
      () => {
        isBusy = false;
        if (flight.end) settle(flight.end);
        else progress();
      },
      (error) => {
        flight.leave(passenger, error);
        reject(error);
      },
    );
  }

  function settle(end: FlightEnd): void {
    if (!isBusy) progress();
    // What was written may have to be taken first.
    if (isBusy) return;
    if ("error" in end) reject(end.error);
    else resolve(end.completion);
  }
}
