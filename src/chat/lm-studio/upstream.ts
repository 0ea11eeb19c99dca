import { type Dispatcher, Pool } from "undici";
import type { AnswerEvent } from "../answers/answer-reader.ts";
import { ChatError } from "../chat-error.ts";
import { classify, connectionError, isStaleConnection } from "./errors.ts";
import { type ServerSentEvent, SseParser } from "./sse.ts";

/** Which of LM Studio's endpoints: `chat` has the model's prompt template, `text` none. */
export type Endpoint = "chat" | "text" | "embeddings" | "responses";

const pathOf = {
  chat: "/v1/chat/completions",
  text: "/v1/completions",
  embeddings: "/v1/embeddings",
  responses: "/v1/responses",
} satisfies Record<Endpoint, string>;

export interface UpstreamOptions {
  /** LM Studio's roots; the first that answers is used. */
  readonly roots: readonly string[];
  readonly key?: string | undefined;
  /** Silence that is too long: to connect, between two tokens, and of the server itself at any time. */
  readonly silenceMs: number;
  readonly firstTokenMs: number;
  readonly loadMs: number;
}

/** A model as LM Studio lists it, with what its native API adds where that answers. */
export interface ListedModel {
  readonly id: string;
  readonly object: "model";
  readonly owned_by: string;
  readonly state?: string;
  readonly capabilities?: string[];
  readonly max_context_length?: number;
  readonly loaded_context_length?: number;
}

interface Root {
  readonly url: string;
  readonly path: string;
  readonly pool: Pool;
}

/** Connections to one LM Studio; requests past that wait their turn. */
const connectionsMax = 128;
/** LM Studio closes idle connections after 5 s; leaving earlier, we never write into one it just closed. */
const keepAliveMs = 3_500;
/** Bytes of an answer that is not a stream: an error, or the list of models. */
const wholeBytesMax = 1024 * 1024;
/** … and embeddings: 2,048 inputs of 1,536 numbers. */
const embeddingsBytesMax = 64 * 1024 * 1024;

/** The connection to LM Studio. Every call it takes is streamed, so that silence is noticed and leaving works. */
export class Upstream implements AsyncDisposable {
  readonly #options: UpstreamOptions;
  readonly #roots: readonly Root[];
  readonly #headers: Record<string, string>;
  /** The one that answered last: asked first. */
  #first = 0;

