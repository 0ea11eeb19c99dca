import { Counter, Gauge, type Registry } from "prom-client";
import type { AnswerCache } from "./answer-cache.ts";

/** Shows the cache's numbers as metrics, read when somebody looks. */
export function cacheMetrics(registry: Registry, cache: AnswerCache): void {
  const registers = [registry];
  new Gauge({
    name: "chat_cache_entries",
    help: "Answers in memory",
    registers,
    collect() {
      this.set(cache.stats.entries);
    },
  });
  new Gauge({
    name: "chat_cache_bytes",
    help: "Memory that answers take, as estimated",
    registers,
    collect() {
      this.set(cache.stats.bytes);
    },
  });
  new Counter({
    name: "chat_cache_lookups_total",
    help: "Questions that were looked up, by where an answer was",
    labelNames: ["found"] as const,
    registers,
    collect() {
      const { hits, misses, redis } = cache.stats;
      this.reset();
      this.inc({ found: "memory" }, hits - (redis?.hits ?? 0));
      this.inc({ found: "redis" }, redis?.hits ?? 0);
      this.inc({ found: "nowhere" }, misses);
    },
  });
  if (!cache.redis) return;
  new Gauge({
    name: "chat_cache_redis_ready",
    help: "1 where Redis is asked for answers, 0 where it is slow or away",
    registers,
    collect() {
      this.set(cache.stats.redis?.state === "ready" ? 1 : 0);
    },
  });
}
