import { Type } from "typebox";
import type { App } from "../../http/app.ts";
import type { RouteParts } from "../app.ts";

const CacheStats = Type.Object({
  entries: Type.Integer(),
  bytes: Type.Integer({ description: "Estimated" }),
  bytes_max: Type.Integer(),
  ttl_s: Type.Number({ description: "0: the cache is off" }),
  hits: Type.Integer(),
  misses: Type.Integer(),
});

/** `GET` and `DELETE /cache`: what answers are kept, and forgetting them. */
export function cacheRoutes(app: App, { cache }: RouteParts): void {
  app.get(
    "/cache",
    {
      schema: {
        tags: ["cache"],
        summary: "What the cache holds",
        operationId: "cacheStats",
        response: { 200: CacheStats },
      },
    },
    async () => cache.stats,
  );
  app.delete(
    "/cache",
    {
      schema: {
        tags: ["cache"],
        summary: "Forget every answer",
        operationId: "clearCache",
        response: { 200: Type.Object({ removed: Type.Integer() }) },
      },
    },
    async () => ({ removed: cache.remove({}) }),
  );
}
