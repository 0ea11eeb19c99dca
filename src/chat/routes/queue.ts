import { Gauge } from "prom-client";
import { Type } from "typebox";
import type { App } from "../../http/app.ts";
import type { RouteParts } from "../app.ts";
import { priorities } from "../queue.ts";

const Breaker = Type.Enum(["closed", "open", "half-open"], {
  description: "open: the model is left alone; half-open: one question may try it",
});

const Model = Type.Object({
  model: Type.String(),
  state: Type.Optional(Type.String({ description: "loaded, not-loaded or loading, where LM Studio says" })),
  slots: Type.Integer({ description: "Questions that it takes at once, once it is loaded" }),
  active: Type.Integer({ description: "Questions under way" }),
  breaker: Breaker,
  failures: Type.Optional(Type.Integer({ description: "In a row" })),
  last_failure: Type.Optional(Type.String()),
  open_for_ms: Type.Optional(Type.Integer({ description: "Until one question may try it" })),
});

const Waiting = Type.Object({
  position: Type.Integer({ description: "Among those for the same model, from 1" }),
  priority: Type.Enum([...priorities]),
  caller: Type.String(),
  model: Type.String(),
  request_id: Type.String(),
  waited_ms: Type.Integer(),
  estimated_wait_ms: Type.Union([Type.Integer(), Type.Null()], {
    description: "From how long answers of the model took; null before the first",
  }),
});

const Status = Type.Object({
  upstreams: Type.Array(
    Type.Object({
      url: Type.String(),
      healthy: Type.Boolean(),
      detail: Type.Optional(Type.String({ description: "Why it is not" })),
      active: Type.Integer({ description: "Questions under way" }),
      models: Type.Array(Model),
    }),
  ),
  queue: Type.Object({
    length: Type.Integer(),
    length_max: Type.Integer(),
    by_priority: Type.Object({ people: Type.Integer(), agent: Type.Integer(), batch: Type.Integer() }),
    waiting: Type.Array(Waiting, { description: "Those for one model stand together, in their order" }),
  }),
});

/** `GET /queue`: who waits for what, and how every LM Studio is. The same in figures for Prometheus. */
export function queueRoute(app: App, { upstreams }: Pick<RouteParts, "upstreams">): void {
  app.get(
    "/queue",
    {
      schema: {
        tags: ["chat"],
        summary: "Who waits for a model, and the state of every LM Studio",
        description: "What is known at this moment: asks no LM Studio.",
        operationId: "queue",
        response: { 200: Status },
      },
    },
    async () => upstreams.status(),
  );
  gauges(app, upstreams);
}

/** Read when `/metrics` is: nothing is counted on the way of a question. */
function gauges({ metrics }: App, upstreams: RouteParts["upstreams"]): void {
  const registers = [metrics];
  new Gauge({
    name: "chat_queue_length",
    help: "Questions that wait for a model, by priority",
    labelNames: ["priority"] as const,
    registers,
    collect() {
      const { by_priority: lengths } = upstreams.status().queue;
      for (const priority of priorities) this.set({ priority }, lengths[priority]);
    },
  });
  new Gauge({
    name: "chat_upstream_active",
    help: "Questions under way at an LM Studio",
    labelNames: ["upstream"] as const,
    registers,
    collect() {
      for (const { url, active } of upstreams.status().upstreams) this.set({ upstream: url }, active);
    },
  });
  new Gauge({
    name: "chat_upstream_healthy",
    help: "1 where an LM Studio answers",
    labelNames: ["upstream"] as const,
    registers,
    collect() {
      for (const { url, healthy } of upstreams.status().upstreams)
        this.set({ upstream: url }, healthy ? 1 : 0);
    },
  });
  new Gauge({
    name: "chat_breaker_state",
    help: "0 closed, 1 half-open, 2 open; only models that failed are shown",
    labelNames: ["upstream", "model"] as const,
    registers,
    collect() {
      // Callers may name any model: those that went well make no series.
      this.reset();
      for (const { url, models } of upstreams.status().upstreams) {
        for (const { model, breaker, failures } of models) {
          if (failures) this.set({ upstream: url, model }, breakerValues[breaker]);
        }
      }
    },
  });
}

const breakerValues = { closed: 0, "half-open": 1, open: 2 } as const;
