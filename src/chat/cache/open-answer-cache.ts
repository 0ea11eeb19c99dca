import type { Config } from "../../config/config.ts";
import { AnswerCache } from "./answer-cache.ts";
import type { Log } from "./redis-connection.ts";

/** The cache that the settings ask for. It does not wait for Redis. */
export async function openAnswerCache(
  { CACHE_TTL, CACHE_MAX_MB, REDIS_URL }: Config,
  log: Log,
): Promise<AnswerCache> {
  const ttlMs = CACHE_TTL * 1000;
  const bytesMax = CACHE_MAX_MB * 1024 * 1024;
  if (REDIS_URL === undefined || ttlMs === 0) return new AnswerCache({ ttlMs, bytesMax });
  // Loading Redis' library takes 0.1 s, which a start without Redis does not have to wait for.
  const { RedisTier } = await import("./redis-tier.ts");
  const redis = new RedisTier({
    url: REDIS_URL,
    ttlMs,
    log,
    onRemoved: (selection) => cache.removedElsewhere(selection),
  });
  const cache = new AnswerCache({ ttlMs, bytesMax, redis });
  return cache;
}
