import { setTimeout as delay } from "node:timers/promises";
import { createClient } from "@redis/client";

export type RedisClient = ReturnType<typeof clientOf>;

export interface RedisConnectionOptions {
  readonly url: string;
  /** What has to be done on each new connection before it is used. */
  readonly prepare: (client: RedisClient) => Promise<void>;
  readonly log: Log;
}

export interface Log {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

const connectTimeoutMs = 2_000;
const backoffMs = { min: 50, max: 5_000 };
/** A connection on which nothing moves, not even the answer to a ping, is given up. */
const silenceMs = { ping: 5_000, max: 15_000 };
const commandsMax = 4_096;
/** How long commands under way may take when the connection is closed. */
const farewellMs = 200;

/**
 * Keeps a connection to Redis (6 or newer: RESP3 carries answers and messages on one connection), and makes a
 * new one where it is lost. Nobody waits for it: while there is none, `client` is undefined.
 *
 * The library could connect again by itself. Its waiting cannot be called off then, so that a server told to
 * stop would live on for seconds, and what is prepared could not fail as the connection itself does.
 */
export class RedisConnection implements AsyncDisposable {
  readonly #options: RedisConnectionOptions;
  readonly #closed = new AbortController();
  readonly #ended: Promise<void>;
  #client: RedisClient | undefined;
  #fault: string | undefined;
  #drop: ((error: unknown) => void) | undefined;

  constructor(options: RedisConnectionOptions) {
    this.#options = options;
    this.#ended = this.#stayConnected();
  }

  /** A connection that is prepared, if there is one. */
  get client(): RedisClient | undefined {
    return this.#client;
  }

  /** Why there is no connection, in Redis' or the system's words. */
  get fault(): string | undefined {
    return this.#fault;
  }

  /** Gives this connection up, for a new one that is prepared again. */
  drop(error: unknown): void {
    this.#drop?.(error);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    this.#closed.abort();
    // What was just written shall arrive, unless Redis does not answer.
    if (client) await Promise.race([client.close().catch(() => {}), farewell()]);
    this.drop(this.#closed.signal.reason);
    await this.#ended;
  }

  async #stayConnected(): Promise<void> {
    const { signal } = this.#closed;
    for (let failures = 0; !signal.aborted; failures += 1) {
      const client = clientOf(this.#options.url);
      const { promise: lost, reject } = Promise.withResolvers<never>();
      client.on("error", reject);
      this.#drop = reject;
      try {
        await Promise.race([client.connect(), lost]);
        await Promise.race([this.#options.prepare(client), lost]);
        this.#up(client);
        failures = 0;
        await lost;
      } catch (error) {
        if (!signal.aborted) this.#down(error);
      } finally {
        this.#client = undefined;
        client.destroy();
      }
      const ms = Math.min(backoffMs.max, backoffMs.min * 2 ** failures) * (0.5 + Math.random() / 2);
      await delay(ms, undefined, { signal }).catch(() => {});
    }
  }

  #up(client: RedisClient): void {
    this.#client = client;
    if (this.#fault !== undefined) this.#options.log.info({}, "redis is there again");
    this.#fault = undefined;
  }

  #down(error: unknown): void {
    if (this.#fault === undefined) this.#options.log.warn({ err: error }, "redis is away");
    this.#fault = wordsOf(error);
  }
}

/** Holds up no process that has nothing else to do. */
function farewell(): Promise<void> {
  return delay(farewellMs, undefined, { ref: false });
}

function clientOf(url: string) {
  return createClient({
    url,
    name: "pugmark-chat",
    socket: { connectTimeout: connectTimeoutMs, socketTimeout: silenceMs.max, reconnectStrategy: false },
    pingInterval: silenceMs.ping,
    commandsQueueMaxLength: commandsMax,
    disableOfflineQueue: true,
    disableClientInfo: true,
    maintNotifications: "disabled",
    // Would be one timer for each command; whoever waits has a limit of their own.
    commandOptions: { timeout: 0 },
  });
}

/** Some errors of the system have a code and no words. */
function wordsOf(error: unknown): string {
  if (!(error instanceof Error)) return "unknown";
  return error.message || ("code" in error ? String(error.code) : error.name);
}
