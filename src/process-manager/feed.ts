/** How much a slow subscriber may let pile up; its subscription then ends. */
export interface FeedBound<T> {
  /** Sum of the weights that may wait. */
  readonly weightMax: number;
  readonly weigh: (item: T) => number;
}

/** Hands each item to every subscriber, and never waits for one. */
export class Feed<T> {
  readonly #subscriptions = new Set<Subscription<T>>();
  #isClosed = false;

  publish(item: T): void {
    for (const subscription of this.#subscriptions) subscription.offer(item);
  }

  /** Items published from now on. Ends with the feed, or when its reader returns. */
  subscribe(bound: FeedBound<T>): Subscription<T> {
    const subscription = new Subscription(bound, () => this.#subscriptions.delete(subscription));
    if (this.#isClosed) subscription.end();
    else this.#subscriptions.add(subscription);
    return subscription;
  }

  /** Ends every subscription, once its reader has read what is waiting. */
  close(): void {
    this.#isClosed = true;
    for (const subscription of this.#subscriptions) subscription.end();
  }
}

/** One reader's place in a feed. */
class Subscription<T> implements AsyncIterableIterator<T, undefined> {
  readonly #bound: FeedBound<T>;
  readonly #onEnd: () => void;
  #waiting: T[] = [];
  #weight = 0;
  #isEnded = false;
  readonly #readers: ((result: IteratorResult<T, undefined>) => void)[] = [];

  constructor(bound: FeedBound<T>, onEnd: () => void) {
    this.#bound = bound;
    this.#onEnd = onEnd;
  }

  /** Takes the item for the reader, or ends when too much waits. */
  offer(item: T): void {
    if (this.#isEnded) return;
    const reader = this.#readers.shift();
    if (reader) {
      reader({ value: item, done: false });
      return;
    }
    const weight = this.#bound.weigh(item);
    if (this.#weight + weight > this.#bound.weightMax) {
      this.end();
      return;
    }
    this.#waiting.push(item);
    this.#weight += weight;
  }

  /** No more items; those that wait can still be read. */
  end(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#onEnd();
    for (const reader of this.#readers.splice(0)) reader({ value: undefined, done: true });
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    const item = this.#waiting.shift();
    if (item !== undefined) {
      this.#weight -= this.#bound.weigh(item);
      return { value: item, done: false };
    }
    if (this.#isEnded) return { value: undefined, done: true };
    return await new Promise((resolve) => this.#readers.push(resolve));
  }

  async return(): Promise<IteratorResult<T, undefined>> {
    this.#waiting = [];
    this.end();
    return { value: undefined, done: true };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }
}
