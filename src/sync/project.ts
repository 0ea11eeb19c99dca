import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { Agent, type RequestInit, fetch as undiciFetch } from "undici";
import type { KeyColumns, RowKey } from "../store/sync-rows.ts";
import { parseExactly } from "./exact-json.ts";

export interface ProjectOptions {
  readonly url: string;
  /** The secret or service-role key, of either generation. Shown to nobody. */
  readonly key: string;
  /** Milliseconds that one answer may take. Default 15,000. */
  readonly timeoutMs?: number;
}

/** What the project answered. */
export interface Reply<T = unknown> {
  /** HTTP status; 0 where no answer came. */
  readonly status: number;
  /** The server's own words, without the key; null where all went well. */
  readonly error: ReplyError | null;
  readonly data: T | null;
}

interface ReplyError {
  /** SQLSTATE, or PostgREST's own code; empty where the answer had none. */
  readonly code: string;
  readonly message: string;
}

const auth = { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false } as const;
const timeoutDefaultMs = 15_000;
/** As many as are ever in flight at once, and some for whoever asks beside the mirror. */
const connectionsMax = 8;
/** No project is left alone for longer than this, whatever it asks for. */
const quietMaxMs = 10 * 60_000;

/**
 * The Supabase project, as the one who has its service-role key sees it. Every call gives a `Reply` and throws
 * nothing but the reason of its signal; none is repeated here.
 */
export class Project implements AsyncDisposable {
  /** For what the methods here do not do. */
  readonly client: SupabaseClient;
  /** The same, but whatever it gives as data is the text of that JSON, for `parseExactly`. */
  readonly exactClient: SupabaseClient;
  readonly #url: string;
  readonly #key: string;
  readonly #agent: Agent;
  #quietUntil = 0;