  constructor(options: UpstreamOptions) {
    this.#options = options;
    this.#headers = {
      "content-type": "application/json",
      accept: "text/event-stream, application/json",
      ...(options.key ? { authorization: `Bearer ${options.key}` } : {}),
    };
    this.#roots = options.roots.map((url) => ({
      url,
      path: new URL(url).pathname.replace(/\/$/, ""),
      pool: new Pool(new URL(url).origin, {
        connections: connectionsMax,
        keepAliveTimeout: keepAliveMs,
        keepAliveMaxTimeout: keepAliveMs,
        connect: { timeout: options.silenceMs },
        // Its own timeouts know nothing of tokens, and end a long answer after five minutes.
        headersTimeout: 0,
        bodyTimeout: 0,
      }),
    }));
  }

  /**
   * Asks a model and gives its answer event by event. `body` is JSON as it is to be sent. Ends only after
   * the event that ends an answer; whatever else happens throws a `ChatError`. Aborting `stop` closes the connection at once,
   * and LM Studio stops generating.
   */
  async *stream(
    endpoint: Endpoint,
    body: string,
    model: string,
    stop: AbortController,
  ): AsyncGenerator<readonly AnswerEvent[], void> {
    const watch = new Watch(this.#options, stop, (root) => this.#lookAt(root, model));
    let root: Root | undefined;
    try {
      const opened = await this.#open(pathOf[endpoint], body, model, stop, watch);
      root = opened.root;
      yield* readAnswer(opened.response, endpoint, watch);
    } catch (error) {
      if (stop.signal.aborted) throw stop.signal.reason;
      const failure = connectionError(error, (root ?? this.#root(0)).url, model);
      throw failure.code === "model-not-found" ? await this.#withModels(failure, model) : failure;
    } finally {
      watch.end();
    }
  }

  /** All models, from the first LM Studio that answers. Throws a `ChatError`. */
  async models(): Promise<ListedModel[]> {
    let failure: unknown;
    for (const root of this.#inOrder()) {
      try {
        return await this.#modelsOf(root);
      } catch (error) {
        failure ??= error;
      }
    }
    throw failure;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#roots.map(({ pool }) => pool.destroy()));
  }

  /** Sends the request: once more where a connection was stale, to the next LM Studio where one is away. */
  async #open(path: string, body: string, model: string, stop: AbortController, watch: Watch) {
    let failure: ChatError | undefined;
    for (const root of this.#inOrder()) {
      watch.begin(root);
      const send = () =>
        root.pool.request({
          method: "POST",
          path: root.path + path,
          headers: this.#headers,
          body,
          signal: stop.signal,
        });
      try {
        const response = await send().catch((error) => {
          if (stop.signal.aborted || !isStaleConnection(error)) throw error;
          return send();
        });
        this.#first = this.#roots.indexOf(root);
        return { root, response };
      } catch (error) {
        if (stop.signal.aborted) throw error;
        const problem = connectionError(error, root.url, model);
        const away = problem.code === "lm-studio-away" || problem.code === "upstream-timeout";
        if (!away) throw problem;
        failure ??= problem;
      }
    }
    throw failure;
  }

  #inOrder(): readonly Root[] {
    return this.#roots.map((_, index) => this.#root(index));
  }

  #root(index: number): Root {
    return this.#roots[(this.#first + index) % this.#roots.length] as Root;
  }

  /** Is it there at all, and is this model loaded by now? Throws a `ChatError` where it is not there. */
  async #lookAt(root: Root, model: string): Promise<{ loading: boolean }> {
    const [, native] = await Promise.all([this.#listOf(root, "/v1/models"), this.#nativeModelsOf(root)]);
    const state = native.find(({ id }) => id === model)?.state;
    return { loading: state === "not-loaded" || state === "loading" };
  }

  async #modelsOf(root: Root): Promise<ListedModel[]> {
    const [list, native] = await Promise.all([this.#listOf(root, "/v1/models"), this.#nativeModelsOf(root)]);
    const byId = new Map(native.map((model) => [model.id, model]));
    return list.map((model) => {
      const more = byId.get(model.id);
      return {
        ...model,
        object: "model",
        owned_by: model.owned_by ?? "organization_owner",
        ...(more?.state ? { state: more.state } : {}),
        ...(more?.capabilities ? { capabilities: more.capabilities } : {}),
        ...(more?.max_context_length ? { max_context_length: more.max_context_length } : {}),
        ...(more?.loaded_context_length ? { loaded_context_length: more.loaded_context_length } : {}),
      };
    });
  }

  /** The native list is an extra: older versions lack it, and it may go one day. */
  #nativeModelsOf(root: Root): Promise<ListedModel[]> {
    return this.#listOf(root, "/api/v0/models").catch(() => []);
  }

  async #listOf(root: Root, path: string): Promise<ListedModel[]> {
    const signal = AbortSignal.timeout(this.#options.silenceMs);
    try {
      const { pool } = root;
      const response = await pool.request({
        path: root.path + path,
        method: "GET",
        headers: this.#headers,
        signal,
      });
      const body = parsed(await wholeText(response));
      const { data } = (body ?? {}) as { data?: unknown };
      if (response.statusCode !== 200 || !Array.isArray(data)) throw classify(body, response.statusCode);
      return data.filter((model): model is ListedModel => typeof model?.id === "string");
    } catch (error) {
      if (signal.aborted) throw silent(root, this.#options.silenceMs);
      throw connectionError(error, root.url);
    }
  }

  async #withModels(failure: ChatError, model: string): Promise<ChatError> {
    const models = await this.models().catch(() => []);
    const loaded = models.filter(({ state }) => state === "loaded").map(({ id }) => id);
    const others = models.filter(({ state }) => state !== "loaded").map(({ id }) => id);
    const detail = [
      `LM Studio has no model ${model} to answer with.`,
      loaded.length > 0 ? `Loaded: ${loaded.join(", ")}.` : "No model is loaded.",
      ...(others.length > 0 ? [`Can be loaded: ${others.join(", ")}.`] : []),
    ].join(" ");
    return new ChatError("model-not-found", detail, { cause: failure });
  }
}

