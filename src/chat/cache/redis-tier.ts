import { aboutCharsMax, decodeAbout, decodeAnswer, encodeAnswer } from "./answer-encoding.ts";
import { isSelected, type KeptAnswer, type Selection } from "./kept-answer.ts";
import { type Log, type RedisClient, RedisConnection } from "./redis-connection.ts";

export interface RedisOptions {
  readonly url: string;
  /** Milliseconds that an answer is good for. */
  readonly ttlMs: number;
  /** Told of every removal by any server; of all (`{}`) where some may have been missed. */
  readonly onRemoved: (selection: Selection) => void;
  readonly log: Log;
  /** Milliseconds that a caller's question waits for Redis; then it counts as slow. Default 50. */
  readonly waitMs?: number;
}

/** `slow`: an answer is late, and until it is there nothing more is asked. */
export type RedisState = "ready" | "slow" | "away";

const standardWaitMs = 50;
/** Milliseconds that a removal is waited for; it goes on after that. */
const removalWaitMs = 5_000;
/** Characters of one answer as encoded. */
const valueCharsMax = 1024 * 1024;
/** Characters of answers on their way to Redis. */
const writingCharsMax = 16 * 1024 * 1024;
/** Keys that one step of a removal looks at. */
const pageKeys = 500;
/** Removals that wait for Redis; with more, everything is removed. */
const owedMax = 100;

const keyPrefix = "pugmark:answers:";
/** How many removals there were: who was not connected sees by it that it missed some. */
const removalsKey = "pugmark:answer-removals";
/** Messages go to all databases of a Redis: this one's number is added. */
const channelPrefix = "pugmark:answer-removals:";

/**
 * Answers in a Redis that several chat servers share. It makes nobody wait for long and never fails: where
 * Redis is away or slow, there is no answer and none is kept, and what was to be removed is removed later.
 */
export class RedisTier implements AsyncDisposable {
  readonly #options: RedisOptions;
  readonly #connection: RedisConnection;
  readonly #waitMs: number;
  readonly #channel: string;
  readonly #onMessage = (message: string) => this.#heard(message);
  /** Commands whose answers are late. */
  #late = 0;
  #writingChars = 0;
  #owed: Selection[] = [];
  #removalsSeen: number | undefined;
  #errors = 0;
  #lastError = "";

  constructor(options: RedisOptions) {
    this.#options = options;
    const { url, log, waitMs = standardWaitMs } = options;
    this.#waitMs = waitMs;
    this.#channel = `${channelPrefix}${new URL(url).pathname.slice(1) || 0}`;
    this.#connection = new RedisConnection({ url, log, prepare: (client) => this.#catchUp(client) });
  }

  get state(): RedisState {
    if (!this.#connection.client) return "away";
    return this.#late > 0 ? "slow" : "ready";
  }

  get stats() {
    return { state: this.state, errors: this.#errors };
  }

  /** The answer, if Redis has it and says so in time. At once nothing, where it is not there to be asked. */
  get(key: string): Promise<KeptAnswer | undefined> | undefined {
    const client = this.#ready();
    if (!client) return undefined;
    return this.#inTime(client.get(keyPrefix + key)).then((encoded) => {
      return typeof encoded === "string" ? decodeAnswer(encoded) : undefined;
    });
  }

