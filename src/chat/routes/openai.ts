import type { FastifyReply, FastifyRequest } from "fastify";
import { type Static, type TSchema, Type } from "typebox";
import { type App, jsonParser } from "../../http/app.ts";
import { EdgeError } from "../../http/problem.ts";
import { uuidv7 } from "../../http/uuid.ts";
import type { RouteParts } from "../app.ts";
import { askedBody } from "../asked-body.ts";
import type { Call } from "../complete.ts";
import { stopWhenGone } from "../event-stream.ts";
import type { Delta } from "../lm-studio/reasoning.ts";
import { ChunkWriter, completionJson, keptJson, openAiError } from "../openai-format.ts";
import { DeltaShaper, type ReasoningForm, shapedCompletion } from "../reasoning-form.ts";
import { SeenBodies, type SeenBody } from "../seen-bodies.ts";
import { setProvenance, streamAnswer } from "./answer-stream.ts";
import { setAnsweringModel } from "./answering-model.ts";
import { askerOf } from "./asker.ts";
import { embeddingsRoute } from "./embeddings.ts";
import { modelRoutes } from "./models.ts";
import { openAiErrors, sendOpenAiError } from "./openai-errors.ts";
import { responsesRoute } from "./responses.ts";
import { answerHeaders, CallHeaders, Usage } from "./schemas.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** Of a body that is not long. */
    bodyName: string | undefined;
    /** Where the same body was answered from the cache before. */
    seenBody: SeenBody | undefined;
  }
}

/** What these routes look at; every other parameter goes to LM Studio as it is. */
const common = {
  model: Type.Optional(Type.String({ minLength: 1, maxLength: 256, description: "Default DEEPSEEK_MODEL" })),
  max_tokens: Type.Optional(Type.Union([Type.Integer({ minimum: -1 }), Type.Null()])),
  stream: Type.Optional(Type.Union([Type.Boolean(), Type.Null()])),
  stream_options: Type.Optional(
    Type.Union([Type.Object({ include_usage: Type.Optional(Type.Boolean()) }), Type.Null()]),
  ),
};

export const ChatCompletionRequest = Type.Object({
  ...common,
  messages: Type.Array(Type.Object({ role: Type.String() }), { minItems: 1, maxItems: 2_000 }),
  max_completion_tokens: Type.Optional(Type.Union([Type.Integer({ minimum: -1 }), Type.Null()])),
  response_format: Type.Optional(Type.Union([Type.Object({ type: Type.String() }), Type.Null()])),
});

const Prompt = Type.String({ minLength: 1, maxLength: 400_000 });

export const TextCompletionRequest = Type.Object({
  ...common,
  prompt: Type.Union([Prompt, Type.Array(Prompt, { minItems: 1, maxItems: 1 })], {
    description: "LM Studio continues one prompt in a request",
  }),
});

const ChatHeaders = Type.Object({
  ...CallHeaders.properties,
  "x-reasoning": Type.Optional(
    Type.Enum(["separate", "inline", "drop"], {
      description:
        "Where the model's thinking goes: `reasoning_content` (default), `<think>…</think>` in the content, or nowhere",
    }),
  ),
});

const completionOf = (object: string, said: Record<string, TSchema>) =>
  Type.Object({
    id: Type.String(),
    object: Type.Literal(object),
    created: Type.Integer(),
    model: Type.String(),
    choices: Type.Array(
      Type.Object({
        index: Type.Integer(),
        ...said,
        logprobs: Type.Null(),
        finish_reason: Type.String(),
      }),
    ),
    usage: Type.Optional(Usage),
    system_fingerprint: Type.Optional(Type.String()),
  });

const ChatCompletion = completionOf("chat.completion", {
  message: Type.Object({
    role: Type.Literal("assistant"),
    content: Type.String(),
    reasoning_content: Type.String(),
    tool_calls: Type.Optional(
      Type.Array(
        Type.Object({
          id: Type.String(),
          type: Type.Literal("function"),
          function: Type.Object({ name: Type.String(), arguments: Type.String() }),
        }),
      ),
    ),
  }),
});
const TextCompletion = completionOf("text_completion", { text: Type.String() });

const answers = (schema: TSchema) => ({
  200: {
    description: "The answer; with `stream: true` its chunks, then `[DONE]`",
    headers: answerHeaders,
    content: { "application/json": { schema }, "text/event-stream": { schema: Type.String() } },
  },
  ...openAiErrors,
});

