/** One message of a chat request, as far as the stand-in looks at it. */
export interface ChatMessage {
  readonly role: "system" | "developer" | "user" | "assistant" | "tool";
  readonly content?: string | null | readonly { readonly type: string; readonly text?: string }[];
  readonly tool_calls?: readonly unknown[];
  readonly tool_call_id?: string;
}

/** A JSON Schema, as far as the stand-in looks at it. */
export interface Schema {
  readonly type?: string | readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly default?: unknown;
  readonly minimum?: number;
  readonly minLength?: number;
  readonly minItems?: number;
  readonly format?: string;
  readonly $ref?: string;
  readonly $defs?: Readonly<Record<string, Schema>>;
}

/** Body of a generation request. `messages` on the chat endpoint, `prompt` on the completions endpoint. */
export interface GenerationRequest {
  readonly model?: string;
  readonly messages?: readonly ChatMessage[];
  readonly prompt?: string;
  readonly tools?: readonly {
    readonly type: "function";
    readonly function: { readonly name: string; readonly description?: string; readonly parameters?: Schema };
  }[];
  readonly response_format?: {
    readonly type: string;
    readonly json_schema?: { readonly name?: string; readonly schema?: Schema };
  };
  readonly stream?: boolean;
  readonly stream_options?: { readonly include_usage?: boolean };
  readonly max_tokens?: number;
  readonly [parameter: string]: unknown;
}

/** A function that the model calls. Text instead of an object stands for arguments that are not JSON. */
export interface ScriptedCall {
  readonly name: string;
  readonly arguments: Readonly<Record<string, unknown>> | string;
  readonly id?: string;
}

/**
 * How an answer goes wrong. `after` is the number of tokens sent before it does; without one it happens
 * before the headers.
 */
export type Failure =
  | { readonly how: "answer"; readonly status: number; readonly body: unknown; readonly type?: string }
  | { readonly how: "hang" | "reset" | "cut"; readonly after?: number }
  | { readonly how: "error-event"; readonly message: string; readonly after?: number }
  | { readonly how: "garbage"; readonly after?: number };

/** What the model says to one request, and how. Everything is optional: `{}` is an empty answer. */
export interface Reply {
  readonly text?: string;
  readonly thinking?: string;
  /**
   * Where the thinking goes: `inline` as `<think>…</think>` before the text, `unopened` the same without
   * its first tag, `separate` as `reasoning_content`. Default: the server's `thinkingAs`.
   */
  readonly thinkingAs?: ThinkingForm;
  readonly toolCalls?: readonly ScriptedCall[];
  /** `text` leaves the calls as `[TOOL_REQUEST]` text in the content, as for a call LM Studio cannot parse. */
  readonly toolsAs?: "native" | "text";
  /** The text lands in `reasoning_content` and the content stays empty: what json_schema does to some models. */
  readonly textInReasoning?: boolean;
  /** Default: `tool_calls`, `length` where `max_tokens` cut it, else `stop`. */
  readonly finishReason?: string;
  /** Name of the model that answers, where it is not the one asked for. */
  readonly model?: string;
  /** Exact pieces to stream the text in. Default: word by word. */
  readonly pieces?: readonly string[];
  readonly headersDelayMs?: number;
  readonly firstTokenDelayMs?: number;
  readonly tokenDelayMs?: number;
  /** Streamed, it stops after so many tokens until this resolves. */
  readonly heldAfter?: { readonly tokens: number; readonly until: Promise<unknown> };
  readonly failure?: Failure;
}

export type ThinkingForm = "inline" | "unopened" | "separate";

/** Decides what the model says. */
export type Responder = (request: GenerationRequest) => Reply | Promise<Reply>;

const openAiError = (message: string, param: string | null, code: string | null) => ({
  error: { message, type: "invalid_request_error", param, code },
});
const crash = "The model has crashed without additional information. (Exit code: 18446744072635812000)";
const answer = (status: number, body: unknown, type?: string): Reply => ({
  failure: { how: "answer", status, body, ...(type ? { type } : {}) },
});
const said = { text: "one two three four five six seven eight" };

/** The ways of LM Studio to fail, by name; bodies word for word from its bug tracker. */
export const faults = {
  "no-models-loaded": answer(
    404,
    openAiError(
      "No models loaded. Please load a model in the developer page or use the `lms load` command.",
      "model",
      "model_not_found",
    ),
  ),
  "model-unknown": answer(
    404,
    openAiError(
      'Model "nowhere" not found. Please specify a valid model.\n\nYour models:\n\nqwen2.5-7b-instruct\n',
      "model",
      "model_not_found",
    ),
  ),
  "load-failed": answer(
    404,
    openAiError(
      'Failed to load model "deepseek-r1-distill-qwen-7b". Error: Model loading aborted due to insufficient system resources.',
      null,
      null,
    ),
  ),
  overflow: answer(400, {
    error:
      "Trying to keep the first 13055 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough. Try to load the model with a larger context length, or provide a shorter input",
  }),
  "overflow-newer": answer(400, {
    error:
      "The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 13055>= n_ctx: 4096). Try to load the model with a larger context length, or provide a shorter input",
  }),
  crash: answer(400, { error: crash }),
  "crash-exit-null": answer(400, {
    error: "The model has crashed without additional information. (Exit code: null)",
  }),
  unloaded: answer(400, { error: "Model is unloaded." }),
  "channel-error": answer(400, { error: "Channel Error" }),
  unauthorised: answer(401, {
    error: {
      type: "invalid_request",
      code: "invalid_api_key",
      message:
        "An LM Studio API token is required to make requests to this server, but none was provided using the Authorization header using the 'Bearer' scheme (i.e., 'Authorization: Bearer $LM_API_TOKEN').",
      param: null,
    },
  }),
  "json-object": answer(400, { error: "'response_format.type' must be 'json_schema' or 'text'" }),
  "internal-error": answer(500, { error: "Internal Server Error" }),
  busy: answer(503, { error: "Service Unavailable" }),
  "unexpected-endpoint": answer(200, {
    error: "Unexpected endpoint or method. (POST /v1/chat/completions)",
  }),
  html: answer(200, "<!doctype html><title>Router</title><h1>Log in</h1>", "text/html"),
  empty: answer(200, ""),
  malformed: answer(200, '{"id":"chatcmpl-x","object":"chat.completion","choices":[{"index":0,"mess'),
  hang: { failure: { how: "hang" } },
  reset: { failure: { how: "reset" } },
  cut: { failure: { how: "cut" } },
  "stall-mid": { ...said, failure: { how: "hang", after: 3 } },
  "reset-mid": { ...said, failure: { how: "reset", after: 3 } },
  "cut-mid": { ...said, failure: { how: "cut", after: 3 } },
  "crash-mid": { ...said, failure: { how: "error-event", message: crash, after: 3 } },
  "overflow-mid": {
    ...said,
    failure: {
      how: "error-event",
      message:
        "The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 13055>= n_ctx: 4096).",
      after: 0,
    },
  },
  "garbage-mid": { ...said, failure: { how: "garbage", after: 3 } },
} satisfies Record<string, Reply>;

export type FaultName = keyof typeof faults;
