import type { FastifyReply, FastifyRequest } from "fastify";
import { type Static, Type } from "typebox";
import type { App } from "../../http/app.ts";
import { problems } from "../../http/problem.ts";
import { uuidv7 } from "../../http/uuid.ts";
import type { RouteParts } from "../app.ts";
import type { Answer, Call, Source, Timing } from "../complete.ts";
import { stopWhenGone } from "../event-stream.ts";
import { type Continued, continueSession, messagesOf } from "../session.ts";
import { tokensWithin } from "../token-limit.ts";
import { setProvenance, streamAnswer, type Wording } from "./answer-stream.ts";
import { askerOf } from "./asker.ts";
import { answerHeaders, CallHeaders, callFailures, sessionPattern, Usage } from "./schemas.ts";

const stopText = Type.String({ minLength: 1, maxLength: 256 });

const ChatRequest = Type.Object(
  {
    prompt: Type.String({ minLength: 1, maxLength: 400_000 }),
    system: Type.Optional(Type.String({ maxLength: 100_000, description: "Instructions for the model" })),
    max_tokens: Type.Optional(
      Type.Integer({ minimum: 1, description: "At most CHAT_MAX_TOKENS, which is also the default" }),
    ),
    temperature: Type.Optional(Type.Number({ minimum: 0, maximum: 2 })),
    top_p: Type.Optional(Type.Number({ minimum: 0, maximum: 1 })),
    seed: Type.Optional(Type.Integer({ description: "Not every runtime of LM Studio heeds it" })),
    stop: Type.Optional(
      Type.Union([stopText, Type.Array(stopText, { minItems: 1, maxItems: 4 })], {
        description: "Ends the answer before one of these texts",
      }),
    ),
    response_format: Type.Optional(
      Type.Object(
        {
          type: Type.Literal("json_schema"),
          json_schema: Type.Object({
            name: Type.Optional(Type.String({ maxLength: 64 })),
            schema: Type.Record(Type.String(), Type.Unsafe<unknown>({})),
            strict: Type.Optional(Type.Boolean()),
          }),
        },
        { additionalProperties: false, description: "Has the response be JSON of this schema" },
      ),
    ),
    session_id: Type.Optional(
      Type.String({
        pattern: sessionPattern,
        description: "Any name; as much of the conversation of that name goes along as the context holds",
      }),
    ),
    session_overflow: Type.Optional(
      Type.Enum(["drop", "summarise"], {
        description:
          "What becomes of the oldest turns that do not fit: left out (default), or summed up by the model",
      }),
    ),
    stream: Type.Optional(Type.Boolean({ description: "Answer as server-sent events" })),
    model: Type.Optional(
      Type.String({ minLength: 1, maxLength: 256, description: "Default DEEPSEEK_MODEL" }),
    ),
    raw: Type.Optional(
      Type.Boolean({
        description: "Continue the prompt as it is, without the model's template or a session",
      }),
    ),
  },
  { additionalProperties: false },
);

const ChatAnswer = Type.Object({
  response: Type.String({ description: "Empty where the tokens ran out while the model was thinking" }),
  reasoning: Type.Optional(Type.String({ description: "The model's thinking, where it showed any" })),
  model: Type.String({ description: "The model that answered" }),
  cached: Type.Boolean(),
  finish_reason: Type.String({ description: "`stop`, or `length` where max_tokens ended it" }),
  usage: Type.Union([Usage, Type.Null()]),
  processing_time_ms: Type.Number(),
  interaction_id: Type.String({ format: "uuid" }),
  session_id: Type.Optional(Type.String()),
  session: Type.Optional(
    Type.Object({
      turns: Type.Integer({ description: "Earlier turns that were sent along word for word" }),
      summarised: Type.Integer({ description: "Turns before those that a summary stood for" }),
      dropped: Type.Integer({ description: "Turns before those that were left out" }),
    }),
  ),
});

const description = [
  "Asks the model one thing. With `stream: true` the answer comes as server-sent events: `token` and `reasoning`",
  "(`{text}`), then `done` with the same object as without streaming, or `error` with a problem. A stream",
  "without `done` is not a whole answer. When the answer is there, its entry in the log is on disk.",
].join("\n");