  constructor({ url, key, timeoutMs = timeoutDefaultMs }: ProjectOptions) {
    this.#url = url;
    this.#key = key;
    this.#agent = new Agent({
      connections: connectionsMax,
      connect: { timeout: Math.min(timeoutMs, 10_000) },
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
      // Shorter than a server's own, which may be 5 s: a request that meets a connection just closed has failed.
      keepAliveTimeout: 3_000,
      keepAliveMaxTimeout: 3_000,
    });
    const clientOf = (fetch: typeof globalThis.fetch) =>
      createClient(url, key, { auth, db: { timeout: timeoutMs }, global: { fetch } });
    this.client = clientOf(this.#fetch);
    this.exactClient = clientOf(async (input, init) => asText(await this.#fetch(input, init)));
  }

  /** The same, for what may take so long to answer; to be disposed of by whoever asked for it. */
  patient(timeoutMs: number): Project {
    return new Project({ url: this.#url, key: this.#key, timeoutMs });
  }

  /** Milliseconds for which the project has asked to be left alone (`Retry-After`); 0 where it has not. */
  get quietMs(): number {
    return Math.max(0, this.#quietUntil - Date.now());
  }

  /**
   * Inserts rows, given as JSON objects of one shape. Of those that are there already, append-only ones are left as
   * they are and others brought up to date. The text goes over as it is: numbers that JavaScript cannot hold stay exact.
   */
  async upsert(
    table: string,
    rows: readonly string[],
    { key, isEdited }: { readonly key: KeyColumns; readonly isEdited: boolean },
    signal: AbortSignal,
  ): Promise<Reply> {
    const body = `[${rows.join(",")}]`;
    const withBody = ((url, init) => this.#fetch(url, { ...init, body })) as typeof fetch;
    // Its names alone are used of this row: the server then need not read all rows for theirs.
    const shape = [JSON.parse(rows[0] as string)];
    const options = { onConflict: key.join(","), ignoreDuplicates: !isEdited };
    const query = this.client.from(table, { fetch: withBody }).upsert(shape, options).abortSignal(signal);
    return this.#reply(await query, signal);
  }

  /**
   * Deletes rows by their keys; those that are not there are no error. Few at a time, since they go over in the URL, and of
   * keys with a time all with one id.
   */
  async remove(table: string, keys: readonly RowKey[], key: KeyColumns, signal: AbortSignal): Promise<Reply> {
    const [idColumn, timeColumn] = key;
    const query = this.client.from(table).delete().abortSignal(signal);
    const ids = [...new Set(keys.map(({ id }) => id))];
    if (timeColumn === undefined) return this.#reply(await query.in(idColumn, ids), signal);
    const times = keys.map(({ time }) => time);
    return this.#reply(await query.eq(idColumn, ids[0] as string).in(timeColumn, times), signal);
  }

  /** Calls a function of the database. */
  async call<T>(name: string, parameters: object, signal: AbortSignal): Promise<Reply<T>> {
    return this.#reply<T>(await this.client.rpc(name, parameters).abortSignal(signal), signal);
  }

  /** The same, with the numbers of the answer as they are there: `JSON.stringify` gives them out again. */
  async callExactly<T>(name: string, parameters: object, signal: AbortSignal): Promise<Reply<T>> {
    return this.askExactly<T>(this.exactClient.rpc(name, parameters).abortSignal(signal), signal);
  }

  /** Gives the answer to a query of `exactClient`. */
  async askExactly<T>(query: PromiseLike<Answer>, signal: AbortSignal): Promise<Reply<T>> {
    const reply = this.#reply<string>(await query, signal);
    if (reply.data === null) return { ...reply, data: null };
    try {
      return { ...reply, data: parseExactly(reply.data) as T };
    } catch (error) {
      // A page of some proxy's, as a rule.
      return { status: 0, error: { code: "", message: (error as Error).message }, data: null };
    }
  }

  /** Gives the answer to any query of `client`. */
  async ask<T>(query: PromiseLike<Answer>, signal: AbortSignal): Promise<Reply<T>> {
    return this.#reply<T>(await query, signal);
  }

  /**
   * The project's Storage; its requests end with the signal. What is sent goes over in pieces: on a slow line each of them
   * is a sign of life, and the whole may take longer than an answer.
   */
  storage(signal: AbortSignal): SupabaseClient["storage"] {
    const inPieces = ((url: string, init: RequestInit) =>
      this.#fetch(url, { ...piecewise(init), signal } as never)) as unknown as typeof fetch;
    return createClient(this.#url, this.#key, { auth, global: { fetch: inPieces } }).storage;
  }

  /** Gives the answer of Storage to a request. Its status is in the body as a rule, and the answer's own 400 whatever it is. */
  async askStorage<T>(request: PromiseLike<StorageAnswer<T>>, signal: AbortSignal): Promise<Reply<T>> {
    const { data, error } = await request;
    if (error === null) return this.#reply<T>({ status: 200, error, data }, signal);
    const status = /^[45]\d\d$/.test(error.statusCode ?? "") ? Number(error.statusCode) : (error.status ?? 0);
    return this.#reply<T>({ status, error: { message: error.message }, data: null }, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.removeAllChannels();
    await this.#agent.destroy();
  }

  #reply<T>(answer: Answer, signal: AbortSignal): Reply<T> {
    signal.throwIfAborted();
    const { status, error } = answer;
    if (error === null) return { status, error, data: answer.data as T };
    const { message, code } = error as { readonly message?: unknown; readonly code?: unknown };
    const words = typeof message === "string" ? message.replace(/^Error: /, "") : JSON.stringify(error);
    // A key that cannot be a header is quoted by the complaint about it.
    const shown = words.replaceAll(this.#key, "********").slice(0, messageMax);
    return { status, error: { code: String(code ?? ""), message: shown }, data: null };
  }

  readonly #fetch = (async (url: string, init: RequestInit) => {
    const response = await undiciFetch(url, { ...init, dispatcher: this.#agent }).catch((error) => {
      throw reasonOf(error);
    });
    const waitMs = retryAfterMs(response.headers.get("retry-after"), Date.now());
    if (waitMs > 0) this.#quietUntil = Date.now() + Math.min(waitMs, quietMaxMs);
    return response;
  }) as unknown as typeof fetch;
}

/** What went well, as a JSON string of its text: supabase-js parses that, and gives out the text. */
async function asText(response: Response): Promise<Response> {
  if (!response.ok) return response;
  const { status, statusText, headers } = response;
  const text = await response.text();
  return new Response(text && JSON.stringify(text), { status, statusText, headers });
}

/** `fetch` says "fetch failed" of every failure; its cause says which. That of several addresses tried has a code alone. */
function reasonOf(error: unknown): unknown {
  if (!(error instanceof TypeError) || !(error.cause instanceof Error)) return error;
  const { message, code } = error.cause as NodeJS.ErrnoException;
  return new Error(message || code, { cause: error.cause });
}

const pieceBytes = 64 * 1024;

function piecewise(init: RequestInit): RequestInit {
  const { body } = init;
  if (!(body instanceof Uint8Array)) return init;
  const headers = new Headers(init.headers as never);
  headers.set("content-length", String(body.length));
  let at = 0;
  const pieces = new ReadableStream({
    pull(controller) {
      if (at < body.length) controller.enqueue(body.subarray(at, at + pieceBytes));
      else controller.close();
      at += pieceBytes;
    },
  });
  return { ...init, body: pieces as never, duplex: "half", headers: headers as never };
}

interface StorageAnswer<T> {
  readonly data: T | null;
  readonly error: {
    readonly message: string;
    readonly status?: number | undefined;
    readonly statusCode?: string | undefined;
  } | null;
}

/** Of a whole page of HTML, too, the beginning says enough. */
const messageMax = 2_000;

interface Answer {
  readonly status: number;
  /** As a rule an object with code and message; whatever JSON a proxy answers. */
  readonly error: unknown;
  readonly data: unknown;
}

/** A `Retry-After` header, seconds or a date, in milliseconds from `now`; 0 for none and for what is not one. */
export function retryAfterMs(header: string | null, now: number): number {
  if (header === null) return 0;
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - now;
  return Number.isFinite(ms) ? Math.max(0, ms) : 0;
}
