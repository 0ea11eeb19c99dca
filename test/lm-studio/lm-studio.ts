import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { defaultResponder } from "./default-responder.ts";
import { embed } from "./embeddings.ts";
import { beginStream, generate, sendJson } from "./generate.ts";
import { faults, type GenerationRequest, type Reply, type Responder, type ThinkingForm } from "./reply.ts";
import { asChat, type Conversations, refusedResponse, respond as respondTo } from "./responses.ts";

/** A model on the stand-in's disk. */
interface StandInModel {
  readonly id: string;
  /** `tool_use` for models that call tools natively. Default: none. */
  readonly capabilities?: readonly "tool_use"[];
  /** Default 131,072. */
  readonly maxContextLength?: number;
  /** Tokens it is loaded with. A longer prompt (4 characters a token) overflows. Default 4,096. */
  readonly loadedContextLength?: number;
  /** Default `loaded`. */
  readonly state?: "loaded" | "not-loaded";
  /** Predictions at once that it is loaded for. Default 4, LM Studio's own. */
  readonly parallel?: number;
}

export interface LmStudioOptions {
  /** Default 0: any free port. */
  readonly port?: number;
  /** Default: one loaded `deepseek-r1-distill-qwen-7b` without tools. */
  readonly models?: readonly StandInModel[];
  /** Loads a model when it is asked for. Default true. */
  readonly jit?: boolean;
  /** Milliseconds that loading takes. Default 0. */
  readonly loadMs?: number;
  /** API token that requests must carry. Default: none. */
  readonly token?: string;
  /** Where thinking goes by default: `separate` is LM Studio's developer setting. Default `inline`. */
  readonly thinkingAs?: ThinkingForm;
  /** What the model says. Default `defaultResponder`. */
  readonly respond?: Responder;
  /** Milliseconds after which an idle connection is closed. Default 5,000, as LM Studio's. */
  readonly keepAliveMs?: number;
}

/** A request that the stand-in got. Probes (`GET`) are recorded too. */
interface RecordedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: GenerationRequest;
  /** True once the client left before its answer was whole. */
  readonly aborted: boolean;
  /** Resolves when the exchange is over, with how it ended. */
  readonly ended: Promise<"answered" | "aborted">;
}

export interface LmStudio extends AsyncDisposable {
  /** Its root, such as `http://127.0.0.1:40123`. */
  readonly url: string;
  readonly port: number;
  readonly requests: readonly RecordedRequest[];
  /** The generation requests among them. */
  readonly generations: readonly RecordedRequest[];
  /** Resolves with the n-th generation request (from 1) once it is there. */
  readonly generation: (n: number) => Promise<RecordedRequest>;
  /**
   * Sets what the model says from now on: a function for every request, or replies for the next ones, after
   * which it goes on as before.
   */
  readonly script: (...next: readonly [Responder] | readonly Reply[]) => void;
  readonly setState: (model: string, state: "loaded" | "not-loaded") => void;
  /** Frozen, it takes connections and answers nothing, not even `/v1/models`. */
  readonly freeze: (frozen: boolean) => void;
  /** Ends every connection and stops listening, as when somebody quits LM Studio. */
  readonly goAway: () => Promise<void>;
  /** Listens again, on the same port. */
  readonly comeBack: () => Promise<void>;
}

const standardModel: StandInModel = { id: "deepseek-r1-distill-qwen-7b" };
type Exchange = { -readonly [K in keyof RecordedRequest]: RecordedRequest[K] };
type State = "loaded" | "not-loaded" | "loading";

