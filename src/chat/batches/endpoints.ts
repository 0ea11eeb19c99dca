import type { TSchema } from "typebox";
import type { Caching } from "../complete.ts";
import type { Endpoint } from "../lm-studio/endpoints.ts";
import { EmbeddingsRequest } from "../routes/embeddings.ts";
import { ChatCompletionRequest, TextCompletionRequest } from "../routes/openai.ts";
import { isStateless, ResponsesRequest } from "../routes/responses.ts";

export type AskedOf = Readonly<Record<string, unknown>>;

interface BatchEndpoint {
  readonly endpoint: Endpoint;
  /** What its route takes as a body. */
  readonly schema: TSchema;
  /** What its route would allow of the cache. */
  readonly caching: (body: AskedOf) => Caching;
}

const shared = () => ({ read: true, write: true });
const never = { read: false, write: false };

/** What a batch's lines may ask, by the URL they name. */
export const batchEndpoints: Readonly<Record<string, BatchEndpoint>> = {
  "/v1/chat/completions": { endpoint: "chat", schema: ChatCompletionRequest, caching: shared },
  "/v1/completions": { endpoint: "text", schema: TextCompletionRequest, caching: shared },
  "/v1/embeddings": { endpoint: "embeddings", schema: EmbeddingsRequest, caching: shared },
  "/v1/responses": {
    endpoint: "responses",
    schema: ResponsesRequest,
    caching: (body) => (isStateless(body) ? shared() : never),
  },
};
