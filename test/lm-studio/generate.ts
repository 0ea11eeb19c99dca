import { randomInt } from "node:crypto";
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import type { Failure, GenerationRequest, Reply, ScriptedCall, ThinkingForm } from "./reply.ts";

export interface Generation {
  readonly endpoint: "chat" | "text";
  /** The native v0 API adds statistics. */
  readonly native: boolean;
  readonly request: GenerationRequest;
  readonly reply: Reply;
  readonly model: string;
  readonly thinkingAs: ThinkingForm;
  /** Aborted when the client leaves: generating stops. */
  readonly signal: AbortSignal;
}

type Piece =
  | { readonly field: "content" | "reasoning_content"; readonly text: string }
  | { readonly call: Call };
type Call = { index: number; id?: string; type?: "function"; function: { name?: string; arguments: string } };

/** Answers one generation request as LM Studio would, streamed or whole, including the way it is told to fail. */
export async function generate(response: ServerResponse, generation: Generation): Promise<void> {
  const { reply, request, signal } = generation;
  const { failure } = reply;
  await pause(reply.headersDelayMs, signal);
  if (failure && !("after" in failure)) return failNow(response, failure);

  const all = piecesOf(generation);
  const limit = request.max_tokens !== undefined && request.max_tokens >= 0 ? request.max_tokens : all.length;
  const pieces = all.slice(0, limit);
  const called = pieces.some((piece) => "call" in piece);
  const finish =
    reply.finishReason ?? (pieces.length < all.length ? "length" : called ? "tool_calls" : "stop");
  const frame = frameOf(generation, pieces, finish);
  if (request.stream) await stream(response, generation, pieces, frame);
  else await whole(response, generation, pieces, frame);
}

type Frame = ReturnType<typeof frameOf>;

function frameOf(generation: Generation, pieces: readonly Piece[], finish: string) {
  const { endpoint, request, model, native } = generation;
  const promptTokens = Math.ceil(JSON.stringify(request.messages ?? request.prompt ?? "").length / 4);
  const reasoning = pieces.filter((piece) => "field" in piece && piece.field === "reasoning_content").length;
  return {
    head: {
      id: `${endpoint === "chat" ? "chatcmpl" : "cmpl"}-${randomId()}`,
      created: Math.floor(Date.now() / 1000),
      model,
      system_fingerprint: model,
    },
    finish,
    usage: {
      prompt_tokens: promptTokens,
      completion_tokens: pieces.length,
      total_tokens: promptTokens + pieces.length,
      ...(endpoint === "chat" ? { completion_tokens_details: { reasoning_tokens: reasoning } } : {}),
    },
    extra: native ? nativeExtra(finish) : { stats: {} },
  };
}

async function whole(
  response: ServerResponse,
  { endpoint, reply, signal }: Generation,
  pieces: readonly Piece[],
  { head, finish, usage, extra }: Frame,
): Promise<void> {
  await pause((reply.firstTokenDelayMs ?? 0) + (reply.tokenDelayMs ?? 0) * pieces.length, signal);
  const content = textOfPieces(pieces, "content");
  const answer =
    endpoint === "chat"
      ? {
          message: {
            role: "assistant",
            content,
            reasoning_content: textOfPieces(pieces, "reasoning_content"),
            tool_calls: wholeCalls(pieces),
          },
        }
      : { text: content };
  const body = JSON.stringify({
    id: head.id,
    object: endpoint === "chat" ? "chat.completion" : "text_completion",
    created: head.created,
    model: head.model,
    choices: [{ index: 0, ...answer, logprobs: null, finish_reason: finish }],
    usage,
    ...extra,
    system_fingerprint: head.system_fingerprint,
  });
  if (!reply.failure) return sendJson(response, 200, body);
  response.writeHead(200, { "content-type": jsonType, "content-length": Buffer.byteLength(body) });
  await written(response, body.slice(0, body.length / 2));
  failNow(response, reply.failure);
}

