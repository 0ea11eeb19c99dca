/** How much a slow subscriber may let pile up, and what then happens. */
export interface FeedBound<T> {
  /** Sum of the weights that may wait. */
  readonly weightMax: number;
  readonly weigh: (item: T) => number;
  /** Stands in for what was dropped; without it, the subscription ends instead. */
  readonly noticeOf?: (dropped: number) => T;
}

/** Hands each item to every subscriber, and never waits for one. */
export class Feed<T> {
  readonly #subscriptions = new Set<Subscription<T>>();
  #isClosed = false;

  get hasSubscribers(): boolean {
    return this.#subscriptions.size > 0;
  }

  publish(item: T): void {
    for (const subscription of this.#subscriptions) subscription.offer(item);
  }

  /** Items published from now on. Ends with the feed, or when its reader returns. */
  subscribe(bound: FeedBound<T>): Subscription<T> {
    const subscription = new Subscription(bound);
    this.join(subscription);
    return subscription;
  }

  /** Adds a subscription that may read other feeds as well; it ends with the first of them that does. */
  join(subscription: Subscription<T>): void {
    if (this.#isClosed) {
      subscription.end();
      return;
    }
    this.#subscriptions.add(subscription);
    subscription.onEnd(() => this.#subscriptions.delete(subscription));
  }

  /** Ends every subscription, once its reader has read what is waiting. */
  close(): void {
    this.#isClosed = true;
    for (const subscription of this.#subscriptions) subscription.end();
  }
}

/** One reader's place in a feed. */
export class Subscription<T> implements AsyncIterableIterator<T, undefined> {
  readonly #bound: FeedBound<T>;
  readonly #onEnd: (() => void)[] = [];
  #waiting: T[] = [];
  #weight = 0;
  #dropped = 0;
  #isEnded = false;
  readonly #readers: ((result: IteratorResult<T, undefined>) => void)[] = [];

  constructor(bound: FeedBound<T>) {
    this.#bound = bound;
  }

  onEnd(listener: () => void): void {
    this.#onEnd.push(listener);
  }

  /** Takes the item for the reader, or counts it as dropped. */
  offer(item: T): void {
    if (this.#isEnded) return;
    const reader = this.#readers.shift();
    if (reader) {
      reader({ value: item, done: false });
      return;
    }
    const weight = this.#bound.weigh(item);
    if (this.#dropped > 0 || this.#weight + weight > this.#bound.weightMax) {
      this.#drop();
      return;
    }
    this.#waiting.push(item);
    this.#weight += weight;
  }

  /** No more items; those that wait can still be read. */
  end(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    for (const listener of this.#onEnd) listener();
    for (const reader of this.#readers.splice(0)) reader({ value: undefined, done: true });
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    const item = this.#waiting.shift();
    if (item !== undefined) {
      this.#weight -= this.#bound.weigh(item);
      return { value: item, done: false };
    }
    if (this.#dropped > 0 && this.#bound.noticeOf) {
      const notice = this.#bound.noticeOf(this.#dropped);
      this.#dropped = 0;
      return { value: notice, done: false };
    }
    if (this.#isEnded) return { value: undefined, done: true };
    return await new Promise((resolve) => this.#readers.push(resolve));
  }

  async return(): Promise<IteratorResult<T, undefined>> {
    this.#waiting = [];
    this.#dropped = 0;
    this.end();
    return { value: undefined, done: true };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  #drop(): void {
    if (this.#bound.noticeOf) this.#dropped += 1;
    else this.end();
  }
}
