import { AppError } from "../http/problem.ts";

/** What can go wrong with a question to a model, and with the log of past ones. */
export type ChatErrorCode =
  | "max-tokens-exceeded"
  | "parameter-unsupported"
  | "token-budget-spent"
  | "request-too-deep"
  | "chat-busy"
  | "lm-studio-away"
  | "upstream-timeout"
  | "upstream-invalid"
  | "upstream-cut"
  | "upstream-auth"
  | "upstream-refused"
  | "upstream-failed"
  | "upstream-busy"
  | "upstream-open"
  | "queue-full"
  | "model-not-found"
  | "no-model-loaded"
  | "model-load-failed"
  | "model-crashed"
  | "context-length-exceeded"
  | "cache-miss"
  | "client-gone"
  | "interaction-unknown"
  | "station-unknown"
  | "session-unknown"
  | "file-unknown"
  | "file-in-use"
  | "files-full"
  | "batch-unknown"
  | "batch-over"
  | "batches-full"
  | "cursor-invalid";

export class ChatError extends AppError<ChatErrorCode> {
  /** The parameter of the request that is to blame; absent where none is, or not one alone. */
  declare readonly param?: string;

  constructor(
    code: ChatErrorCode,
    detail: string,
    { param, ...options }: ErrorOptions & { retryAfterS?: number; param?: string } = {},
  ) {
    super(code, detail, options);
    if (param !== undefined) this.param = param;
  }
}

/** HTTP status of each code. */
export const chatStatusOf = {
  "max-tokens-exceeded": 400,
  "parameter-unsupported": 400,
  "token-budget-spent": 429,
  "request-too-deep": 400,
  "chat-busy": 503,
  "lm-studio-away": 503,
  "upstream-timeout": 504,
  "upstream-invalid": 502,
  "upstream-cut": 502,
  "upstream-auth": 502,
  "upstream-refused": 400,
  "upstream-failed": 502,
  "upstream-busy": 503,
  "upstream-open": 503,
  "queue-full": 429,
  "model-not-found": 404,
  // Nothing is wrong with the request: the same one is answered once a model is loaded.
  "no-model-loaded": 503,
  "model-load-failed": 503,
  "model-crashed": 502,
  "context-length-exceeded": 400,
  "cache-miss": 504,
  // Nobody is left to read it; it is what the log has as the outcome of such a call.
  "client-gone": 499,
  "interaction-unknown": 404,
  "station-unknown": 404,
  "session-unknown": 404,
  "file-unknown": 404,
  "file-in-use": 409,
  "files-full": 413,
  "batch-unknown": 404,
  "batch-over": 409,
  "batches-full": 429,
  "cursor-invalid": 400,
} satisfies Record<ChatErrorCode, number>;
