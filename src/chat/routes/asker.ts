import type { FastifyRequest } from "fastify";
import type { Static } from "typebox";
import type { Call } from "../complete.ts";
import { type CallHeaders, cachingOf, priorityOf } from "./schemas.ts";

/** What every call has from the request that it came by: who asks, for what, and what will do for an answer. */
export function askerOf(request: FastifyRequest, headers: Static<typeof CallHeaders>) {
  return {
    priority: priorityOf(headers),
    caller: request.caller,
    shownKey: request.shownKey,
    requestId: request.id,
    sessionId: headers["x-session-id"],
    runId: headers["x-run-id"],
    caching: cachingOf(headers["cache-control"]),
    log: request.log,
  } satisfies Partial<Call>;
}