async function stream(
  response: ServerResponse,
  { endpoint, request, reply, signal }: Generation,
  pieces: readonly Piece[],
  { head, finish, usage, extra }: Frame,
): Promise<void> {
  if (!response.headersSent) beginStream(response);
  const object = endpoint === "chat" ? "chat.completion.chunk" : "text_completion";
  const chunk = (choices: readonly unknown[], rest = {}) =>
    `data: ${JSON.stringify({ id: head.id, object, created: head.created, model: head.model, system_fingerprint: head.system_fingerprint, choices, ...rest })}\n\n`;
  const choice = (delta: Record<string, unknown>, finishReason: string | null = null) => ({
    index: 0,
    ...(endpoint === "chat" ? { delta } : { text: delta.content ?? "" }),
    logprobs: null,
    finish_reason: finishReason,
  });
  await pause(reply.firstTokenDelayMs, signal);
  const { failure } = reply;
  const until = failure && "after" in failure ? Math.min(failure.after ?? 0, pieces.length) : pieces.length;
  for (const [index, piece] of pieces.slice(0, until).entries()) {
    if (index > 0) await pause(reply.tokenDelayMs, signal);
    if (index === reply.heldAfter?.tokens) await reply.heldAfter.until;
    signal.throwIfAborted();
    await written(response, chunk([choice(deltaOf(piece))]));
  }
  if (failure) {
    // A reset makes the other side's kernel drop what was not read yet, and the tokens are to arrive.
    if (failure.how === "reset") await pause(20, signal);
    return failNow(response, failure);
  }
  response.write(chunk([choice({}, finish)]));
  if (request.stream_options?.include_usage) response.write(chunk([], { usage, ...extra }));
  response.end("data: [DONE]\n\n");
}

/** Fails as it is told, before the answer or in its middle. */
export function failNow(response: ServerResponse, failure: Failure): void {
  switch (failure.how) {
    case "hang":
      return;
    case "reset":
      response.socket?.resetAndDestroy();
      return;
    case "cut":
      response.socket?.end();
      return;
    case "error-event": {
      const { message } = failure;
      if (!response.headersSent) beginStream(response);
      response.end(`event: error\ndata: ${JSON.stringify({ error: { message }, message })}\n\n`);
      return;
    }
    case "garbage":
      response.end(
        'data: {"id":"chatcmpl-x","object":"chat.completion.chunk","choices":[{"ind\n\ndata: [DONE]\n\n',
      );
      return;
    case "answer": {
      const { status, body, type } = failure;
      const text = typeof body === "string" ? body : JSON.stringify(body);
      sendJson(response, status, text, type);
    }
  }
}

/** LM Studio sends the headers of a stream at once, however late its first token is. */
export function beginStream(response: ServerResponse): void {
  response.writeHead(200, {
    "x-powered-by": "Express",
    "content-type": "text/event-stream",
    "cache-control": "no-cache",
  });
  response.flushHeaders();
}

/** Sends a finished answer with the headers of LM Studio's Express. */
export function sendJson(response: ServerResponse, status: number, body: string, type = jsonType): void {
  response.writeHead(status, {
    "x-powered-by": "Express",
    "content-type": type,
    "content-length": Buffer.byteLength(body),
  });
  response.end(body);
}

const jsonType = "application/json; charset=utf-8";

