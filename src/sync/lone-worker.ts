import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import type { Log } from "../http/log.ts";
import { tryLock } from "../store/advisory-lock.ts";
import type { Pool } from "../store/pool.ts";

/**
 * What a worker is at: `standby` while another process of this database does the work, `own` where the project is this very
 * database, and there is nothing to do.
 */
type WorkerState = "starting" | "standby" | "own" | "idle" | "waiting";

export interface LoneWorkerOptions {
  readonly pool: Pool;
  readonly log: Log;
  /** Of `pg_advisory_lock(7203, …)`. */
  readonly lock: number;
  /** What to say in the log where the work breaks off. */
  readonly interrupted: string;
  /** Runs while this process has the lock; what it throws is logged, and it is begun anew. Ends with the signal. */
  readonly work: (signal: AbortSignal) => Promise<void>;
}

const standbyMs = 2_000;
/** After what should not happen: the database is away, as a rule, and nothing can be done meanwhile. */
const troubleMs = 2_000;

/** Work that one process of a database does at a time, while others stand by to go on with it; and what it is at. */
export class LoneWorker<Busy extends string> implements AsyncDisposable {
  readonly #options: LoneWorkerOptions;
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  #state: WorkerState | Busy = "starting";
  #wake = new AbortController();
  #watchers: (() => void)[] = [];

  constructor(options: LoneWorkerOptions) {
    this.#options = options;
    this.#done = this.#run();
  }

  get state(): WorkerState | Busy {
    return this.#state;
  }

  enter(state: WorkerState | Busy): void {
    this.#state = state;
    this.news();
  }

  /** There is something to tell to whoever waits for a change. */
  news(): void {
    const watchers = this.#watchers;
    this.#watchers = [];
    for (const tell of watchers) tell();
  }

  /** Resolves when there is news. Rejects when the signal aborts, or this is over. */
  changed(signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const either = AbortSignal.any([signal, this.#stop.signal]);
    if (either.aborted) reject(either.reason);
    else either.addEventListener("abort", () => reject(either.reason), { once: true });
    this.#watchers.push(resolve);
    // Whoever asked may by then be at something else.
    promise.catch(() => undefined);
    return promise;
  }

  /** Rests so long, or until it is woken or stopped. */
  async sleep(ms: number): Promise<void> {
    this.#wake = new AbortController();
    const signal = AbortSignal.any([this.#stop.signal, this.#wake.signal]);
    await delay(ms, undefined, { signal }).catch(() => undefined);
  }

  wake(): void {
    this.#wake.abort();
  }

  /** Where the project is this very database: has nothing to do, until the signal. */
  async restAsOwn(signal: AbortSignal): Promise<void> {
    this.enter("own");
    if (!signal.aborted) await once(signal, "abort");
  }

  /** Lets what is under way go; it is done again next time. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error("the mirror stops"));
    await this.#done;
  }

  async #run(): Promise<void> {
    const { pool, log, lock: number, interrupted, work } = this.#options;
    const stop = this.#stop.signal;
    while (!stop.aborted) {
      try {
        await using lock = await tryLock(pool, number);
        if (lock) {
          const signal = AbortSignal.any([stop, lock.lost]);
          await work(signal);
          signal.throwIfAborted();
        } else {
          this.enter("standby");
          await this.sleep(standbyMs);
        }
      } catch (error) {
        if (stop.aborted) return;
        log.warn({ err: error }, interrupted);
        this.enter("waiting");
        await this.sleep(troubleMs);
      }
    }
  }
}
