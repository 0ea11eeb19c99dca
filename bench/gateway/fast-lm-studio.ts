// A stand-in for LM Studio that is fast rather than faithful: 16 tokens from bytes made beforehand, so that it is not itself
// what gets measured. What it is to do otherwise stands in the question, which reaches it through any gateway:
//
//   "… [[latencyMs=500 tokens=50 gapMs=20 fault=reset]]"
//
// Its second door counts, undisturbed by the first: GET gives the counts, DELETE sets them back.
//
//   node bench/gateway/fast-lm-studio.ts      (prints {"url","door"} as JSON)
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { type Counts, clockMs, model, textOf, tokensByDefault } from "./question.ts";

interface Told {
  readonly latencyMs: number;
  readonly tokens: number;
  readonly gapMs: number;
  readonly fault: string | undefined;
}

const nothing: Counts = { calls: 0, aborted: 0, abortedAt: 0 };
let counts = { ...nothing };

const crash = "The model has crashed without additional information. (Exit code: 18446744072635812000)";
const overflow =
  "Trying to keep the first 13055 tokens when context the overflows. However, the model is loaded with context length of " +
  "only 4096 tokens, which is not enough. Try to load the model with a larger context length, or provide a shorter input";
const refusals: Readonly<
  Record<string, { status: number; body: unknown; headers?: Record<string, string> }>
> = {
  "500": { status: 500, body: { error: "Internal Server Error" } },
  "503": { status: 503, body: { error: "Service Unavailable" } },
  "429": { status: 429, body: { error: "Rate limit reached" }, headers: { "retry-after": "1" } },
  context: { status: 400, body: { error: overflow } },
  crash: { status: 400, body: { error: crash } },
};

const head = {
  id: "chatcmpl-um3b0lqkz9u1x7c2p4d6hs",
  created: 1_747_835_957,
  model,
  system_fingerprint: model,
};
const usageOf = (tokens: number) => ({
  prompt_tokens: 24,
  completion_tokens: tokens,
  total_tokens: 24 + tokens,
});

function wholeAnswer(tokens: number): string {
  const message = { role: "assistant", content: textOf(tokens), reasoning_content: "", tool_calls: [] };
  const choices = [{ index: 0, message, logprobs: null, finish_reason: "stop" }];
  return JSON.stringify({ ...head, object: "chat.completion", choices, usage: usageOf(tokens), stats: {} });
}

function eventsOf(tokens: number, withUsage: boolean): string[] {
  const event = (rest: object) =>
    `data: ${JSON.stringify({ ...head, object: "chat.completion.chunk", ...rest })}\n\n`;
  const chunk = (delta: object, finish_reason: string | null) =>
    event({ choices: [{ index: 0, delta, logprobs: null, finish_reason }] });
  return [
    ...Array.from({ length: tokens }, (_, index) =>
      chunk({ role: "assistant", content: textOf(1, index) }, null),
    ),
    chunk({}, "stop"),
    ...(withUsage ? [event({ choices: [], usage: usageOf(tokens) })] : []),
    "data: [DONE]\n\n",
  ];
}

const usual = Buffer.from(wholeAnswer(tokensByDefault));
const usualStream = Buffer.from(eventsOf(tokensByDefault, false).join(""));
const usualStreamWithUsage = Buffer.from(eventsOf(tokensByDefault, true).join(""));
const models = JSON.stringify({
  object: "list",
  data: [{ id: model, object: "model", owned_by: "organization_owner" }],
});
const nativeModels = JSON.stringify({
  object: "list",
  data: [{ id: model, object: "model", type: "llm", state: "loaded", loaded_context_length: 4096 }],
});
/** It takes as many at once as are sent, and says so: the queue in front of a model is not what is measured. */
const instances = JSON.stringify({
  models: [
    {
      type: "llm",
      key: model,
      loaded_instances: [{ id: model, config: { context_length: 4096, parallel: 256 } }],
    },
  ],
});

