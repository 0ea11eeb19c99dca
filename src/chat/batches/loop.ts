import type { FastifyBaseLogger } from "fastify";

export interface LoopOptions {
  readonly name: string;
  /** Never runs twice at once. What it throws is logged, once until it succeeds again, and it is tried later. */
  readonly work: () => Promise<void>;
  /** How long it rests where nobody wakes it. */
  readonly everyMs: number;
  readonly log: FastifyBaseLogger;
}

const failureRestMs = 1_000;

/** Work that is done now and then, and at once when there is news. Closing waits for the round under way. */
export class Loop implements AsyncDisposable {
  readonly #options: LoopOptions;
  #timer: NodeJS.Timeout | undefined;
  #round: Promise<void> | undefined;
  #hasNews = false;
  #isFailing = false;
  #isClosed = false;

  constructor(options: LoopOptions) {
    this.#options = options;
  }

  /** News that come during a round are what the next one is for. */
  wake(): void {
    if (this.#isClosed) return;
    this.#hasNews = true;
    // After a failure it rests first: news do not bring a database back.
    if (this.#round || this.#isFailing) return;
    clearTimeout(this.#timer);
    this.#round = this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#round;
  }

  async #run(): Promise<void> {
    const { name, work, log, everyMs } = this.#options;
    try {
      while (this.#hasNews && !this.#isClosed) {
        this.#hasNews = false;
        await work();
      }
      this.#isFailing = false;
    } catch (error) {
      if (!this.#isFailing) log.warn({ err: error, loop: name }, "batches cannot go on; trying again");
      this.#isFailing = true;
    }
    this.#round = undefined;
    if (this.#isClosed) return;
    const restMs = this.#isFailing ? Math.min(failureRestMs, everyMs) : everyMs;
    this.#timer = setTimeout(() => this.#again(), restMs).unref();
  }

  #again(): void {
    this.#hasNews = true;
    this.#round = this.#run();
  }
}