type Body = Static<typeof ChatCompletionRequest> & Record<string, unknown>;

/** OpenAI's API, for programs that know it: errors included. To be registered with the prefix `/v1`. */
export function openAiRoutes(app: App, parts: RouteParts): void {
  const seenBodies = new SeenBodies();
  app.decorateRequest("bodyName", undefined);
  app.decorateRequest("seenBody", undefined);
  app.removeContentTypeParser("application/json");
  const parse = jsonParser(app);
  app.addContentTypeParser("application/json", { parseAs: "buffer" }, (request, bytes, done) => {
    request.bodyName = seenBodies.nameOf(bytes as Buffer);
    request.seenBody = request.bodyName === undefined ? undefined : seenBodies.get(request.bodyName);
    if (request.seenBody) done(null, request.seenBody.parsed);
    else parse(request, bytes, done);
  });
  app.setErrorHandler((error, request, reply) => sendOpenAiError(error, request, reply, parts.statusOf));
  app.setNotFoundHandler((request) => {
    throw new EdgeError(
      "route-unknown",
      `Unknown request URL: ${request.method} below /v1; /docs lists what there is.`,
    );
  });

  app.post(
    "/chat/completions",
    {
      schema: {
        tags: ["openai"],
        summary: "Chat completion, as OpenAI's",
        operationId: "createChatCompletion",
        headers: ChatHeaders,
        body: ChatCompletionRequest,
        response: answers(ChatCompletion),
      },
    },
    (request, reply) => answer("chat", request.body as Body, request.headers, request, reply),
  );
  app.post(
    "/completions",
    {
      schema: {
        tags: ["openai"],
        summary: "Continuation of a raw prompt, as OpenAI's",
        operationId: "createCompletion",
        headers: CallHeaders,
        body: TextCompletionRequest,
        response: answers(TextCompletion),
      },
    },
    (request, reply) => answer("text", request.body as unknown as Body, request.headers, request, reply),
  );
  embeddingsRoute(app, parts);
  responsesRoute(app, parts);
  modelRoutes(app, parts);

  async function answer(
    endpoint: "chat" | "text",
    body: Body,
    headers: Static<typeof CallHeaders> & { readonly "x-reasoning"?: ReasoningForm },
    request: FastifyRequest,
    reply: FastifyReply,
  ) {
    const { bodyName, caller, shownKey, seenBody } = request;
    const isOwn = seenBody?.caller === caller && seenBody.shownKey === shownKey;
    const seen = isOwn && seenBody.endpoint === endpoint ? seenBody : undefined;
    const call: Call = {
      id: uuidv7(),
      route: endpoint === "chat" ? "/v1/chat/completions" : "/v1/completions",
      endpoint,
      ...askerOf(request, headers),
      body: seen?.body ?? askedBody(endpoint, body, parts.config),
      key: seen?.key,
      // A raw continuation is what the caller asked for, tags included.
      separates: endpoint === "chat",
      stop: stopWhenGone(reply),
      failed: (source, timing) => setProvenance(reply, source, timing),
    };
    reply.header("x-interaction-id", call.id);
    const form = headers["x-reasoning"] ?? "separate";
    if (body.stream) {
      const includeUsage = body.stream_options?.include_usage === true;
      return streamAnswer(
        request,
        reply,
        parts,
        call,
        (head) => {
          const writer = new ChunkWriter(endpoint, head);
          const shaper = new DeltaShaper(form);
          const write = (deltas: readonly Delta[]) => deltas.map((delta) => writer.delta(delta)).join("");
          return {
            delta: (delta) => (form === "separate" ? writer.delta(delta) : write(shaper.push(delta))),
            end: ({ completion }) => write(shaper.end()) + writer.end(completion, includeUsage),
          };
        },
        (problem) => `event: error\ndata: ${JSON.stringify(openAiError(problem))}\n\n`,
      );
    }
    const { completion, key, source, timing } = await parts.complete(call);
    setProvenance(reply, source, timing);
    setAnsweringModel(reply, call.body.model, completion.head.model);
    reply.type("application/json; charset=utf-8");
    if (source.cache !== "HIT" || form !== "separate") {
      return reply.send(completionJson(endpoint, shapedCompletion(form, completion)));
    }
    if (!seen && bodyName !== undefined) {
      seenBodies.keep(bodyName, { parsed: body, endpoint, caller, shownKey, body: call.body, key });
    }
    return reply.send(keptJson(endpoint, completion));
  }
}