  /** Keeps an answer; nobody learns whether it arrives. */
  set(key: string, answer: KeptAnswer): void {
    const client = this.#ready();
    if (!client || this.#writingChars >= writingCharsMax) return;
    const encoded = encodeAnswer(answer);
    if (encoded.length > valueCharsMax) return;
    this.#writingChars += encoded.length;
    const expiration = { type: "PX", value: Math.ceil(this.#options.ttlMs) } as const;
    client
      .set(keyPrefix + key, encoded, { expiration })
      .catch((error: unknown) => this.#failed(error))
      .finally(() => {
        this.#writingChars -= encoded.length;
      });
  }

  /**
   * Removes the answers that are meant, here and from the memory of every other server. Gives how many there
   * were besides those that are known already; nothing where Redis did not say in time: then it is done later.
   */
  async remove(selection: Selection, known: ReadonlySet<string>): Promise<number | undefined> {
    const { client } = this.#connection;
    if (!client) {
      this.#owe(selection);
      return undefined;
    }
    const removal = this.#erase(client, selection, known).catch((error: unknown) => {
      this.#failed(error);
      this.#owe(selection);
      this.#connection.drop(error);
      return undefined;
    });
    return within(removalWaitMs, removal);
  }

  /** Asks Redis whether it is there. Gives why it is not used, and nothing where it is. */
  async whyNotUsed(): Promise<string | undefined> {
    const { client, fault } = this.#connection;
    if (!client) return fault ?? "is not connected yet";
    const isSlow = this.#late > 0 || (await this.#inTime(client.ping())) === undefined;
    return isSlow ? `does not answer within ${this.#waitMs} ms` : undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection[Symbol.asyncDispose]();
  }

  #ready(): RedisClient | undefined {
    return this.#late > 0 ? undefined : this.#connection.client;
  }

  /** Makes up for what was missed while there was no connection: removals of ours, and those of others. */
  async #catchUp(client: RedisClient): Promise<void> {
    await client.subscribe(this.#channel, this.#onMessage);
    for (const selection of this.#owed.slice()) {
      await this.#erase(client, selection, new Set());
      this.#owed = this.#owed.filter((other) => other !== selection);
    }
    const removals = Number((await client.get(removalsKey)) ?? 0);
    if (this.#removalsSeen !== undefined && removals > this.#removalsSeen) this.#options.onRemoved({});
    this.#removalsSeen = removals;
  }

  /** Removes answers from Redis piece by piece, then tells every server. Gives how many were not known already. */
  async #erase(client: RedisClient, selection: Selection, known: ReadonlySet<string>): Promise<number> {
    const MATCH = `${keyPrefix}${escapeGlob(selection.prefix ?? "")}*`;
    let erased = 0;
    let cursor = "0";
    do {
      const page = await client.scan(cursor, { MATCH, COUNT: pageKeys });
      cursor = page.cursor;
      const keys = await selectedOf(client, page.keys, selection);
      if (keys.length > 0) await client.unlink(keys);
      erased += keys.filter((key) => !known.has(key.slice(keyPrefix.length))).length;
    } while (cursor !== "0");
    // Told last: whoever forgets an answer before it is gone here could read it from here again.
    const removals = await client.incr(removalsKey);
    await client.publish(this.#channel, JSON.stringify({ removals, selection }));
    return erased;
  }

  #heard(message: string): void {
    const { removals, selection } = readMessage(message);
    const seen = this.#removalsSeen;
    const missedSome = removals !== undefined && seen !== undefined && removals > seen + 1;
    this.#removalsSeen = removals ?? seen;
    this.#options.onRemoved(missedSome ? {} : selection);
  }

  #owe(selection: Selection): void {
    this.#owed = this.#owed.length < owedMax ? [...this.#owed, selection] : [{}];
  }

  #failed(error: unknown): void {
    this.#errors += 1;
    const words = String(error);
    // A full Redis would say so for each answer; the loss of the connection is told where that is kept.
    if (words === this.#lastError || !this.#connection.client) return;
    this.#lastError = words;
    this.#options.log.warn({ err: error }, "redis refused");
  }

  /** What a command gives; nothing where it fails or is late. */
  #inTime<T>(command: Promise<T>): Promise<T | undefined> {
    let isSettled = false;
    let isLate = false;
    const settled = command
      .catch((error: unknown) => {
        this.#failed(error);
        return undefined;
      })
      .finally(() => {
        isSettled = true;
        if (isLate) this.#late -= 1;
      });
    return within(this.#waitMs, settled, () => {
      if (isSettled) return;
      isLate = true;
      this.#late += 1;
    });
  }
}

async function selectedOf(client: RedisClient, keys: string[], selection: Selection): Promise<string[]> {
  if (selection.model === undefined && selection.caller === undefined) return keys;
  // What is no text is not ours, and must not stand in the way of the others.
  const beginningOf = (key: string) => client.getRange(key, 0, aboutCharsMax - 1).catch(() => "");
  const beginnings = await Promise.all(keys.map(beginningOf));
  return keys.filter((key, index) => {
    const about = decodeAbout(beginnings[index] ?? "");
    return about !== undefined && isSelected(selection, key.slice(keyPrefix.length), about);
  });
}

function escapeGlob(text: string): string {
  return text.replace(/[\\*?[\]]/g, "\\$&");
}

/** Whoever cannot read what was removed has to take it for everything. */
function readMessage(message: string): { removals?: number; selection: Selection } {
  try {
    const { removals, selection } = JSON.parse(message);
    const parts = [selection.model, selection.prefix, selection.caller];
    const isText = (part: unknown) => part === undefined || typeof part === "string";
    if (Number.isSafeInteger(removals) && parts.every(isText)) return { removals, selection };
  } catch {
    // Not ours.
  }
  return { selection: {} };
}

/** What is promised, or nothing after so many milliseconds. `onLate` is called in that case. */
function within<T>(ms: number, promise: Promise<T>, onLate?: () => void): Promise<T | undefined> {
  return new Promise((resolve) => {
    const late = () => {
      onLate?.();
      resolve(undefined);
    };
    // Where this process was busy, the answer may be there unread: it is read before the next immediate.
    const timer = setTimeout(() => setImmediate(late), ms);
    void promise.then((value) => {
      clearTimeout(timer);
      resolve(value);
    });
  });
}