/** The tokens of an answer: thinking, text and calls, in the order they are generated. */
export function piecesOf({ endpoint, reply, thinkingAs: standard }: Generation): Piece[] {
  const { text = "", thinking, toolCalls = [], toolsAs = "native" } = reply;
  // The completions endpoint never separates.
  const form = endpoint === "text" ? "inline" : (reply.thinkingAs ?? standard);
  const pieces: Piece[] = [];
  const say = (field: "content" | "reasoning_content", words: readonly string[]) =>
    pieces.push(...words.map((word) => ({ field, text: word })));
  if (thinking !== undefined) {
    if (form === "separate") say("reasoning_content", tokens(thinking));
    else {
      say("content", [...(form === "inline" ? ["<think>", "\n"] : []), ...tokens(thinking)]);
      say("content", ["\n", "</think>", "\n\n"]);
    }
  }
  say(reply.textInReasoning ? "reasoning_content" : "content", reply.pieces ?? tokens(text));
  if (toolsAs === "text")
    say(
      "content",
      toolCalls.flatMap((call) => tokens(toolRequest(call))),
    );
  else pieces.push(...toolCalls.flatMap(callPieces));
  return pieces;
}

function tokens(text: string): string[] {
  return text.match(/\s*\S+|\s+$/g) ?? [];
}

function toolRequest({ name, arguments: args }: ScriptedCall): string {
  const shown = typeof args === "string" ? args : JSON.stringify(args);
  return `[TOOL_REQUEST]{"name": ${JSON.stringify(name)}, "arguments": ${shown}}[END_TOOL_REQUEST]`;
}

/** The first chunk names the call; its arguments follow in pieces. */
function callPieces(call: ScriptedCall, index: number): Piece[] {
  const args = typeof call.arguments === "string" ? call.arguments : JSON.stringify(call.arguments);
  const id = call.id ?? String(randomInt(100_000_000, 1_000_000_000));
  return [
    { call: { index, id, type: "function", function: { name: call.name, arguments: "" } } },
    ...(args.match(/.{1,8}/gs) ?? []).map((part) => ({ call: { index, function: { arguments: part } } })),
  ];
}

function deltaOf(piece: Piece): Record<string, unknown> {
  if ("field" in piece) return { role: "assistant", [piece.field]: piece.text };
  const first = piece.call.id !== undefined;
  return { ...(first ? { role: "assistant" } : {}), tool_calls: [piece.call] };
}

export function textOfPieces(pieces: readonly Piece[], field: "content" | "reasoning_content"): string {
  return pieces.map((piece) => ("field" in piece && piece.field === field ? piece.text : "")).join("");
}

interface WholeCall {
  readonly type: "function";
  readonly id: string;
  readonly function: { name: string; arguments: string };
}

export function wholeCalls(pieces: readonly Piece[]): WholeCall[] {
  const calls: WholeCall[] = [];
  for (const piece of pieces) {
    if (!("call" in piece)) continue;
    const { index, id, function: part } = piece.call;
    if (id !== undefined) {
      calls[index] = { type: "function", id, function: { name: part.name ?? "", arguments: "" } };
    } else {
      const call = calls[index];
      if (call) call.function.arguments += part.arguments;
    }
  }
  return calls;
}

function nativeExtra(finish: string) {
  const stopReason = { length: "maxPredictedTokensReached", tool_calls: "toolCalls" }[finish] ?? "eosFound";
  return {
    stats: {
      tokens_per_second: 51.4,
      time_to_first_token: 0.111,
      generation_time: 0.954,
      stop_reason: stopReason,
    },
    model_info: { arch: "qwen2", quant: "Q4_K_M", format: "gguf", context_length: 4096 },
    runtime: { name: "llama.cpp-linux-x86_64-avx2", version: "2.0.0", supported_formats: ["gguf"] },
  };
}

/** LM Studio's ids: the prefix and 22 base36 characters, never the same twice. */
function randomId(): string {
  return Array.from({ length: 22 }, () => randomInt(36).toString(36)).join("");
}

export async function pause(ms: number | undefined, signal: AbortSignal): Promise<void> {
  if (ms) await delay(ms, undefined, { signal });
}

export async function written(response: ServerResponse, text: string): Promise<void> {
  if (response.write(text)) return;
  const heard = new AbortController();
  const { signal } = heard;
  await Promise.race([once(response, "drain", { signal }), once(response, "close", { signal })]);
  // Else a slow reader collects a listener with every piece.
  heard.abort();
}
