import { v7 as uuidv7 } from "uuid";
import type { Pool } from "../store/pool.ts";
import { AgentError, ChatProblem } from "./agent-error.ts";
import { type Chat, chatErrorOf } from "./chat.ts";
import type { Evidence } from "./evidence.ts";
import { checkGrounding } from "./grounding/grounding.ts";
import { answerNatively } from "./native.ts";
import { answerByPlan } from "./planner.ts";
import { nowText } from "./prompts.ts";
import type { Tool } from "./tool.ts";
import { asRecorded, Toolbox } from "./toolbox.ts";

export interface Answerer {
  readonly pool: Pool;
  readonly chat: Chat;
  readonly tools: readonly Tool[];
  readonly toolMode: "auto" | "native" | "planner";
  readonly replyTokensMax: number;
  readonly now: () => Date;
}

export interface Answer {
  readonly answer: string;
  readonly grounded: boolean;
  readonly evidence: Evidence[];
  readonly unsupported: string[];
  readonly run_id: string;
  readonly interaction_ids: string[];
  readonly model: string;
}

/**
 * Answers one question: lets the model call tools, natively or by plan, and checks what it then says against
 * what they returned. Where the model reads but never answers, the rows themselves are the answer.
 *
 * Throws `ChatProblem` for a refusal of the chat server, `AgentError` `chat-…`, or `model-no-answer` where
 * nothing was read either, `StoreError` `database-away`, and the signal's reason once that is aborted.
 */
export async function answerQuestion(
  answerer: Answerer,
  { question, model }: { readonly question: string; readonly model: string },
  signal: AbortSignal,
): Promise<Answer> {
  const { chat, tools, pool } = answerer;
  const runId = uuidv7();
  const run = chat.run(runId);
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  const toolbox = new Toolbox(tools, { pool, signal: either }, (error) => failed.abort(error));
  const now = answerer.now();
  const native = await isNative(answerer, model, either);
  const said = await (native ? answerNatively : answerByPlan)({
    question,
    model: run.model(model),
    tools,
    toolbox,
    now,
    replyTokensMax: answerer.replyTokensMax,
    signal: either,
  }).catch((error: unknown) => {
    signal.throwIfAborted();
    const failure = toolbox.failure ?? chatErrorOf(error);
    // What was read is too much for the model's context, and still an answer to the one who asked.
    if (isOverflow(failure) && toolbox.evidence.length > 0) return undefined;
    throw failure;
  });
  signal.throwIfAborted();

  const answer = said === undefined ? tellEvidence(tools, toolbox.evidence) : asRecorded(said);
  const { evidence } = toolbox;
  return {
    answer,
    ...checkGrounding(answer, evidence, [question, nowText(now)]),
    evidence,
    run_id: runId,
    interaction_ids: run.interactionIds,
    model,
  };
}

function isOverflow(error: unknown): boolean {
  return error instanceof ChatProblem && error.code === "context-length-exceeded";
}

async function isNative({ chat, toolMode }: Answerer, model: string, signal: AbortSignal): Promise<boolean> {
  if (toolMode !== "auto") return toolMode === "native";
  return (await chat.capabilitiesOf(model, signal)).includes("tool_use");
}

/** The rows in sentences, for when no model says anything about them. */
function tellEvidence(tools: readonly Tool[], evidence: readonly Evidence[]): string {
  const told = evidence.flatMap(({ tool: name, result }) => {
    if (typeof result === "object" && result !== null && "error" in result) {
      return [(result.error as { detail: string }).detail];
    }
    const tool = tools.find((candidate) => candidate.name === name);
    return tool ? [tool.tell(result as never)] : [];
  });
  if (told.length === 0) {
    throw new AgentError(
      "model-no-answer",
      "The model gave no usable answer and looked nothing up; ask again, or another model.",
    );
  }
  return told.join("\n");
}
