import { isConnectionError, StoreError } from "./errors.ts";

interface Waiting<Item, Result> {
  readonly item: Item;
  readonly weight: number;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
}

export interface GroupCommitOptions<Item, Result> {
  /** Writes a group durably in one statement; gives a result for each item, in order. */
  readonly write: (items: readonly Item[]) => Promise<readonly Result[]>;
  /** Rows in an item. Default 1. */
  readonly weigh?: (item: Item) => number;
  /** Rows that one statement takes at most; an item is never split. */
  readonly groupMax: number;
  /** Rows that may wait at most; past that `submit` throws `StoreError` `store-busy`. */
  readonly waitingMax: number;
  /** Statements under way at once. */
  readonly writers: number;
}

/**
 * Lets items that arrive together share one statement and one commit: the first goes at once, and whatever
 * arrives while a writer is busy makes up the next group. Durability then costs a group, not an item, and
 * nobody waits for company.
 */
export class GroupCommit<Item, Result> {
  readonly #options: GroupCommitOptions<Item, Result>;
  #waiting: Waiting<Item, Result>[] = [];
  #waitingWeight = 0;
  #writing = 0;

  constructor(options: GroupCommitOptions<Item, Result>) {
    this.#options = options;
  }

  /** Resolves once the item is on disk. Rejects with what its own write threw, or `store-busy`. */
  submit(item: Item): Promise<Result> {
    const weight = this.#options.weigh?.(item) ?? 1;
    if (this.#waitingWeight + weight > this.#options.waitingMax && this.#waiting.length > 0) {
      return Promise.reject(
        new StoreError("store-busy", "Too much is waiting to be stored; try again in a moment."),
      );
    }
    const { promise, resolve, reject } = Promise.withResolvers<Result>();
    this.#waiting.push({ item, weight, resolve, reject });
    this.#waitingWeight += weight;
    // Requests that were read from their sockets in the same turn still make it into this group.
    setImmediate(() => this.#next());
    return promise;
  }

  #next(): void {
    if (this.#writing >= this.#options.writers || this.#waiting.length === 0) return;
    const group = this.#take();
    this.#writing += 1;
    this.#write(group).finally(() => {
      this.#writing -= 1;
      this.#next();
    });
  }

  #take(): Waiting<Item, Result>[] {
    let weight = 0;
    let count = 0;
    for (const waiting of this.#waiting) {
      if (count > 0 && weight + waiting.weight > this.#options.groupMax) break;
      weight += waiting.weight;
      count += 1;
    }
    this.#waitingWeight -= weight;
    return this.#waiting.splice(0, count);
  }

  async #write(group: readonly Waiting<Item, Result>[]): Promise<void> {
    try {
      const results = await this.#options.write(group.map(({ item }) => item));
      for (const [index, waiting] of group.entries()) waiting.resolve(results[index] as Result);
    } catch (error) {
      const hopeless = error instanceof StoreError || isConnectionError(error);
      if (group.length === 1 || hopeless) {
        for (const waiting of group) waiting.reject(error);
      } else {
        // One item that the database refuses must not take its company down with it.
        for (const waiting of group) await this.#write([waiting]);
      }
    }
  }
}
