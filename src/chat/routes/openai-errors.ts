import type { FastifyReply, FastifyRequest } from "fastify";
import { Type } from "typebox";
import { logProblem } from "../../http/app.ts";
import { toProblem } from "../../http/problem.ts";
import type { ChatErrorCode } from "../chat-error.ts";
import { blamedParam, openAiError } from "../openai-format.ts";
import { callFailures } from "./schemas.ts";

const OpenAiError = Type.Object({
  error: Type.Object({
    message: Type.String(),
    type: Type.String(),
    param: Type.Union([Type.String(), Type.Null()], {
      description: "The parameter to blame, such as messages[0].role",
    }),
    code: Type.String(),
  }),
});

/** Responses by which a route of OpenAI's API fails. */
export const openAiErrors = Object.fromEntries(
  Object.entries(callFailures).map(([status, description]) => [
    status,
    { description, content: { "application/json": { schema: OpenAiError } } },
  ]),
);

const meanings = {
  400: "The request is not what is described here",
  404: "You have no such thing",
  409: "Not in the state that it is in; trying again does not help",
  413: "Too large, or too much in all",
  415: "The body is of another media type",
  429: "Too many of them are under way",
  503: "The database does not answer; try again in a moment",
} satisfies Record<number, string>;

/** Response schemas for the failures of a route below `/v1`, in OpenAI's form. */
export function openAiFailures(...statuses: readonly (keyof typeof meanings)[]): Record<never, never> {
  return Object.fromEntries(
    statuses.map((status) => [
      status,
      { description: meanings[status], content: { "application/json": { schema: OpenAiError } } },
    ]),
  );
}

/** Of these nothing was tried here: to come again after `Retry-After` is what they ask for. */
const untried: ReadonlySet<string> = new Set<ChatErrorCode>(["queue-full", "chat-busy", "upstream-open"]);

/** Answers with the error in OpenAI's form. */
export function sendOpenAiError(
  error: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
  statusOf: Readonly<Record<string, number>>,
): FastifyReply {
  const problem = toProblem(error, request.id, statusOf);
  logProblem(error, request, problem);
  // These clients try again by themselves, on top of what was tried here.
  if (problem.status >= 500 || [409, 429].includes(problem.status)) {
    if (!untried.has(problem.code)) reply.header("x-should-retry", "false");
  }
  if (error instanceof Error && "retryAfterS" in error) {
    reply.header("retry-after", String(error.retryAfterS));
  }
  if (problem.status === 401) reply.header("www-authenticate", "Bearer");
  return reply
    .code(problem.status)
    .type("application/json; charset=utf-8")
    .send(JSON.stringify(openAiError(problem, blamedParam(error))));
}
