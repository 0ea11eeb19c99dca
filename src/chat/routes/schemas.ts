import { type Static, Type } from "typebox";
import type { Caching } from "../complete.ts";
import type { Priority } from "../queue.ts";

/** What can go wrong on the routes that ask a model; each status has several codes. */
export const callFailures: Readonly<Record<number, string>> = {
  400: "The request is wrong, or longer than the model's context",
  401: "A key is needed, or is not known",
  403: "The key lacks the scope, or the request came from elsewhere",
  404: "There is no such thing, or no such model",
  413: "The request is too large",
  415: "The request is not JSON",
  429: "The caller has used its tokens of the day, or too many questions wait already",
  502: "LM Studio answered with an error, or broke off",
  503: "LM Studio or the database is away, or too much is under way",
  504: "LM Studio has gone quiet, or `only-if-cached` found no answer",
};

/** Names of sessions. */
export const sessionPattern = "^[\\w.:-]{1,128}$";

/** Headers by which callers say what a question belongs to, and whether an old answer will do. */
export const CallHeaders = Type.Object({
  "x-run-id": Type.Optional(Type.String({ format: "uuid", description: "Run of the agent it belongs to" })),
  "x-session-id": Type.Optional(
    Type.String({ pattern: sessionPattern, description: "Conversation it belongs to" }),
  ),
  "cache-control": Type.Optional(
    Type.String({
      maxLength: 256,
      description:
        "`no-cache` or `max-age=0`: ask the model anew; `no-store`: and do not keep the answer; `max-age=N`: " +
        "no answer older than N seconds; `only-if-cached`: do not ask the model (504 where there is no answer)",
    }),
  ),
});

/** A run of the agent waits behind people. */
export function priorityOf(headers: Static<typeof CallHeaders>): Priority {
  return headers["x-run-id"] === undefined ? "people" : "agent";
}

/** What the request's Cache-Control asks for (RFC 9111). What is not known here is passed over. */
export function cachingOf(header = ""): Caching {
  const directives = header.split(",").map((directive) => directive.trim().toLowerCase());
  const stores = !directives.includes("no-store");
  const maxAgeS = Math.min(...directives.filter((name) => /^max-age(=|$)/.test(name)).map(secondsOf));
  return {
    read: stores && !directives.includes("no-cache") && maxAgeS > 0,
    write: stores,
    ...(Number.isFinite(maxAgeS) ? { maxAgeS } : {}),
    ...(directives.includes("only-if-cached") ? { onlyIfCached: true } : {}),
  };
}

/** Whoever cares for an answer's age, and says it wrongly, gets a new one. */
function secondsOf(directive: string): number {
  const [, seconds] = /^max-age="?(\d{1,10})"?$/.exec(directive) ?? [];
  return Number(seconds ?? 0);
}

export const Usage = Type.Object({
  prompt_tokens: Type.Integer(),
  completion_tokens: Type.Integer(),
  total_tokens: Type.Integer(),
  completion_tokens_details: Type.Optional(Type.Object({ reasoning_tokens: Type.Optional(Type.Integer()) })),
});

export const answerHeaders = {
  "x-interaction-id": Type.String({ format: "uuid", description: "Its entry in the log" }),
  "x-cache": Type.Enum(["HIT", "MISS", "JOINED", "BYPASS"], {
    description:
      "Whether it was there, was asked for, joined an identical question under way, or was to be new",
  }),
  "x-model": Type.String({ description: "The model that answered, where another one was asked" }),
  age: Type.Integer({ description: "Seconds since the model said it; only on a HIT" }),
  "server-timing": Type.String({
    description:
      "Milliseconds: queue, first-token, upstream, log, overhead (what the gateway itself took), total",
  }),
};
