import { ChatError, type ChatErrorCode } from "../chat-error.ts";
import { ConnectionError, isReset } from "./connections.ts";

/**
 * What LM Studio's words mean. It answers client faults and crashes with the same status, so its text decides;
 * the numbers are issues of lmstudio-ai/lmstudio-bug-tracker where the words are quoted.
 */
const meanings: readonly (readonly [RegExp, ChatErrorCode])[] = [
  // "Trying to keep the first N tokens when context the overflows…", "…greater than the context length (n_keep: …)".
  [/context (length|the overflows|overflow)|n_keep|n_ctx/i, "context-length-exceeded"],
  // "The model has crashed without additional information. (Exit code: …)" (#1347, #1057), "Compute error.",
  // "Model is unloaded." while it was generating (#671), "Channel Error".
  [/model has crashed|Exit code:|Model is unloaded|Channel Error|Compute error/i, "model-crashed"],
  // `Failed to load model "…". Error: Model loading aborted due to insufficient system resources…`
  [/Failed to load|loading aborted|insufficient system resources/i, "model-load-failed"],
  // "No models loaded. Please load a model in the developer page or use the `lms load` command."
  [/No models? loaded/i, "no-model-loaded"],
  // `Model "x" not found. Please specify a valid model.…`
  [/Model "?.*"? not found|Invalid model identifier/i, "model-not-found"],
  [/API token|invalid_api_key/i, "upstream-auth"],
  // Answered with 200 for every path it does not know (#618, #1323, #2085).
  [/Unexpected endpoint or method/i, "upstream-invalid"],
];

const advice: Partial<Record<ChatErrorCode, string>> = {
  "context-length-exceeded": "The prompt is longer than the context that the model was loaded with.",
  "model-crashed": "The model crashed in LM Studio; asking again may load it anew.",
  "model-load-failed": "LM Studio could not load the model.",
  "upstream-auth": "LM Studio asks for an API token: set DEEPSEEK_API_KEY to one that it knows.",
  "upstream-invalid": "What answers at DEEPSEEK_API_URL does not speak as LM Studio does.",
};

/**
 * The error that an answer of LM Studio stands for: by its words, then by its status. Takes its body with
 * any status, or the payload of an error event, where there is no status. `retryAfterS` is what it says itself.
 */
export function classify(body: unknown, status?: number, retryAfterS = 1): ChatError {
  const { message, code } = wordsOf(body);
  const meant = meanings.find(([pattern]) => pattern.test(message))?.[1];
  const kind =
    (status === 401 || status === 403 || code === "invalid_api_key" ? "upstream-auth" : undefined) ??
    (code === "model_not_found" && meant !== "model-load-failed" && meant !== "no-model-loaded"
      ? "model-not-found"
      : undefined) ??
    meant ??
    byStatus(status);
  const words = message && `LM Studio says: ${message.slice(0, 500)}`;
  const detail = [advice[kind], words].filter(Boolean).join(" ") || fallback(status);
  return new ChatError(kind, detail, kind === "upstream-busy" ? { retryAfterS } : {});
}

/** LM Studio's text in both of its forms: `{"error":"…"}` and `{"error":{"message":"…","code":…}}`. */
function wordsOf(body: unknown): { message: string; code?: unknown } {
  if (typeof body !== "object" || body === null) return { message: "" };
  const { error, message } = body as { error?: unknown; message?: unknown };
  if (typeof error === "string") return { message: error };
  if (typeof error === "object" && error !== null) {
    const { message: words, code } = error as { message?: unknown; code?: unknown };
    return { message: typeof words === "string" ? words : "", code };
  }
  return { message: typeof message === "string" ? message : "" };
}

function byStatus(status: number | undefined): ChatErrorCode {
  // LM Studio itself never says so, but what may stand in front of it does.
  if (status === 429 || status === 503) return "upstream-busy";
  if (status === undefined || status >= 500) return "upstream-failed";
  if (status >= 400) return "upstream-refused";
  return "upstream-invalid";
}

function fallback(status: number | undefined): string {
  return status === undefined ? "LM Studio broke off with an error." : `LM Studio answered ${status}.`;
}

/** The error that a failed exchange stands for, by the codes of Node, of our connections, and of undici. */
export function connectionError(error: unknown, root: string, model?: string): ChatError {
  if (error instanceof ChatError) return error;
  const code = codeOf(error);
  if (/^(connect-timeout|UND_ERR_CONNECT_TIMEOUT|ETIMEDOUT)$/.test(code)) {
    return new ChatError("upstream-timeout", `LM Studio at ${root} takes no connection.`, { cause: error });
  }
  if (/^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH)$/.test(code)) {
    const how = "LM Studio → Developer → Start server, or `lms server start`";
    const load = model === undefined ? "" : ` and load ${model} (\`lms load ${model}\`)`;
    return new ChatError(
      "lm-studio-away",
      `LM Studio does not answer at ${root}: start its server (${how})${load}.`,
      { cause: error, retryAfterS: 5 },
    );
  }
  return new ChatError("upstream-cut", "LM Studio broke the connection off before its answer was whole.", {
    cause: error,
  });
}

/**
 * True where the connection broke as an idle one does that LM Studio closes (after 5 s) just as we use it:
 * the request was not read, and can go out once more. A new connection that breaks had read it.
 */
export function isStaleConnection(error: unknown): boolean {
  const code = codeOf(error);
  if (error instanceof ConnectionError) return code === "closed" && error.wasUsed;
  // undici does not tell of what these broke.
  if (isReset(code)) return true;
  const { socket } = error as { socket?: { bytesRead?: number } };
  return code === "UND_ERR_SOCKET" && (socket?.bytesRead ?? 0) > 0;
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}
