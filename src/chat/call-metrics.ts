import { Counter, Gauge, Histogram } from "prom-client";
import type { App } from "../http/app.ts";
import type { Call, CallEnd, CallObserver } from "./complete.ts";
import type { Endpoint } from "./lm-studio/endpoints.ts";

/** Models that are told apart; a caller may name any, and each would be a series for ever. */
const modelsMax = 64;

const operationOf = {
  chat: "chat",
  text: "text_completion",
  embeddings: "embeddings",
  responses: "chat",
} satisfies Record<Endpoint, string>;

/**
 * Counts and times every call under OpenTelemetry's names for generative AI
 * (https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/), written as Prometheus writes them.
 */
export function callMetrics(app: App): CallObserver {
  const registers = [app.metrics];
  const underWay = new Gauge({
    name: "chat_calls_under_way",
    help: "Questions that wait for an answer or get one",
    registers,
  });
  const calls = new Counter({
    name: "chat_calls_total",
    help: "Questions to a model by route, outcome and what the cache said",
    labelNames: ["route", "outcome", "cache"] as const,
    registers,
  });
  const duration = new Histogram({
    name: "gen_ai_client_operation_duration_seconds",
    help: "Time of a call that had no answer of an earlier or identical one, queue and log included, seconds",
    labelNames: ["gen_ai_operation_name", "gen_ai_request_model", "error_type"] as const,
    buckets: [0.01, 0.04, 0.16, 0.64, 2.56, 10.24, 40.96, 163.84],
    registers,
  });
  const tokens = new Histogram({
    name: "gen_ai_client_token_usage",
    help: "Tokens of a prompt or an answer that a model worked on",
    labelNames: ["gen_ai_operation_name", "gen_ai_token_type", "gen_ai_request_model"] as const,
    buckets: [4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536],
    registers,
  });
  const firstToken = new Histogram({
    name: "gen_ai_server_time_to_first_token_seconds",
    help: "Time from a call's turn to its first token, seconds",
    labelNames: ["gen_ai_request_model"] as const,
    buckets: [0.01, 0.04, 0.16, 0.64, 2.56, 10.24, 40.96, 163.84],
    registers,
  });
  const perToken = new Histogram({
    name: "gen_ai_server_time_per_output_token_seconds",
    help: "Time between two tokens of an answer, seconds",
    labelNames: ["gen_ai_request_model"] as const,
    buckets: [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64],
    registers,
  });
  const overhead = new Histogram({
    name: "chat_overhead_seconds",
    help: "Time of a call that was neither the model's nor the queue's, seconds",
    labelNames: ["cache"] as const,
    buckets: [0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.032, 0.128],
    registers,
  });
  const models = new Set<string>();
  const known = (model: string) => {
    if (models.size < modelsMax) models.add(model);
    return models.has(model) ? model : "other";
  };

  return {
    began: () => underWay.inc(),
    ended: (call, end) => {
      underWay.dec();
      count(call, end);
    },
  };

  function count({ route, endpoint, body }: Call, end: CallEnd): void {
    const { outcome, timing, completion } = end;
    const { cache } = end.source;
    calls.inc({ route, outcome, cache });
    overhead.observe({ cache }, overheadMs(timing) / 1000);
    if (cache === "HIT" || cache === "JOINED") return;
    const model = known(body.model);
    const labels = { gen_ai_operation_name: operationOf[endpoint], gen_ai_request_model: model };
    duration.observe(outcome === "ok" ? labels : { ...labels, error_type: outcome }, timing.totalMs / 1000);
    const usage = completion?.usage;
    if (usage) {
      tokens.observe({ ...labels, gen_ai_token_type: "input" }, usage.prompt_tokens);
      tokens.observe({ ...labels, gen_ai_token_type: "output" }, usage.completion_tokens);
    }
    const { firstTokenMs, queuedMs = 0, upstreamMs } = timing;
    if (firstTokenMs === undefined || upstreamMs === undefined) return;
    firstToken.observe({ gen_ai_request_model: model }, (firstTokenMs - queuedMs) / 1000);
    const later = (usage?.completion_tokens ?? 0) - 1;
    if (later > 0) {
      const betweenMs = (upstreamMs - (firstTokenMs - queuedMs)) / later;
      perToken.observe({ gen_ai_request_model: model }, betweenMs / 1000);
    }
  }
}

/** What a call took of its own: all that was neither waiting for its turn nor for LM Studio. */
export function overheadMs({ totalMs, queuedMs = 0, upstreamMs = 0 }: CallEnd["timing"]): number {
  return Math.max(0, totalMs - queuedMs - upstreamMs);
}