async function* readAnswer(
  response: Dispatcher.ResponseData,
  endpoint: Endpoint,
  watch: Watch,
): AsyncGenerator<readonly AnswerEvent[], void> {
  const type = String(response.headers["content-type"] ?? "");
  if (response.statusCode !== 200 || !type.startsWith("text/event-stream")) {
    const text = await wholeText(response, endpoint === "embeddings" ? embeddingsBytesMax : wholeBytesMax);
    const body = parsed(text);
    // A proxy in front of LM Studio may gather the stream up: the answer is as good.
    if (response.statusCode === 200 && isAnswer(body)) {
      yield [{ event: "whole", value: body }];
      return;
    }
    if (body === undefined && response.statusCode < 300) {
      throw new ChatError(
        "upstream-invalid",
        "What answers at DEEPSEEK_API_URL does not speak as LM Studio does.",
      );
    }
    throw classify(body, response.statusCode);
  }
  const parser = new SseParser();
  let finished = false;
  try {
    for await (const bytes of response.body) {
      // After the last event only the end is waited for, without which the connection could not be used again.
      if (finished) continue;
      const { events, done, failure } = eventsOf(parser.push(bytes as Uint8Array));
      finished = done;
      if (finished) watch.finishIn(() => response.body.destroy());
      if (events.length > 0) {
        const spoke = finished || !events.every(({ event }) => beforeTokens.test(event));
        // While a slow reader holds us up, silence is not LM Studio's.
        if (spoke) watch.pause();
        yield events;
        if (spoke && !finished) watch.awaitToken();
      }
      if (failure !== undefined) throw failure;
    }
  } catch (error) {
    if (!finished) throw error;
  }
  if (!finished) throw new ChatError("upstream-cut", "LM Studio's stream ended before its answer did.");
}

/** What each endpoint's whole answer has, and no error: completions, embeddings, responses. */
function isAnswer(body: unknown): boolean {
  const { choices, data, output } = (body ?? {}) as Record<string, unknown>;
  return [choices, data, output].some(Array.isArray);
}

/** What came up to the first event that is an error: tokens that came before it still count. */
function eventsOf(events: readonly ServerSentEvent[]): {
  events: AnswerEvent[];
  done: boolean;
  failure?: unknown;
} {
  const read: AnswerEvent[] = [];
  try {
    for (const { event, data } of events) {
      if (data === "[DONE]") return { events: read, done: true };
      const value = parsed(data);
      if (isFailure(event, value)) throw classify(value);
      if (value === undefined) {
        throw new ChatError("upstream-invalid", "LM Studio sent an event that is no part of an answer.");
      }
      read.push({ event, value });
      if (lastOfResponse.test(event)) return { events: read, done: true };
    }
  } catch (failure) {
    return { events: read, done: false, failure };
  }
  return { events: read, done: false };
}

/** These of `/v1/responses` come at once, while the prompt is still to be read. */
const beforeTokens = /^response\.(created|queued|in_progress)$/;
/** A stream of `/v1/responses` ends with one of these; OpenAI sends no `[DONE]` there. */
const lastOfResponse = /^response\.(completed|incomplete|failed)$/;

