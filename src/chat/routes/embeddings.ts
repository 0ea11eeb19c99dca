import type { FastifyReply, FastifyRequest } from "fastify";
import { type Static, Type } from "typebox";
import type { App } from "../../http/app.ts";
import { uuidv7 } from "../../http/uuid.ts";
import type { RouteParts } from "../app.ts";
import { askedBody } from "../asked-body.ts";
import { stopWhenGone } from "../event-stream.ts";
import { openAiAnswer } from "../openai-answer.ts";
import { setProvenance } from "./answer-stream.ts";
import { setAnsweringModel } from "./answering-model.ts";
import { askerOf } from "./asker.ts";
import { openAiErrors } from "./openai-errors.ts";
import { answerHeaders, CallHeaders } from "./schemas.ts";

const Tokens = Type.Array(Type.Integer({ minimum: 0 }), { minItems: 1, maxItems: 8_192 });
const Text = Type.String({ minLength: 1, maxLength: 400_000 });

/** What this route looks at; every other parameter goes to LM Studio as it is. */
export const EmbeddingsRequest = Type.Object({
  model: Type.String({ minLength: 1, maxLength: 256, description: "No default: few models embed" }),
  input: Type.Union([
    Text,
    Type.Array(Text, { minItems: 1, maxItems: 2_048 }),
    Tokens,
    Type.Array(Tokens, { minItems: 1, maxItems: 2_048 }),
  ]),
  encoding_format: Type.Optional(Type.Union([Type.Enum(["float", "base64"]), Type.Null()])),
});

const Embeddings = Type.Object({
  object: Type.Literal("list"),
  data: Type.Array(
    Type.Object({
      object: Type.Literal("embedding"),
      index: Type.Integer(),
      embedding: Type.Union([Type.Array(Type.Number()), Type.String({ description: "base64" })]),
    }),
  ),
  model: Type.String(),
  usage: Type.Optional(Type.Object({ prompt_tokens: Type.Integer(), total_tokens: Type.Integer() })),
});

type Body = Static<typeof EmbeddingsRequest> & Record<string, unknown>;

/** `POST /v1/embeddings`, with base64 as OpenAI's clients ask for it. */
export function embeddingsRoute(app: App, parts: RouteParts): void {
  app.post(
    "/embeddings",
    {
      schema: {
        tags: ["openai"],
        summary: "Embeddings, as OpenAI's",
        operationId: "createEmbedding",
        headers: CallHeaders,
        body: EmbeddingsRequest,
        response: {
          200: {
            description: "A vector for each input",
            headers: answerHeaders,
            content: { "application/json": { schema: Embeddings } },
          },
          ...openAiErrors,
        },
      },
    },
    (request, reply) => embed(request.body as Body, request.headers, request, reply),
  );

  // Fastify would go through thousands of numbers once more: the reply is a finished text.
  async function embed(
    body: Body,
    headers: Static<typeof CallHeaders>,
    request: FastifyRequest,
    reply: FastifyReply,
  ) {
    const id = uuidv7();
    reply.header("x-interaction-id", id);
    const { completion, source, timing } = await parts.complete({
      id,
      route: "/v1/embeddings",
      endpoint: "embeddings",
      ...askerOf(request, headers),
      body: askedBody("embeddings", body, parts.config),
      separates: false,
      stop: stopWhenGone(reply),
      failed: (source, timing) => setProvenance(reply, source, timing),
    });
    setProvenance(reply, source, timing);
    setAnsweringModel(reply, body.model, completion.head.model);
    const json = openAiAnswer("embeddings", completion, body.encoding_format ?? "float");
    return reply.type("application/json; charset=utf-8").send(json);
  }
}
