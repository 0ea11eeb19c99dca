import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { type Static, Type } from "typebox";
import { Check } from "typebox/value";
import { Agent as Connections, fetch as undiciFetch } from "undici";
import { AgentError, ChatProblem } from "./agent-error.ts";

// Its warnings go to the console, past the log; what can be wrong here is tested.
globalThis.AI_SDK_LOG_WARNINGS = false;

export interface ChatOptions {
  /** The chat server's root, such as `http://127.0.0.1:5001`. */
  readonly url: string;
  /** Shown as bearer token. */
  readonly key?: string | undefined;
}

/** The model calls of one run. */
export interface ChatRun {
  /** The model by its name, for the AI SDK. */
  readonly model: (name: string) => ReturnType<ReturnType<typeof createOpenAICompatible>["chatModel"]>;
  /** Ids under which the chat server logged the calls, in their order. */
  readonly interactionIds: string[];
}

/**
 * The way to the chat server, the only one to a model. Its refusals come out as `ChatProblem`; where it is away
 * or unreadable, as `AgentError` `chat-away`, `chat-refused` or `chat-invalid`.
 */
export class Chat implements AsyncDisposable {
  readonly #options: ChatOptions;
  // A slow model's whole answer may take longer than undici's five minutes; the chat server has the timeouts.
  readonly #connections = new Connections({ headersTimeout: 0, bodyTimeout: 0, connectTimeout: 5_000 });
  readonly #capabilities = new Map<string, { readonly names: readonly string[]; readonly until: number }>();

  constructor(options: ChatOptions) {
    this.#options = options;
  }

  run(runId: string): ChatRun {
    const interactionIds: string[] = [];
    const provider = createOpenAICompatible({
      name: "chat",
      baseURL: `${this.#options.url}/v1`,
      headers: { ...this.#authorization(), "x-run-id": runId },
      supportsStructuredOutputs: true,
      fetch: async (url, init) => {
        const response = await this.#fetch(String(url), (init ?? {}) as RequestInit);
        const id = response.headers.get("x-interaction-id");
        if (id !== null) interactionIds.push(id);
        if (!response.ok) throw await problemOf(response);
        return response;
      },
    });
    return { model: (name) => provider.chatModel(name), interactionIds };
  }

  /** What the model is said to be able to do, such as `tool_use`; remembered for a minute. */
  async capabilitiesOf(model: string, signal: AbortSignal): Promise<readonly string[]> {
    const known = this.#capabilities.get(model);
    if (known && known.until > Date.now()) return known.names;
    const response = await this.#fetch(`${this.#options.url}/v1/models`, {
      headers: this.#authorization(),
      signal,
    });
    if (!response.ok) throw await problemOf(response);
    const list: unknown = await response.json().catch(() => undefined);
    signal.throwIfAborted();
    if (!Check(ModelList, list))
      throw new AgentError("chat-invalid", "The chat server's list of models is unreadable.");
    const names = list.data.find(({ id }) => id === model)?.capabilities ?? [];
    if (this.#capabilities.size >= modelsMax) this.#capabilities.clear();
    this.#capabilities.set(model, { names, until: Date.now() + 60_000 });
    return names;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connections.close();
  }

  #authorization(): Record<string, string> {
    return this.#options.key === undefined ? {} : { authorization: `Bearer ${this.#options.key}` };
  }

  async #fetch(url: string, init: RequestInit): Promise<Response> {
    try {
      return await this.#send(url, init).catch((error: unknown) => {
        // A chat server that was restarted meanwhile: whoever starts takes over its socket, so ask it again.
        if (init.signal?.aborted || !isBroken(error)) throw error;
        return this.#send(url, init);
      });
    } catch (cause) {
      init.signal?.throwIfAborted();
      throw new AgentError("chat-away", "The chat server does not answer; try again in a moment.", {
        cause,
        retryAfterS: 2,
      });
    }
  }

  async #send(url: string, init: RequestInit): Promise<Response> {
    const options = { ...init, dispatcher: this.#connections } as Parameters<typeof undiciFetch>[1];
    // Node's own fetch takes no connections of another undici; what this one gives has the same shape.
    return (await undiciFetch(url, options)) as unknown as Response;
  }
}

/** True where a connection was there and broke before the answer, which nobody who refuses one does. */
function isBroken(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined;
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  return /^(UND_ERR_SOCKET|ECONNRESET|EPIPE)$/.test(code);
}

/** Callers choose the model's name, so what is remembered about names has a bound. */
const modelsMax = 100;

const ModelList = Type.Object({
  data: Type.Array(
    Type.Object({ id: Type.String(), capabilities: Type.Optional(Type.Array(Type.String())) }),
  ),
});

const OpenAiError = Type.Object({
  error: Type.Object({ message: Type.String(), code: Type.Union([Type.String(), Type.Null()]) }),
});

async function problemOf(response: Response): Promise<Error> {
  const body: unknown = await response.json().catch(() => undefined);
  if (!Check(OpenAiError, body)) {
    return new AgentError("chat-invalid", `The chat server answered ${response.status} without saying why.`);
  }
  // Keys are between the two servers; the caller's own key was good.
  if (response.status === 401 || response.status === 403) {
    return new AgentError("chat-refused", "The chat server does not know this server's key.");
  }
  return chatProblem(body, response);
}

function chatProblem({ error }: Static<typeof OpenAiError>, { status, headers }: Response): ChatProblem {
  const retryAfter = headers.get("retry-after");
  const retryAfterS = retryAfter !== null && /^\d+$/.test(retryAfter) ? Number(retryAfter) : undefined;
  // OpenAI's form has underscores where ours has dashes.
  const code = error.code?.replaceAll("_", "-") ?? "chat-invalid";
  return new ChatProblem(code, status, error.message, retryAfterS);
}

/**
 * The error that a failed model call stands for: the SDK may have wrapped ours, and whatever else it throws
 * says that the answer could not be read.
 */
export function chatErrorOf(error: unknown): unknown {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 5; cause = cause.cause, depth += 1) {
    if (cause instanceof AgentError || cause instanceof ChatProblem) return cause;
  }
  return new AgentError("chat-invalid", "The chat server's answer is unreadable.", { cause: error });
}
