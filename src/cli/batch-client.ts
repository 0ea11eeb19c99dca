import { openAsBlob } from "node:fs";
import { setTimeout as wait } from "node:timers/promises";
import { type Static, type TSchema, Type } from "typebox";
import { Check } from "typebox/value";
import { FormData, fetch, type RequestInit, type Response } from "undici";
import { writeWhole } from "./whole-file.ts";

export interface ChatAddress {
  /** The chat server's root. */
  readonly baseUrl: string;
  readonly key?: string | undefined;
}

const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);

export type RemoteBatch = Static<typeof RemoteBatch>;
const RemoteBatch = Type.Object({
  id: Type.String(),
  status: Type.String(),
  endpoint: Type.String(),
  created_at: Type.Number(),
  output_file_id: nullable(Type.String()),
  error_file_id: nullable(Type.String()),
  request_counts: Type.Object({ total: Type.Number(), completed: Type.Number(), failed: Type.Number() }),
  errors: nullable(
    Type.Object({ data: Type.Array(Type.Object({ message: Type.String(), line: nullable(Type.Number()) })) }),
  ),
  metadata: nullable(Type.Record(Type.String(), Type.String())),
});
const RemoteList = Type.Object({ data: Type.Array(RemoteBatch), has_more: Type.Boolean() });
const RemoteFile = Type.Object({ id: Type.String() });
const Refusal = Type.Object({ error: Type.Object({ message: Type.String() }) });

/** A station that is restarted is back within this. */
const attemptsMax = 20;
const pauseMs = 1_500;
const createMaxMs = 30_000;
const removeMaxMs = 5_000;

/** The chat server did not do it; the message says why. `status` where it answered. */
export class BatchClientError extends Error {
  override readonly name = "BatchClientError";
  readonly status: number | undefined;

  constructor(message: string, status?: number) {
    super(message);
    this.status = status;
  }
}

/**
 * What the command line asks of the chat server's batches. A station that was there once may be away for a
 * while, since looking again changes nothing. Everything throws `BatchClientError`, and ends when `signal` is aborted.
 */
export class BatchClient {
  readonly #address: ChatAddress;
  readonly #signal: AbortSignal | undefined;
  #hasAnswered = false;

  constructor(address: ChatAddress, signal?: AbortSignal) {
    this.#address = address;
    this.#signal = signal;
  }

  async upload(path: string, filename: string): Promise<string> {
    const form = new FormData();
    form.append("purpose", "batch");
    form.append("file", await openAsBlob(path), filename);
    const response = await this.#request("/v1/files", { method: "POST", body: form });
    return checked(RemoteFile, await response.json()).id;
  }

  /** Takes back what was uploaded, as far as that is possible now. */
  async remove(fileId: string): Promise<void> {
    const init = { method: "DELETE", signal: AbortSignal.timeout(removeMaxMs) };
    await this.#request(fileOf(fileId), init).catch(() => {});
  }

  /** Not to be interrupted: whoever left in between would not know whether there is a batch. */
  async create(batch: {
    readonly input_file_id: string;
    readonly endpoint: string;
    readonly completion_window: string;
    readonly metadata: Readonly<Record<string, string>>;
  }): Promise<RemoteBatch> {
    const headers = { "content-type": "application/json" };
    this.#signal?.throwIfAborted();
    const signal = AbortSignal.timeout(createMaxMs);
    const init = { method: "POST", headers, body: JSON.stringify(batch), signal };
    return checked(RemoteBatch, await (await this.#request("/v1/batches", init)).json());
  }

  async get(id: string): Promise<RemoteBatch> {
    const response = await this.#patiently(pathOf(id));
    return checked(RemoteBatch, await response.json());
  }

  /** The newest 100. */
  async list(): Promise<RemoteBatch[]> {
    return (await this.#page()).data;
  }

  /** Every batch there is, the newest first, fetched as they are asked for. */
  async *all(): AsyncGenerator<RemoteBatch, void> {
    for (let after: string | undefined; ; ) {
      const { data, has_more } = await this.#page(after);
      yield* data;
      after = data.at(-1)?.id;
      if (!has_more || after === undefined) return;
    }
  }

  /** Whether what a batch has made is still there: files can be deleted, and expire. */
  async hasFilesOf({ output_file_id, error_file_id }: RemoteBatch): Promise<boolean> {
    for (const id of [output_file_id, error_file_id]) {
      if (id !== null && !(await this.#hasFile(id))) return false;
    }
    return true;
  }

  async cancel(id: string): Promise<RemoteBatch> {
    const response = await this.#request(`${pathOf(id)}/cancel`, { method: "POST" });
    return checked(RemoteBatch, await response.json());
  }

  /** Writes a file's bytes to a path, as `writeWhole` does. */
  async download(fileId: string, path: string): Promise<void> {
    const { body } = await this.#patiently(`${fileOf(fileId)}/content`);
    try {
      if (body) await writeWhole(body, path);
    } catch (error) {
      if (error instanceof Error && "syscall" in error) throw error;
      throw new BatchClientError("the answers broke off while they were fetched");
    }
  }

  async #page(after?: string): Promise<Static<typeof RemoteList>> {
    const rest = after === undefined ? "" : `&after=${encodeURIComponent(after)}`;
    const response = await this.#request(`/v1/batches?limit=100${rest}`);
    return checked(RemoteList, await response.json());
  }

  async #hasFile(id: string): Promise<boolean> {
    try {
      await this.#request(fileOf(id));
      return true;
    } catch (error) {
      if (error instanceof BatchClientError && error.status === 404) return false;
      throw error;
    }
  }

  async #patiently(path: string): Promise<Response> {
    const signal = this.#signal;
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#request(path);
      } catch (error) {
        signal?.throwIfAborted();
        const isAway = error instanceof BatchClientError && (error.status ?? 503) === 503;
        if (!isAway || !this.#hasAnswered || attempt === attemptsMax) throw error;
        await wait(pauseMs, undefined, signal ? { signal } : {});
      }
    }
  }

  async #request(path: string, init: RequestInit = {}): Promise<Response> {
    const { baseUrl, key } = this.#address;
    const headers = { ...(init.headers as object), ...(key ? { authorization: `Bearer ${key}` } : {}) };
    const signal = this.#signal ?? null;
    const response = await fetch(baseUrl + path, { signal, ...init, headers }).catch(() => {
      throw new BatchClientError(
        this.#hasAnswered
          ? `the connection to ${baseUrl} broke off`
          : `the station is not running: nothing answers at ${baseUrl}. Start it with \`npm start\`.`,
      );
    });
    if (response.ok) {
      this.#hasAnswered = true;
      return response;
    }
    const refusal: unknown = await response.json().catch(() => undefined);
    const message = Check(Refusal, refusal)
      ? refusal.error.message
      : `the station answered ${response.status}`;
    throw new BatchClientError(message, response.status);
  }
}

function pathOf(id: string): string {
  return `/v1/batches/${encodeURIComponent(id)}`;
}

function fileOf(id: string): string {
  return `/v1/files/${encodeURIComponent(id)}`;
}

function checked<T extends TSchema>(schema: T, value: unknown): Static<T> {
  if (Check(schema, value)) return value;
  throw new BatchClientError("what answers is not Pugmark's chat server; see CHAT_PORT");
}