const server = createServer((request, response) => {
  const parts: Buffer[] = [];
  request.on("data", (part: Buffer) => parts.push(part));
  request.on("end", () => {
    if (request.method === "POST") {
      void answer(Buffer.concat(parts).toString(), request, response).catch(() => response.destroy());
    } else if (request.url === "/v1/models") sendJson(response, 200, models);
    else if (request.url === "/api/v0/models") sendJson(response, 200, nativeModels);
    else if (request.url === "/api/v1/models") sendJson(response, 200, instances);
    else sendJson(response, 200, JSON.stringify({ error: "Unexpected endpoint or method." }));
  });
});

async function answer(body: string, { socket }: IncomingMessage, response: ServerResponse): Promise<void> {
  counts.calls += 1;
  let gone = false;
  response.once("close", () => {
    if (response.writableFinished) return;
    gone = true;
    counts.aborted += 1;
    counts.abortedAt = clockMs();
  });
  const streams = body.includes('"stream":true');
  const withUsage = body.includes('"include_usage":true');
  const at = body.indexOf("[[");
  if (at < 0) {
    if (!streams) return sendJson(response, 200, usual);
    openStream(response);
    return void response.end(withUsage ? usualStreamWithUsage : usualStream);
  }
  const { latencyMs, tokens, gapMs, fault = "" } = toldBy(body.slice(at + 2, body.indexOf("]]", at)));
  const refusal = refusals[fault];
  if (refusal) return sendJson(response, refusal.status, JSON.stringify(refusal.body), refusal.headers);
  if (fault === "hang") return;
  if (fault === "reset") return void socket.resetAndDestroy();
  if (fault === "empty") return void response.end();
  if (latencyMs > 0) await delay(latencyMs);
  if (gone) return;
  if (fault === "garbage" && !streams) return sendJson(response, 200, '{"id":"chatcm');
  const pieces = streams ? eventsOf(tokens, withUsage) : [wholeAnswer(tokens)];
  if (streams) openStream(response);
  else {
    await delay(gapMs * tokens);
    response.writeHead(200, {
      "content-type": json,
      "content-length": Buffer.byteLength(pieces[0] as string),
    });
  }
  if (fault === "garbage") return void response.end('data: {"id":"chatcm\n\n');
  if (fault === "cut" || fault === "error-event") {
    const half = streams ? pieces.slice(0, pieces.length >> 1).join("") : (pieces[0] ?? "").slice(0, 100);
    const sent = Promise.withResolvers<void>();
    response.write(half, () => sent.resolve());
    await sent.promise;
    if (fault === "cut") return void socket.end();
    return void response.end(`event: error\ndata: ${JSON.stringify({ error: { message: crash } })}\n\n`);
  }
  let due = performance.now();
  for (const [index, piece] of pieces.entries()) {
    if (gone) return;
    response.write(piece);
    // What ends the stream follows the last token at once.
    due += index < tokens - 1 ? gapMs : 0;
    if (streams && due > performance.now()) await delay(due - performance.now());
  }
  response.end();
}

function toldBy(words: string): Told {
  const told = new Map(words.split(" ").map((word) => word.split("=") as [string, string]));
  const number = (name: string, otherwise: number) => Number(told.get(name) ?? otherwise);
  return {
    latencyMs: number("latencyMs", 0),
    tokens: number("tokens", tokensByDefault),
    gapMs: number("gapMs", 0),
    fault: told.get("fault"),
  };
}

const json = "application/json; charset=utf-8";

function sendJson(
  response: ServerResponse,
  status: number,
  body: string | Buffer,
  headers: Readonly<Record<string, string>> = {},
): void {
  response.writeHead(status, { "content-type": json, "content-length": Buffer.byteLength(body), ...headers });
  response.end(body);
}

function openStream(response: ServerResponse): void {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
}

const door = createServer((request, response) => {
  if (request.method === "DELETE") counts = { ...nothing };
  sendJson(response, 200, JSON.stringify(counts));
});

const addressOf = async (listening: typeof server): Promise<string> => {
  listening.listen({ port: 0, host: "127.0.0.1", backlog: 4096 });
  await once(listening, "listening");
  return `http://127.0.0.1:${(listening.address() as AddressInfo).port}`;
};
console.log(JSON.stringify({ url: await addressOf(server), door: await addressOf(door) }));