type ChatRequest = Static<typeof ChatRequest>;
type Headers = Static<typeof CallHeaders>;

/** `POST /chat`: a question in plain words. */
export function chatRoute(app: App, parts: RouteParts): void {
  app.post(
    "/chat",
    {
      schema: {
        tags: ["chat"],
        summary: "Ask the model",
        description,
        operationId: "chat",
        headers: CallHeaders,
        body: ChatRequest,
        response: {
          200: {
            description: "The answer",
            headers: answerHeaders,
            content: {
              "application/json": { schema: ChatAnswer },
              "text/event-stream": { schema: Type.String() },
            },
          },
          ...problems(callFailures),
        },
      },
    },
    async (request, reply) => {
      const { body } = request;
      const { call, session } = await callOf(body, request.headers, request, reply, parts);
      reply.header("x-interaction-id", call.id);
      const answerOf = (answer: Answer) => chatAnswer(call, session, answer);
      if (body.stream) {
        const wording: Wording = {
          delta: ({ text, reasoning }) =>
            text === undefined
              ? reasoning === undefined
                ? ""
                : event("reasoning", { text: reasoning })
              : event("token", { text }),
          end: (answer) => event("done", answerOf(answer)),
        };
        return streamAnswer(
          request,
          reply,
          parts,
          call,
          () => wording,
          (problem) => event("error", problem),
        );
      }
      const answer = await parts.complete(call);
      setProvenance(reply, answer.source, answer.timing);
      return reply.type("application/json; charset=utf-8").send(JSON.stringify(answerOf(answer)));
    },
  );
}

async function callOf(
  body: ChatRequest,
  headers: Headers,
  request: FastifyRequest,
  reply: FastifyReply,
  parts: RouteParts,
): Promise<{ call: Call; session?: Continued["session"] }> {
  const { config } = parts;
  const model = body.model ?? config.DEEPSEEK_MODEL;
  const maxTokens = tokensWithin(body.max_tokens, config.CHAT_MAX_TOKENS, "max_tokens");
  const { system, prompt, session_overflow: overflow = "drop" } = body;
  const sessionId = body.raw ? undefined : (body.session_id ?? headers["x-session-id"]);
  const call = {
    id: uuidv7(),
    route: "/chat",
    endpoint: body.raw ? "text" : "chat",
    ...askerOf(request, headers),
    sessionId,
    separates: true,
    stop: stopWhenGone(reply),
    failed: (source: Source, timing: Timing) => setProvenance(reply, source, timing),
  } as const;
  const continued =
    sessionId === undefined
      ? undefined
      : await continueSession(parts, { ...call, sessionId, model, system, prompt, maxTokens, overflow });
  const asked = body.raw
    ? { prompt: promptOf(body) }
    : { messages: continued?.messages ?? messagesOf(system ?? "", [], prompt) };
  const { temperature, top_p, seed, stop, response_format } = body;
  const given = Object.entries({ temperature, top_p, seed, stop, response_format });
  return {
    call: {
      ...call,
      body: {
        model,
        ...asked,
        max_tokens: maxTokens,
        ...Object.fromEntries(given.filter(([, value]) => value !== undefined)),
      },
    },
    ...(continued ? { session: continued.session } : {}),
  };
}

/** Without a template, instructions can only stand in front. */
function promptOf({ system, prompt }: ChatRequest): string {
  return system === undefined ? prompt : `${system}\n\n${prompt}`;
}

function chatAnswer(
  call: Call,
  session: Continued["session"] | undefined,
  { completion, source, timing }: Answer,
): Static<typeof ChatAnswer> {
  const { text, reasoning, head, finishReason, usage } = completion;
  return {
    response: text,
    ...(reasoning ? { reasoning } : {}),
    model: head.model,
    cached: source.cache === "HIT",
    finish_reason: finishReason,
    usage: usage ?? null,
    processing_time_ms: Math.round(timing.totalMs * 1000) / 1000,
    interaction_id: call.id,
    ...(call.sessionId === undefined ? {} : { session_id: call.sessionId }),
    ...(session ? { session } : {}),
  };
}

function event(name: string, data: unknown): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}
