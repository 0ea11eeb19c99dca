import type { FastifyRequest } from "fastify";
import { type Static, Type } from "typebox";
import type { App } from "../../http/app.ts";
import { problems, toProblem } from "../../http/problem.ts";
import { uuidv7 } from "../../http/uuid.ts";
import type { RouteParts } from "../app.ts";
import type { Call } from "../complete.ts";
import { stopWhenGone } from "../event-stream.ts";
import { tokensWithin } from "../token-limit.ts";
import { askerOf } from "./asker.ts";
import { CallHeaders, callFailures, Usage } from "./schemas.ts";

const promptsMax = 1_000;
/** Prompts asked at once: as many as LM Studio takes without making people wait for longer. */
const promptsAtOnce = 4;

const prompt = Type.String({ minLength: 1, maxLength: 400_000 });
const parameters = {
  system: Type.Optional(Type.String({ maxLength: 100_000, description: "Instructions for the model" })),
  max_tokens: Type.Optional(
    Type.Integer({ minimum: 1, description: "At most CHAT_MAX_TOKENS, which is also the default" }),
  ),
  temperature: Type.Optional(Type.Number({ minimum: 0, maximum: 2 })),
};

const ChatBatchRequest = Type.Object(
  {
    prompts: Type.Array(
      Type.Union([prompt, Type.Object({ prompt, ...parameters }, { additionalProperties: false })]),
      {
        minItems: 1,
        maxItems: promptsMax,
        description: "Texts, or objects whose parameters go before the common ones",
      },
    ),
    ...parameters,
    model: Type.Optional(
      Type.String({ minLength: 1, maxLength: 256, description: "Default DEEPSEEK_MODEL" }),
    ),
  },
  { additionalProperties: false },
);

const Result = Type.Object({
  index: Type.Integer({ description: "Of the prompt, from 0" }),
  interaction_id: Type.String({ format: "uuid" }),
  response: Type.Optional(Type.String({ description: "Absent where there is an error" })),
  reasoning: Type.Optional(Type.String({ description: "The model's thinking, where it showed any" })),
  model: Type.Optional(Type.String()),
  cached: Type.Optional(Type.Boolean()),
  finish_reason: Type.Optional(Type.String()),
  usage: Type.Optional(Usage),
  processing_time_ms: Type.Optional(Type.Number()),
  error: Type.Optional(Type.Object({ code: Type.String(), status: Type.Integer(), detail: Type.String() })),
});

type Result = Static<typeof Result>;
type Prompt = Static<typeof ChatBatchRequest>["prompts"][number];

/** `POST /chat/batch`: many questions in plain words, answered together. */
export function chatBatchRoute(app: App, parts: RouteParts): void {
  app.post(
    "/chat/batch",
    {
      schema: {
        tags: ["chat"],
        summary: "Ask the model many things",
        description:
          "Answers in the order of the prompts, when all are there; a prompt that fails has its error in its place. " +
          "The work ends when the caller leaves. For more, or what may take hours: `/v1/batches`.",
        operationId: "chatBatch",
        headers: CallHeaders,
        body: ChatBatchRequest,
        response: { 200: Type.Object({ results: Type.Array(Result) }), ...problems(callFailures) },
      },
    },
    async (request, reply) => {
      const { prompts, ...common } = request.body;
      const { signal } = stopWhenGone(reply);
      const results: Result[] = [];
      const queue = prompts.entries();
      // Several take turns at one list.
      const asker = async () => {
        for (const [index, each] of queue) {
          results[index] = await ask(index, each, common, request, signal);
          signal.throwIfAborted();
        }
      };
      await Promise.all(Array.from({ length: promptsAtOnce }, asker));
      return { results };
    },
  );

  async function ask(
    index: number,
    each: Prompt,
    common: Omit<Static<typeof ChatBatchRequest>, "prompts">,
    request: FastifyRequest,
    signal: AbortSignal,
  ): Promise<Result> {
    const id = uuidv7();
    // Each call has a switch of its own: one that LM Studio lets down ends alone.
    const stop = new AbortController();
    const leave = () => stop.abort(signal.reason);
    if (signal.aborted) leave();
    signal.addEventListener("abort", leave);
    try {
      const asked = { ...common, ...(typeof each === "string" ? { prompt: each } : each) };
      const { completion, source, timing } = await parts.complete(callOf(id, asked, request, stop, parts));
      return {
        index,
        interaction_id: id,
        response: completion.text,
        ...(completion.reasoning ? { reasoning: completion.reasoning } : {}),
        model: completion.head.model,
        cached: source.cache === "HIT",
        finish_reason: completion.finishReason,
        ...(completion.usage ? { usage: completion.usage } : {}),
        processing_time_ms: Math.round(timing.totalMs * 1000) / 1000,
      };
    } catch (error) {
      const { code, status, detail } = toProblem(error, request.id, parts.statusOf);
      if (code === "internal") request.log.error({ err: error, index }, "prompt of a batch failed");
      return { index, interaction_id: id, error: { code, status, detail } };
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }
}

interface Asked {
  readonly prompt: string;
  readonly system?: string;
  readonly max_tokens?: number;
  readonly temperature?: number;
  readonly model?: string;
}

/** Throws `ChatError` `max-tokens-exceeded`. */
function callOf(
  id: string,
  { prompt: content, system, max_tokens, temperature, model }: Asked,
  request: FastifyRequest,
  stop: AbortController,
  { config }: RouteParts,
): Call {
  const headers = request.headers as Static<typeof CallHeaders>;
  return {
    id,
    route: "/chat/batch",
    endpoint: "chat",
    ...askerOf(request, headers),
    priority: "batch",
    body: {
      model: model ?? config.DEEPSEEK_MODEL,
      messages: [
        ...(system === undefined ? [] : [{ role: "system", content: system }]),
        { role: "user", content },
      ],
      max_tokens: tokensWithin(max_tokens, config.CHAT_MAX_TOKENS, "max_tokens"),
      ...(temperature === undefined ? {} : { temperature }),
    },
    separates: true,
    stop,
  };
}
