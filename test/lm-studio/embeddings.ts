import { createHash } from "node:crypto";
import type { ServerResponse } from "node:http";
import { failNow, pause, sendJson } from "./generate.ts";
import type { GenerationRequest, Reply } from "./reply.ts";

const dimensions = 32;

/**
 * Answers `/v1/embeddings` as LM Studio does: numbers whatever `encoding_format` says, and no tokens counted
 * (lmstudio-bug-tracker#756). The numbers are made of the text's hash, so that equal texts are equal.
 */
export async function embed(
  response: ServerResponse,
  {
    request,
    reply,
    model,
    signal,
  }: { request: GenerationRequest; reply: Reply; model: string; signal: AbortSignal },
): Promise<void> {
  await pause((reply.headersDelayMs ?? 0) + (reply.firstTokenDelayMs ?? 0), signal);
  if (reply.failure) return failNow(response, reply.failure);
  const { input } = request;
  // Numbers are one text as its tokens, and lists of numbers several.
  const texts = Array.isArray(input) && typeof input[0] !== "number" ? input : [input];
  const data = texts.map((text, index) => ({ object: "embedding", embedding: vectorOf(text), index }));
  const usage = { prompt_tokens: 0, total_tokens: 0 };
  sendJson(response, 200, JSON.stringify({ object: "list", data, model, usage }));
}

/** A unit vector of single precision, written as LM Studio writes it: with a double's digits. */
function vectorOf(text: unknown): number[] {
  const bytes = createHash("sha256").update(JSON.stringify(text)).digest();
  const raw = Array.from({ length: dimensions }, (_, index) => (bytes[index] ?? 0) - 127.5);
  const length = Math.hypot(...raw);
  return raw.map((value) => Math.fround(value / length));
}
