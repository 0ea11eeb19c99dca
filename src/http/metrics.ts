import { collectDefaultMetrics, Histogram, Registry } from "prom-client";
import { Type } from "typebox";
import type { App } from "./app.ts";

declare module "fastify" {
  interface FastifyInstance {
    /** Where a server registers the metrics of its own that `/metrics` shows. */
    metrics: Registry;
  }
}

/** Counts and times every request by method, route and status, and shows all metrics at `/metrics`. */
export function requestMetrics(app: App, name: string): void {
  const registry = new Registry();
  registry.setDefaultLabels({ service: name });
  collectDefaultMetrics({ register: registry });
  const seconds = new Histogram({
    name: "http_server_request_duration_seconds",
    help: "Time from the request's first byte to the answer's last, seconds",
    labelNames: ["method", "route", "status"] as const,
    buckets: [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60],
    registers: [registry],
  });
  app.decorate("metrics", registry);
  app.addHook("onResponse", (request, reply, done) => {
    const labels = {
      method: request.method,
      // An unknown path is one series, or any caller could make as many as it likes.
      route: request.routeOptions.url ?? "unknown",
      status: String(reply.statusCode),
    };
    seconds.observe(labels, reply.elapsedTime / 1000);
    done();
  });
  app.get(
    "/metrics",
    {
      schema: {
        tags: ["health"],
        summary: "Metrics in Prometheus' text format",
        operationId: "metrics",
        produces: ["text/plain"],
        response: { 200: Type.String() },
      },
    },
    async (_request, reply) => reply.type(registry.contentType).send(await registry.metrics()),
  );
}
