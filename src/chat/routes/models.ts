import { Type } from "typebox";
import type { App } from "../../http/app.ts";
import type { RouteParts } from "../app.ts";
import { ChatError } from "../chat-error.ts";
import type { ListedModel } from "../lm-studio/models.ts";
import { openAiErrors } from "./openai-errors.ts";

const Model = Type.Object({
  id: Type.String(),
  object: Type.Literal("model"),
  created: Type.Integer({ description: "0: LM Studio does not say, and some clients insist on it" }),
  owned_by: Type.String(),
  state: Type.Optional(Type.String({ description: "loaded, not-loaded or loading" })),
  capabilities: Type.Optional(Type.Array(Type.String())),
  max_context_length: Type.Optional(Type.Integer()),
  loaded_context_length: Type.Optional(Type.Integer()),
});
const ModelList = Type.Object({ object: Type.Literal("list"), data: Type.Array(Model) });
const name = Type.String({ minLength: 1, maxLength: 256 });

/** `GET /v1/models` and `/v1/models/{model}`: what there is to ask, with what LM Studio's own API adds. */
export function modelRoutes(app: App, { upstreams }: RouteParts): void {
  app.get(
    "/models",
    {
      schema: {
        tags: ["openai"],
        summary: "Models of LM Studio, with their state",
        operationId: "listModels",
        response: {
          200: { description: "All models", content: { "application/json": { schema: ModelList } } },
          ...openAiErrors,
        },
      },
    },
    async (_request, reply) => {
      const models = await upstreams.models();
      return reply.send({ object: "list", data: models.map(modelOf) });
    },
  );
  app.get(
    "/models/:model",
    {
      schema: {
        tags: ["openai"],
        summary: "One model",
        operationId: "retrieveModel",
        params: Type.Object({ model: name }),
        response: {
          200: { description: "The model", content: { "application/json": { schema: Model } } },
          ...openAiErrors,
        },
      },
    },
    async ({ params }, reply) => reply.send(await find(params.model)),
  );
  app.get(
    "/models/:publisher/:name",
    // Most names have a slash, and some clients leave it as it is.
    { schema: { hide: true, params: Type.Object({ publisher: name, name }) } },
    async ({ params }, reply) => reply.send(await find(`${params.publisher}/${params.name}`)),
  );

  async function find(id: string) {
    const found = (await upstreams.models()).find((model) => model.id === id);
    if (!found)
      throw new ChatError("model-not-found", `LM Studio has no model ${id}; /v1/models lists them.`, {
        param: "model",
      });
    return modelOf(found);
  }
}

function modelOf(model: ListedModel) {
  return { created: 0, ...model };
}
