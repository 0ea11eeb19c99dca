import { type Static, Type } from "typebox";
import type { App } from "../../http/app.ts";
import { uuidv7 } from "../../http/uuid.ts";
import { type FinalEvent, responseEvent } from "../answers/responses-answer.ts";
import type { RouteParts } from "../app.ts";
import { askedBody } from "../asked-body.ts";
import type { Call } from "../complete.ts";
import { stopWhenGone } from "../event-stream.ts";
import { openAiAnswer } from "../openai-answer.ts";
import { openAiError } from "../openai-format.ts";
import { setProvenance, streamAnswer, type Wording } from "./answer-stream.ts";
import { setAnsweringModel } from "./answering-model.ts";
import { askerOf } from "./asker.ts";
import { openAiErrors } from "./openai-errors.ts";
import { answerHeaders, CallHeaders } from "./schemas.ts";

const optional = <T extends Parameters<typeof Type.Optional>[0]>(schema: T) =>
  Type.Optional(Type.Union([schema, Type.Null()]));

/** What this route looks at; every other parameter goes to LM Studio as it is. */
export const ResponsesRequest = Type.Object({
  model: Type.Optional(Type.String({ minLength: 1, maxLength: 256, description: "Default DEEPSEEK_MODEL" })),
  input: Type.Union([
    Type.String({ minLength: 1, maxLength: 400_000 }),
    Type.Array(Type.Object({}), { minItems: 1, maxItems: 2_000 }),
  ]),
  max_output_tokens: optional(Type.Integer({ minimum: -1 })),
  previous_response_id: optional(
    Type.String({ maxLength: 256, description: "LM Studio keeps responses as long as it runs" }),
  ),
  store: optional(
    Type.Boolean({ description: "`false`: LM Studio keeps nothing, and the answer may come from the cache" }),
  ),
  stream: optional(Type.Boolean()),
  text: optional(Type.Object({})),
});

const Response = Type.Object(
  {
    id: Type.String(),
    object: Type.Literal("response"),
    model: Type.String(),
    status: Type.String(),
    output: Type.Array(Type.Object({ type: Type.String() })),
  },
  { description: "OpenAI's response object, as LM Studio gives it" },
);

type Body = Static<typeof ResponsesRequest> & Record<string, unknown>;

/** `POST /v1/responses`: LM Studio's events as they are, the last one held until the log has the answer. */
export function responsesRoute(app: App, parts: RouteParts): void {
  app.post(
    "/responses",
    {
      schema: {
        tags: ["openai"],
        summary: "Response, as OpenAI's",
        operationId: "createResponse",
        headers: CallHeaders,
        body: ResponsesRequest,
        response: {
          200: {
            description: "The response; with `stream: true` its events, `response.completed` last",
            headers: answerHeaders,
            content: {
              "application/json": { schema: Response },
              "text/event-stream": { schema: Type.String() },
            },
          },
          ...openAiErrors,
        },
      },
    },
    async (request, reply) => {
      const body = request.body as Body;
      const asker = askerOf(request, request.headers);
      const call: Call = {
        id: uuidv7(),
        route: "/v1/responses",
        endpoint: "responses",
        ...asker,
        body: askedBody("responses", body, parts.config),
        separates: false,
        caching: { ...asker.caching, ...(isStateless(body) ? {} : never) },
        stop: stopWhenGone(reply),
        failed: (source, timing) => setProvenance(reply, source, timing),
      };
      reply.header("x-interaction-id", call.id);
      if (body.stream) {
        let sent = 0;
        const wording: Wording = {
          delta: ({ event = "" }) => {
            sent += 1;
            return event;
          },
          end: ({ completion }) => {
            const final = completion.raw as FinalEvent;
            return responseEvent(final.type, final);
          },
        };
        return streamAnswer(
          request,
          reply,
          parts,
          call,
          () => wording,
          (problem) => {
            const { message, code, param } = openAiError(problem).error;
            return responseEvent("error", { type: "error", code, message, param, sequence_number: sent });
          },
        );
      }
      const { completion, source, timing } = await parts.complete(call);
      setProvenance(reply, source, timing);
      setAnsweringModel(reply, call.body.model, completion.head.model);
      return reply.type("application/json; charset=utf-8").send(openAiAnswer("responses", completion));
    },
  );
}

const never = { read: false, write: false };

/**
 * True for a request whose answer is nothing but its answer. A response that LM Studio keeps, which is the
 * default, has an id that the next one goes on from: given out twice, and after LM Studio has forgotten it, it
 * would lead nowhere. A remote tool may have done something in the world.
 */
export function isStateless({
  store,
  previous_response_id,
  conversation,
  tools,
}: Record<string, unknown>): boolean {
  const callsOut = Array.isArray(tools) && tools.some((tool) => tool?.type !== "function");
  return store === false && !previous_response_id && !conversation && !callsOut;
}
