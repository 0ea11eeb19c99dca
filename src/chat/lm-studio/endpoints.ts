/** LM Studio's generating endpoints: with the model's prompt template, without, vectors, and OpenAI's newer API. */
export type Endpoint = "chat" | "text" | "embeddings" | "responses";

interface EndpointFacts {
  readonly path: string;
  /** True where its stream ends with `data: [DONE]`. */
  readonly endsWithDone: boolean;
  /** Else the events that end it. */
  readonly lastEvents: readonly string[];
  /** The list that tells its answer, where that comes in one piece, from anything else. */
  readonly list: string;
}

export const endpoints = {
  chat: { path: "/v1/chat/completions", endsWithDone: true, lastEvents: [], list: "choices" },
  text: { path: "/v1/completions", endsWithDone: true, lastEvents: [], list: "choices" },
  embeddings: { path: "/v1/embeddings", endsWithDone: false, lastEvents: [], list: "data" },
  responses: {
    path: "/v1/responses",
    endsWithDone: false,
    lastEvents: ["response.completed", "response.incomplete", "response.failed"],
    list: "output",
  },
} satisfies Record<Endpoint, EndpointFacts>;
