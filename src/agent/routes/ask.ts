import { Type } from "typebox";
import { type App, sendProblem } from "../../http/app.ts";
import { problems } from "../../http/problem.ts";
import { ChatProblem } from "../agent-error.ts";
import { type Answerer, answerQuestion } from "../answer.ts";
import { whileAwaited } from "./client.ts";

const Question = Type.Object(
  {
    question: Type.String({ minLength: 1, maxLength: 4000, pattern: "\\S", description: "in any language" }),
    model: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 256,
        description: "as LM Studio names it; default DEEPSEEK_MODEL",
      }),
    ),
  },
  { additionalProperties: false },
);

/** One call of a tool, as answers and the tool routes show it. */
const EvidenceItem = Type.Object({
  tool: Type.String(),
  arguments: Type.Unknown(),
  result: Type.Unknown({
    description: "what the model saw; {error: {code, detail}} where there was nothing",
  }),
});

const Answered = Type.Object({
  answer: Type.String(),
  grounded: Type.Boolean({
    description: "every number, time and name in the answer is in the evidence or in the question",
  }),
  evidence: Type.Array(EvidenceItem, { description: "what was looked up, in order" }),
  unsupported: Type.Array(Type.String(), {
    description: "what the answer says and nothing bears out, in its words",
  }),
  run_id: Type.String({ format: "uuid" }),
  interaction_ids: Type.Array(Type.String(), {
    description: "the model calls, as the chat server logged them",
  }),
  model: Type.String(),
});

/** `POST /ask`. A model call's own problems come out as the chat server puts them. */
export function askRoute(
  app: App,
  {
    defaultModel,
    timeoutMs,
    ...answerer
  }: Answerer & { readonly defaultModel: string; readonly timeoutMs: number },
): void {
  app.post(
    "/ask",
    {
      // Asking changes nothing.
      config: { scope: "read" },
      schema: {
        tags: ["questions"],
        operationId: "ask",
        summary: "Ask a question about what is tracked",
        description:
          "A model reads the store through the tools and answers. Read-only. The numbers, times and names of the " +
          "answer are checked against what the tools returned.",
        body: Question,
        response: {
          200: Answered,
          ...problems({
            400: "request-invalid, or the model's limits: context-length-exceeded",
            404: "model-not-found",
            502: "chat-refused, chat-invalid, model-no-answer, or what LM Studio did wrong",
            503: "database-away, chat-away, chat-busy, lm-studio-away, no-model-loaded: Retry-After says when to try again",
            504: "ask-timeout, upstream-timeout",
          }),
        },
      },
      errorHandler: (error, request, reply) => {
        if (!(error instanceof ChatProblem)) throw error;
        return sendProblem(error, request, reply, { [error.code]: error.status });
      },
    },
    async (request, reply) => {
      const { question, model = defaultModel } = request.body;
      const signal = whileAwaited(reply, timeoutMs);
      const answer = await answerQuestion(answerer, { question, model }, signal);
      const { run_id, grounded, evidence, unsupported, interaction_ids } = answer;
      request.log.info(
        {
          runId: run_id,
          model,
          grounded,
          unsupported: unsupported.length,
          tools: evidence.length,
          calls: interaction_ids.length,
        },
        "question answered",
      );
      return answer;
    },
  );
}
