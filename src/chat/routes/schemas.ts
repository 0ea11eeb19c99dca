import { Type } from "typebox";

/** What can go wrong on the routes that ask a model; each status has several codes. */
export const callFailures: Readonly<Record<number, string>> = {
  400: "The request is wrong, or longer than the model's context",
  401: "A key is needed, or is not known",
  403: "The key lacks the scope, or the request came from elsewhere",
  404: "There is no such thing, or no such model",
  413: "The request is too large",
  415: "The request is not JSON",
  502: "LM Studio answered with an error, or broke off",
  503: "LM Studio or the database is away, or too much is under way",
  504: "LM Studio has gone quiet",
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
      description: "`no-cache` or `max-age=0`: ask the model anew; `no-store`: and do not keep the answer",
    }),
  ),
});

/** What the request's Cache-Control asks for. */
export function cachingOf(header = ""): "use" | "fresh" | "none" {
  const directives = header.split(",").map((directive) => directive.trim().toLowerCase());
  if (directives.includes("no-store")) return "none";
  return directives.includes("no-cache") || directives.includes("max-age=0") ? "fresh" : "use";
}

export const Usage = Type.Object({
  prompt_tokens: Type.Integer(),
  completion_tokens: Type.Integer(),
  total_tokens: Type.Integer(),
  completion_tokens_details: Type.Optional(Type.Object({ reasoning_tokens: Type.Optional(Type.Integer()) })),
});

export const answerHeaders = {
  "x-interaction-id": Type.String({ format: "uuid", description: "Its entry in the log" }),
  "x-cache": Type.Enum(["HIT", "MISS", "BYPASS"], { description: "What the cache said" }),
  age: Type.Integer({ description: "Seconds since the model said it; only on a HIT" }),
};
