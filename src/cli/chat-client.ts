import { type Static, type TSchema, Type } from "typebox";
import { Check } from "typebox/value";
import { type Dispatcher, Pool } from "undici";
import { SseParser } from "../chat/lm-studio/sse.ts";
import { originOf } from "../config/address.ts";
import type { Config } from "../config/config.ts";
import { internalKey } from "./station.ts";

/** Where a chat server is, and what it is to be shown. */
export interface ChatAddress {
  readonly baseUrl: string;
  readonly key?: string | undefined;
}

/** The chat server of this machine's station. */
export function chatAddress(config: Config): ChatAddress {
  const baseUrl = originOf({ host: config.HOST, port: config.CHAT_PORT });
  return { baseUrl, key: config.PUGMARK_API_KEYS ? internalKey(config) : undefined };
}

/** Why there is no answer, in words for people. */
export class ChatClientError extends Error {
  override readonly name = "ChatClientError";
}

/** Part of a streamed answer: `token` and `reasoning` while it is said, then `done` with the whole. */
export type ChatEvent =
  | { readonly event: "token" | "reasoning"; readonly text: string }
  | { readonly event: "done"; readonly answer: ChatAnswer };

export type ChatAnswer = Static<typeof ChatAnswer>;
const ChatAnswer = Type.Object({
  response: Type.String(),
  reasoning: Type.Optional(Type.String()),
  finish_reason: Type.String(),
  session: Type.Optional(
    Type.Object({ turns: Type.Integer(), summarised: Type.Integer(), dropped: Type.Integer() }),
  ),
});
const Piece = Type.Object({ text: Type.String() });
const ProblemBody = Type.Object({ detail: Type.String(), code: Type.String() });

/** A chat server, as the command line talks to it. What goes wrong is a `ChatClientError`. */
export class ChatClient implements AsyncDisposable {
  readonly #address: ChatAddress;
  readonly #connections: Pool;

  constructor(address: ChatAddress) {
    this.#address = address;
    // A slow model may take longer than the five minutes after which undici gives up.
    this.#connections = new Pool(address.baseUrl, { headersTimeout: 0, bodyTimeout: 0 });
  }

  /** Asks, and gives the answer as it comes. Aborting `signal` stops the model too, and throws its reason. */
  async *stream(question: object, signal: AbortSignal): AsyncGenerator<ChatEvent, void> {
    const response = await this.#send("POST", "/chat", { ...question, stream: true }, signal);
    const parser = new SseParser();
    try {
      for await (const bytes of response.body) {
        for (const { event, data } of parser.push(bytes as Buffer)) {
          const read = this.#eventOf(event, data);
          if (read) yield read;
          if (read?.event === "done") return;
        }
      }
    } catch (error) {
      if (error instanceof ChatClientError || signal.aborted) throw error;
      throw this.#brokenOff(error);
    }
    throw this.#brokenOff(undefined);
  }

  async ask(question: object, signal: AbortSignal): Promise<ChatAnswer> {
    return this.#read(await this.#send("POST", "/chat", question, signal), ChatAnswer);
  }

  async get<Schema extends TSchema>(path: string, schema: Schema): Promise<Static<Schema>> {
    return this.#read(await this.#send("GET", path), schema);
  }

  /** What a path answers, as it comes; throws where it does not come to its end. Aborting `signal` throws its reason. */
  async body(path: string, signal: AbortSignal): Promise<AsyncIterable<Buffer>> {
    const { body } = await this.#send("GET", path, undefined, signal);
    const brokenOff = (error: unknown) => (signal.aborted ? error : this.#brokenOff(error));
    return (async function* () {
      try {
        yield* body as AsyncIterable<Buffer>;
      } catch (error) {
        throw brokenOff(error);
      }
    })();
  }

  async delete<Schema extends TSchema>(path: string, schema: Schema): Promise<Static<Schema>> {
    return this.#read(await this.#send("DELETE", path), schema);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connections.destroy();
  }

  #eventOf(event: string, data: string): ChatEvent | undefined {
    const value: unknown = JSON.parse(data);
    if (event === "error") throw new ChatClientError(refusal(value, "") ?? "the chat server broke off");
    if (event === "done" && Check(ChatAnswer, value)) return { event, answer: value };
    if ((event === "token" || event === "reasoning") && Check(Piece, value))
      return { event, text: value.text };
    return undefined;
  }

  async #send(
    method: "GET" | "POST" | "DELETE",
    path: string,
    body?: object,
    signal?: AbortSignal,
  ): Promise<Dispatcher.ResponseData> {
    const { baseUrl, key } = this.#address;
    const request = {
      method,
      path,
      headers: {
        ...(body ? { "content-type": "application/json" } : {}),
        ...(key ? { authorization: `Bearer ${key}` } : {}),
      },
      body: body ? JSON.stringify(body) : null,
      signal: signal ?? null,
    };
    const response = await this.#connections.request(request).catch((error: unknown) => {
      if (signal?.aborted) throw error;
      const isRefused = error instanceof Error && "code" in error && error.code === "ECONNREFUSED";
      if (!isRefused) throw this.#brokenOff(error);
      throw new ChatClientError(
        `the station is not running: nothing answers at ${baseUrl}. Start it with \`npm start\`.`,
      );
    });
    if (response.statusCode === 200) return response;
    const problem: unknown = await response.body.json().catch(() => undefined);
    throw new ChatClientError(
      refusal(problem, String(response.headers["retry-after"] ?? "")) ??
        `the chat server answered ${response.statusCode} without saying why`,
    );
  }

  async #read<Schema extends TSchema>(
    response: Dispatcher.ResponseData,
    schema: Schema,
  ): Promise<Static<Schema>> {
    const body: unknown = await response.body.json().catch(() => undefined);
    if (Check(schema, body)) return body as Static<Schema>;
    throw new ChatClientError(
      `what answers at ${this.#address.baseUrl} is not Pugmark's chat server; see CHAT_PORT`,
    );
  }

  #brokenOff(cause: unknown): ChatClientError {
    return new ChatClientError(
      `the connection to ${this.#address.baseUrl} broke off before the answer; ` +
        "`npm run -s pugmark -- status` says how the station is",
      { cause },
    );
  }
}

function refusal(body: unknown, retryAfter: string): string | undefined {
  if (!Check(ProblemBody, body)) return undefined;
  if (body.code.startsWith("key-")) return `${body.detail} Set PUGMARK_API_KEYS as the station has it.`;
  // A wait of hours is said in the detail, in hours.
  const isShort = retryAfter !== "" && Number(retryAfter) <= 600;
  return isShort ? `${body.detail} Try again in ${retryAfter} s.` : body.detail;
}