function isFailure(event: string, value: unknown): boolean {
  if (event === "error") return true;
  return typeof value === "object" && value !== null && "error" in value && value.error !== null;
}

/**
 * Notices when LM Studio has gone quiet, and stops the call. Until the first token it asks every now and then
 * whether LM Studio is still there and whether the model is loaded, since loading and reading a long prompt
 * look the same from outside as a server that hangs. After that, the time between two tokens counts.
 */
class Watch {
  readonly #options: UpstreamOptions;
  readonly #stop: AbortController;
  readonly #look: (root: Root) => Promise<{ loading: boolean }>;
  #root: Root | undefined;
  /** Until the first token: the next look. */
  #timer: NodeJS.Timeout | undefined;
  /** After it. */
  #silence: NodeJS.Timeout | undefined;
  /** False while it is not LM Studio that is waited for. */
  #waiting = false;
  #ended = false;
  #tokenSeen = false;
  readonly #begunAt = performance.now();
  #loadedAt = this.#begunAt;

  constructor(
    options: UpstreamOptions,
    stop: AbortController,
    look: (root: Root) => Promise<{ loading: boolean }>,
  ) {
    this.#options = options;
    this.#stop = stop;
    this.#look = look;
  }

  begin(root: Root): void {
    this.#root = root;
    this.#lookIn(this.#options.silenceMs / 2);
  }

  /** A token is there, and is being passed on. */
  pause(): void {
    this.#tokenSeen = true;
    this.#waiting = false;
  }

  /** From now on the next token has `silenceMs`. */
  awaitToken(): void {
    this.#waiting = true;
    if (this.#silence) {
      this.#silence.refresh();
      return;
    }
    clearTimeout(this.#timer);
    this.#silence = setTimeout(() => {
      if (this.#waiting) this.#fail(`no token for ${this.#options.silenceMs / 1000} s`);
    }, this.#options.silenceMs);
  }

  /** The answer is whole; a server that leaves the stream open nevertheless is not waited for. */
  finishIn(giveUp: () => void): void {
    this.#tokenSeen = true;
    this.#waiting = false;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(giveUp, Math.min(this.#options.silenceMs, 1_000));
  }

  end(): void {
    this.#ended = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#silence);
  }

  #lookIn(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#lookNow(), ms);
  }

  async #lookNow(): Promise<void> {
    const root = this.#root as Root;
    const { silenceMs, firstTokenMs, loadMs } = this.#options;
    try {
      const { loading } = await this.#look(root);
      if (this.#ended || this.#tokenSeen) return;
      const now = performance.now();
      if (loading) this.#loadedAt = now;
      const limitAt = loading ? this.#begunAt + loadMs : this.#loadedAt + firstTokenMs;
      if (now < limitAt) return this.#lookIn(Math.min(silenceMs / 2, limitAt - now));
      this.#fail(
        loading ? `still loading after ${loadMs / 1000} s` : `no token after ${firstTokenMs / 1000} s`,
      );
    } catch (error) {
      if (!this.#ended && !this.#tokenSeen) this.#stop.abort(error);
    }
  }

  #fail(what: string): void {
    this.#stop.abort(new ChatError("upstream-timeout", `LM Studio: ${what}.`));
  }
}

function silent(root: Root, silenceMs: number): ChatError {
  return new ChatError(
    "upstream-timeout",
    `LM Studio at ${root.url} has not answered for ${silenceMs / 1000} s.`,
  );
}

async function wholeText(response: Dispatcher.ResponseData, bytesMax = wholeBytesMax): Promise<string> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const bytes of response.body) {
    size += bytes.length;
    if (size > bytesMax) throw new ChatError("upstream-invalid", "LM Studio's answer is far too long.");
    parts.push(bytes);
  }
  return Buffer.concat(parts).toString();
}

/** `undefined` where the text is not JSON. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