/** Starts a stand-in for LM Studio's server that needs no model: same paths, framing, quirks and errors. */
export async function startLmStudio(options: LmStudioOptions = {}): Promise<LmStudio> {
  const models = options.models ?? [standardModel];
  const states = new Map<string, State>(models.map((model) => [model.id, model.state ?? "loaded"]));
  const requests: Exchange[] = [];
  const conversations: Conversations = new Map();
  const arrivals: { n: number; resolve: (exchange: RecordedRequest) => void }[] = [];
  let respond: Responder = options.respond ?? defaultResponder;
  let queued: Reply[] = [];
  let frozen = false;

  const server = createServer((request, response) => {
    handle(request, response).catch((error: unknown) => {
      if (!response.headersSent) sendJson(response, 500, JSON.stringify({ error: String(error) }));
      else response.destroy();
    });
  });
  server.keepAliveTimeout = options.keepAliveMs ?? 5_000;
  server.listen(options.port ?? 0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };

  const generations = () => requests.filter(({ method, path }) => method === "POST" && endpointOf(path));

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const gone = new AbortController();
    const text = (await request.toArray()).join("");
    const path = (request.url ?? "/").split("?")[0] ?? "/";
    const { promise: ended, resolve } = Promise.withResolvers<"answered" | "aborted">();
    const body = parsed(text);
    const exchange: Exchange = {
      method: request.method ?? "",
      path,
      headers: request.headers,
      body: (body ?? {}) as GenerationRequest,
      aborted: false,
      ended,
    };
    response.once("close", () => {
      exchange.aborted = !response.writableFinished;
      resolve(exchange.aborted ? "aborted" : "answered");
      gone.abort();
    });
    requests.push(exchange);
    if (request.method === "POST" && endpointOf(path)) announce();
    if (frozen) return;

    const send = (status: number, answer: unknown) => sendJson(response, status, JSON.stringify(answer));
    if (options.token && request.headers.authorization !== `Bearer ${options.token}`) {
      return sendFault(response, faults.unauthorised);
    }
    const endpoint = endpointOf(path);
    if (request.method === "POST" && endpoint) {
      return generation(response, exchange, body === undefined, endpoint, gone.signal);
    }
    if (request.method === "GET") {
      if (path === "/v1/models") return send(200, modelList());
      if (path === "/api/v1/models") return send(200, { models: models.map(newNativeModel) });
      if (path === "/api/v0/models") return send(200, { object: "list", data: models.map(nativeModel) });
      const named = models.find(({ id }) => path === `/api/v0/models/${encodeURIComponent(id)}`);
      if (named) return send(200, nativeModel(named));
    }
    send(200, { error: `Unexpected endpoint or method. (${request.method} ${request.url})` });
  }

  async function generation(
    response: ServerResponse,
    exchange: RecordedRequest,
    unreadable: boolean,
    endpoint: Endpoint,
    signal: AbortSignal,
  ): Promise<void> {
    const refusal = unreadable ? refusedJson : refusedBody(exchange.body, endpoint, conversations);
    if (refusal) return sendJson(response, 400, JSON.stringify(refusal));
    const body = endpoint === "responses" ? asChat(exchange.body, conversations) : exchange.body;
    const native = exchange.path.startsWith("/api/v0/");
    const model = modelFor(body.model);
    if (!("id" in model)) return sendFault(response, model);
    const reply = queued.shift() ?? (await respond(body));
    const base = {
      endpoint: endpoint === "text" ? endpoint : "chat",
      native,
      request: body,
      reply,
      model: reply.model ?? model.id,
      thinkingAs: options.thinkingAs ?? "inline",
      signal,
    } as const;
    try {
      if (states.get(model.id) !== "loaded") {
        if (body.stream && !reply.failure) beginStream(response);
        states.set(model.id, "loading");
        await delay(options.loadMs ?? 0, undefined, { ref: false });
        states.set(model.id, "loaded");
      }
      const limit = model.loadedContextLength ?? 4_096;
      const asked = JSON.stringify(body.messages ?? body.prompt ?? "").length / 4;
      if (asked > limit && !response.headersSent) return sendFault(response, faults.overflow);
      if (endpoint === "embeddings") await embed(response, base);
      else if (endpoint === "responses") await respondTo(response, exchange.body, base, conversations);
      else await generate(response, base);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** JIT loads a model that is on disk; an unknown one is answered by the only loaded one, if there is one. */
  function modelFor(name: string | undefined): StandInModel | Reply {
    const loaded = models.filter(({ id }) => states.get(id) === "loaded");
    const named = models.find(({ id }) => id === name);
    if (named && (options.jit !== false || states.get(named.id) === "loaded")) return named;
    if (loaded.length > 1) return faults["model-unknown"];
    return loaded[0] ?? faults["no-models-loaded"];
  }

  function modelList() {
    const shown = models.filter(({ id }) => options.jit !== false || states.get(id) === "loaded");
    return {
      object: "list",
      data: shown.map(({ id }) => ({ id, object: "model", owned_by: "organization_owner" })),
    };
  }

  function nativeModel(model: StandInModel) {
    const state = states.get(model.id);
    return {
      id: model.id,
      object: "model",
      type: "llm",
      publisher: "lmstudio-community",
      arch: "qwen2",
      compatibility_type: "gguf",
      quantization: "Q4_K_M",
      state,
      max_context_length: model.maxContextLength ?? 131_072,
      ...(state === "loaded" ? { loaded_context_length: model.loadedContextLength ?? 4_096 } : {}),
      capabilities: model.capabilities ?? [],
    };
  }

  /** As the native API lists it since 0.4.0. */
  function newNativeModel(model: StandInModel) {
    const config = { context_length: model.loadedContextLength ?? 4_096, parallel: model.parallel ?? 4 };
    return {
      type: "llm",
      publisher: "lmstudio-community",
      key: model.id,
      display_name: model.id,
      architecture: "qwen2",
      quantization: { name: "Q4_K_M", bits_per_weight: 4 },
      loaded_instances: states.get(model.id) === "loaded" ? [{ id: model.id, config }] : [],
      max_context_length: model.maxContextLength ?? 131_072,
      format: "gguf",
      capabilities: {
        vision: false,
        trained_for_tool_use: model.capabilities?.includes("tool_use") === true,
      },
    };
  }

  function announce(): void {
    const there = generations();
    for (const arrival of arrivals.splice(0)) {
      const exchange = there[arrival.n - 1];
      if (exchange) arrival.resolve(exchange);
      else arrivals.push(arrival);
    }
  }

  async function goAway(): Promise<void> {
    if (!server.listening) return;
    server.close();
    server.closeAllConnections();
    await once(server, "close");
  }

  return {
    url: `http://127.0.0.1:${port}`,
    port,
    requests,
    get generations() {
      return generations();
    },
    generation: (n) => {
      const { promise, resolve } = Promise.withResolvers<RecordedRequest>();
      arrivals.push({ n, resolve });
      announce();
      return promise;
    },
    script: (...next) => {
      const [first] = next;
      if (typeof first === "function") {
        queued = [];
        respond = first;
      } else queued = [...(next as readonly Reply[])];
    },
    setState: (model, state) => void states.set(model, state),
    freeze: (value) => {
      frozen = value;
    },
    goAway,
    comeBack: async () => {
      server.listen(port, "127.0.0.1");
      await once(server, "listening");
    },
    [Symbol.asyncDispose]: goAway,
  };
}

type Endpoint = "chat" | "text" | "embeddings" | "responses";

const endpoints: Readonly<Record<string, Endpoint>> = {
  "/v1/chat/completions": "chat",
  "/api/v0/chat/completions": "chat",
  "/v1/completions": "text",
  "/api/v0/completions": "text",
  "/v1/embeddings": "embeddings",
  "/api/v0/embeddings": "embeddings",
  "/v1/responses": "responses",
};

function endpointOf(path: string): Endpoint | undefined {
  return endpoints[path];
}

const refusedJson = {
  error: { message: "Invalid JSON body", type: "invalid_request_error", param: null, code: null },
};

function refusedBody(
  body: GenerationRequest,
  endpoint: Endpoint,
  conversations: Conversations,
): object | undefined {
  if (endpoint === "responses") return refusedResponse(body, conversations);
  if (endpoint === "embeddings" && body.input === undefined) return { error: "'input' field is required" };
  if (endpoint === "chat" && !Array.isArray(body.messages)) return { error: "'messages' field is required" };
  if (endpoint === "text" && body.prompt === undefined) return { error: "'prompt' field is required" };
  const format = body.response_format?.type;
  if (format !== undefined && format !== "json_schema" && format !== "text") {
    return { error: "'response_format.type' must be 'json_schema' or 'text'" };
  }
  return undefined;
}

function sendFault(response: ServerResponse, fault: Reply): void {
  const { failure } = fault;
  if (failure?.how === "answer") sendJson(response, failure.status, JSON.stringify(failure.body));
}

/** `undefined` where the text is not a JSON object. */
function parsed(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}
