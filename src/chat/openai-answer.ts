import type { EmbeddingList } from "./answers/embeddings-answer.ts";
import type { FinalEvent } from "./answers/responses-answer.ts";
import type { Completion } from "./completion.ts";
import type { Endpoint } from "./lm-studio/endpoints.ts";
import { completionJson } from "./openai-format.ts";

/** How embeddings travel: as numbers, or as base64 of little-endian floats of 32 bits. */
type EncodingFormat = "float" | "base64";

/** A whole answer of any endpoint as OpenAI's API gives it. */
export function openAiAnswer(
  endpoint: Endpoint,
  completion: Completion,
  encoding: EncodingFormat = "float",
): string {
  if (endpoint === "embeddings") return JSON.stringify(encoded(completion.raw as EmbeddingList, encoding));
  if (endpoint === "responses") return JSON.stringify((completion.raw as FinalEvent).response);
  return completionJson(endpoint, completion);
}

/** LM Studio knows numbers alone (lmstudio-bug-tracker#756), and OpenAI's clients ask for base64. */
function encoded(list: EmbeddingList, encoding: EncodingFormat): object {
  if (encoding === "float") return list;
  const data = list.data.map((item) => ({ ...item, embedding: base64Of(item.embedding) }));
  return { ...list, data };
}

function base64Of(numbers: readonly number[]): string {
  const bytes = Buffer.allocUnsafe(numbers.length * 4);
  let end = 0;
  for (const value of numbers) end = bytes.writeFloatLE(value, end);
  return bytes.toString("base64");
}
