import { generateText, isStepCount, jsonSchema, tool as sdkTool, type ToolSet } from "ai";
import type { ChatRun } from "./chat.ts";
import { closingPrompt, rules, withoutLengths } from "./prompts.ts";
import { withoutThinking } from "./thinking.ts";
import type { Tool } from "./tool.ts";
import type { Toolbox } from "./toolbox.ts";

/** What both ways of calling tools need. */
export interface Assignment {
  readonly question: string;
  readonly model: ReturnType<ChatRun["model"]>;
  readonly tools: readonly Tool[];
  readonly toolbox: Toolbox;
  readonly now: Date;
  readonly replyTokensMax: number;
  readonly signal: AbortSignal;
}

const stepsMax = 6;

/**
 * Has a model that calls tools natively answer. It may call several at once, six times over; if it then still
 * has no answer, it is asked once more without tools. Gives undefined where it never answers.
 */
export async function answerNatively(assignment: Assignment): Promise<string | undefined> {
  const { question, model, tools, toolbox, now, replyTokensMax, signal } = assignment;
  const settings = {
    model,
    instructions: rules(now),
    temperature: 0,
    maxOutputTokens: replyTokensMax,
    // The chat server retries where that can help.
    maxRetries: 0,
    abortSignal: signal,
  };
  const { text } = await generateText({
    ...settings,
    prompt: question,
    tools: toolSet(tools, toolbox),
    stopWhen: isStepCount(stepsMax),
  });
  const answer = answerIn(text);
  if (answer !== undefined) return answer;
  // Not `toolChoice: "none"`: a model that calls a tool all the same would make the SDK throw.
  const closing = await generateText({ ...settings, prompt: closingPrompt(question, toolbox.evidence) });
  return answerIn(closing.text);
}

function toolSet(tools: readonly Tool[], toolbox: Toolbox): ToolSet {
  return Object.fromEntries(
    tools.map((tool) => [
      tool.name,
      sdkTool({
        description: tool.description,
        inputSchema: jsonSchema(withoutLengths(tool.arguments)),
        execute: (args: unknown) => toolbox.call(tool.name, args),
      }),
    ]),
  );
}

/** LM Studio leaves a call that it cannot parse in the text; that is no answer. */
function answerIn(text: string): string | undefined {
  const answer = withoutThinking(text);
  return answer === "" || answer.includes("[TOOL_REQUEST]") ? undefined : answer;
}
