import { request } from "node:http";
import { text } from "node:stream/consumers";
import { Type } from "typebox";
import type { App } from "../../http/app.ts";
import { problems } from "../../http/problem.ts";
import { ApiError } from "../api-error.ts";
import { Time } from "../schemas.ts";

const timeoutMs = 2_000;

const Service = Type.Object(
  {
    name: Type.String(),
    kind: Type.String(),
    state: Type.String(),
    since: Type.Optional(Time("when it entered this state")),
    pid: Type.Optional(Type.Union([Type.Integer(), Type.Null()])),
    port: Type.Optional(Type.Union([Type.Integer(), Type.Null()])),
    restarts: Type.Optional(Type.Integer()),
  },
  { additionalProperties: true },
);

/** How the station is doing, as its process manager says. */
export function systemRoutes(app: App, { controlSocket }: { readonly controlSocket: string }): void {
  app.get(
    "/api/v1/system/services",
    {
      schema: {
        tags: ["system"],
        operationId: "listServices",
        summary: "The services of this station and their states",
        description: "What `pugmark status --json` prints. 503 `manager-away` where no process manager runs.",
        response: {
          200: Type.Object({ services: Type.Array(Service) }, { additionalProperties: true }),
          ...problems(503),
        },
      },
    },
    async () => {
      return JSON.parse(await askManager(controlSocket, "/services"));
    },
  );

  app.get(
    "/api/v1/system/metrics",
    {
      schema: {
        tags: ["system"],
        operationId: "systemMetrics",
        summary: "What is measured of this station's services and their manager",
        description:
          "Prometheus' text format, as `pugmark metrics` prints it. 503 `manager-away` where no process manager runs.",
        produces: ["text/plain"],
        response: { 200: Type.String(), ...problems(503) },
      },
    },
    async (_request, reply) =>
      reply
        .type("text/plain; version=0.0.4; charset=utf-8")
        .send(await askManager(controlSocket, "/metrics")),
  );
}

/** What the manager answers; throws `manager-away`. */
async function askManager(socketPath: string, path: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const asking = request(
    { socketPath, path, headers: { host: "localhost" }, signal: AbortSignal.timeout(timeoutMs) },
    (response) => {
      if (response.statusCode === 200) text(response).then(resolve, reject);
      else reject(new Error(`the manager answered ${response.statusCode}`));
    },
  );
  asking.on("error", reject).end();
  return await promise.catch((cause: unknown) => {
    throw new ApiError("manager-away", "No process manager runs this station.", { cause, retryAfterS: 2 });
  });
}
