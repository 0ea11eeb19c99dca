import { hash } from "node:crypto";
import { ChatError } from "./chat-error.ts";
import type { Endpoint } from "./lm-studio/endpoints.ts";

/** How the answer travels: no part of the question. */
const transport = new Set(["stream", "stream_options", "encoding_format", "ttl"]);
/** Who is meant to count it: no part either, but of a response, which says it again. */
const whose = new Set(["user", "metadata"]);
/** Here the order of keys reaches the model: in the prompt template, and in the grammar it answers by. */
const ordered = new Set(["tools", "response_format", "text"]);
/** Where each endpoint has its prompt. */
const askedIn = {
  chat: "messages",
  text: "prompt",
  embeddings: "input",
  responses: "input",
} satisfies Record<Endpoint, string>;
const depthMax = 64;

export interface Question {
  readonly endpoint: Endpoint;
  /** Two callers never share an answer: who asked what is nobody else's business. */
  readonly caller: string;
  /** Mark of a key that the caller showed without need: those who show others are others. */
  readonly shownKey?: string | undefined;
  /** Whether thinking is told apart in the answer. */
  readonly separates: boolean;
  readonly body: Readonly<Record<string, unknown>> & { readonly model: string };
}

export interface RequestKey {
  readonly key: string;
  /** Canonical JSON text of the prompt. */
  readonly prompt: string;
}

/**
 * One name for all requests that ask the same: `endpoint/model/hash`, where the hash is of the body's
 * canonical form, the endpoint and the caller. A model's name may have slashes of its own. Also gives the
 * canonical text of the prompt, which the log can store as it is.
 * Throws `ChatError` `request-too-deep` on values nested more than 64 deep.
 */
export function requestKey({ endpoint, caller, shownKey, separates, body }: Question): RequestKey {
  const asked = askedIn[endpoint];
  const prompt = canonical(body[asked], 0);
  let rest = "";
  for (const name of Object.keys(body).sort()) {
    if (name === asked || body[name] === undefined) continue;
    // All of it is written out as JSON for LM Studio and for the log.
    checkDepth(body[name], 0);
    if (transport.has(name) || (endpoint !== "responses" && whose.has(name))) continue;
    rest += `${JSON.stringify(name)}:${ordered.has(name) ? JSON.stringify(body[name]) : canonical(body[name], 0)},`;
  }
  const digest = hash(
    "sha256",
    JSON.stringify([endpoint, caller, shownKey, separates]) + rest + prompt,
    "base64url",
  );
  return { key: `${endpoint}/${body.model}/${digest}`, prompt };
}

/** JSON with sorted keys and no spaces. */
function canonical(value: unknown, depth: number): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  if (depth > depthMax) throw tooDeep();
  if (Array.isArray(value)) return `[${value.map((item) => canonical(item, depth + 1)).join(",")}]`;
  const members = Object.keys(value)
    .sort()
    .map((key) => `${JSON.stringify(key)}:${canonical((value as Record<string, unknown>)[key], depth + 1)}`);
  return `{${members.join(",")}}`;
}

function checkDepth(value: unknown, depth: number): void {
  if (typeof value !== "object" || value === null) return;
  if (depth > depthMax) throw tooDeep();
  for (const item of Object.values(value)) checkDepth(item, depth + 1);
}

function tooDeep(): ChatError {
  return new ChatError("request-too-deep", `Values may be nested ${depthMax} deep.`);
}
