import type { FastifyRequest } from "fastify";
import { Type } from "typebox";
import type { App } from "../../http/app.ts";
import { problems } from "../../http/problem.ts";
import type { RouteParts } from "../app.ts";
import type { ListedAnswer } from "../cache/memory-tier.ts";

const Answer = Type.Object({
  key: Type.String({ description: "endpoint/model/hash" }),
  model: Type.String(),
  age_s: Type.Integer(),
  bytes: Type.Integer({ description: "Estimated" }),
  hits: Type.Integer({ description: "How often it was given again" }),
});

const CacheStats = Type.Object({
  entries: Type.Integer({ description: "Answers in memory" }),
  bytes: Type.Integer({ description: "Estimated" }),
  bytes_max: Type.Integer(),
  ttl_s: Type.Number({ description: "0: the cache is off" }),
  hits: Type.Integer({ description: "Since the start, from memory or Redis" }),
  misses: Type.Integer(),
  models: Type.Array(
    Type.Object({
      model: Type.String(),
      entries: Type.Integer(),
      bytes: Type.Integer(),
      hits: Type.Integer({ description: "Of the answers that are in memory now" }),
    }),
    { description: "Answers in memory, the model with the most bytes first" },
  ),
  redis: Type.Union(
    [
      Type.Object({
        state: Type.Enum(["ready", "slow", "away"]),
        hits: Type.Integer({ description: "Answers that it had" }),
        errors: Type.Integer({
          description: "Commands that it refused or that were lost with the connection",
        }),
      }),
      Type.Null(),
    ],
    { description: "null: REDIS_URL is not set" },
  ),
  answers: Type.Optional(Type.Array(Answer, { description: "The one asked for last first" })),
});

const Removal = Type.Object({
  removed: Type.Integer(),
  pending: Type.Boolean({
    description: "Redis could not be reached: it forgets as soon as it can be, which is not counted here",
  }),
});

const Selection = Type.Object(
  {
    model: Type.Optional(Type.String({ minLength: 1, maxLength: 256 })),
    prefix: Type.Optional(
      Type.String({ minLength: 1, maxLength: 400, description: "How the key begins, such as `embeddings/`" }),
    ),
  },
  { additionalProperties: false },
);

const Listing = Type.Object(
  {
    entries: Type.Boolean({ default: false, description: "List the answers too: never what they say" }),
    limit: Type.Integer({ minimum: 1, maximum: 1_000, default: 50 }),
  },
  { additionalProperties: false },
);

/** `GET` and `DELETE /cache`: what answers are kept, and forgetting them. */
export function cacheRoutes(app: App, { cache }: RouteParts): void {
  app.get(
    "/cache",
    {
      schema: {
        tags: ["cache"],
        summary: "What the cache holds",
        description:
          "With `entries=true` it lists answers: all of them for the scope `admin`, else your own.",
        operationId: "cacheStats",
        querystring: Listing,
        response: { 200: CacheStats, ...problems(400) },
      },
    },
    async (request) => {
      const { entries, limit } = request.query;
      const answers = cache.list(ownOf(request));
      const stats = { models: byModel(answers), ...cache.stats };
      return entries ? { ...stats, answers: answers.slice(0, limit) } : stats;
    },
  );
  app.delete(
    "/cache",
    {
      schema: {
        tags: ["cache"],
        summary: "Forget answers",
        description: [
          "Every answer, or those of a model, or those whose keys begin so; here, in Redis and in the servers that",
          "share it. The scope `admin` forgets those of every caller, `write` only your own.",
        ].join("\n"),
        operationId: "clearCache",
        querystring: Selection,
        response: { 200: Removal, ...problems(400) },
      },
    },
    async (request) => cache.remove({ ...request.query, ...ownOf(request) }),
  );
}

/** The answers that a caller may see and forget. Without keys everybody here is one and the same. */
function ownOf({ caller, isAdmin }: FastifyRequest): { readonly caller?: string } {
  return isAdmin ? {} : { caller };
}

function byModel(answers: readonly ListedAnswer[]) {
  const models = new Map<string, { model: string; entries: number; bytes: number; hits: number }>();
  for (const { model, bytes, hits } of answers) {
    const sum = models.get(model) ?? { model, entries: 0, bytes: 0, hits: 0 };
    models.set(model, {
      model,
      entries: sum.entries + 1,
      bytes: sum.bytes + bytes,
      hits: sum.hits + hits,
    });
  }
  return [...models.values()].sort((a, b) => b.bytes - a.bytes);
}
