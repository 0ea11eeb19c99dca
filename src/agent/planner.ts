import { type Static, type TSchema, Type } from "typebox";
import { Check } from "typebox/value";
import type { Assignment } from "./native.ts";
import { planningRules, rules, withoutLengths } from "./prompts.ts";
import { withoutThinking } from "./thinking.ts";
import type { Tool } from "./tool.ts";

const turnsMax = 6;

/**
 * Has a model without tool calls answer, by turns in JSON whose schema LM Studio enforces. A wrong call or an
 * unreadable turn is told to the model; the second unreadable turn in a row ends it. Gives undefined where no
 * answer comes.
 */
export async function answerByPlan(assignment: Assignment): Promise<string | undefined> {
  const { question, model, tools, toolbox, now, replyTokensMax, signal } = assignment;
  const messages: Message[] = [
    { role: "system", content: `${rules(now)}\n\n${planningRules(tools)}` },
    message("user", question),
  ];
  const schema = turnSchema(tools);
  let unreadable = 0;

  for (let turnsLeft = turnsMax; turnsLeft > 0; turnsLeft -= 1) {
    const { content } = await model.doGenerate({
      prompt: messages,
      responseFormat: { type: "json", name: "turn", schema: schema as JsonSchema },
      temperature: 0,
      maxOutputTokens: replyTokensMax,
      abortSignal: signal,
    });
    const said = (type: "text" | "reasoning") =>
      content.map((part) => (part.type === type ? part.text : "")).join("");
    const turn = readTurn(said("text"), said("reasoning"));

    if (turn === undefined) {
      unreadable += 1;
      if (unreadable > 1) return undefined;
      messages.push(message("assistant", withoutThinking(said("text")).slice(0, 2_000) || "(nothing)"));
      messages.push(
        message("user", "That was not one JSON object of the form asked for. Send the turn again."),
      );
      continue;
    }
    unreadable = 0;
    if (turn.action === "answer") return turn.answer;
    messages.push(message("assistant", JSON.stringify(turn)));
    const result = await toolbox.call(turn.tool, turn.arguments);
    const hint = turnsLeft === 2 ? "\nThis is the last turn: answer now." : "";
    messages.push(message("user", result + hint));
  }
  return undefined;
}

type Prompt = Parameters<Assignment["model"]["doGenerate"]>[0];
type Message = Prompt["prompt"][number];
type JsonSchema = NonNullable<Extract<Prompt["responseFormat"], { type: "json" }>["schema"]>;

function message(role: "user" | "assistant", text: string): Message {
  return { role, content: [{ type: "text", text }] };
}

type Turn =
  | { readonly thought: string; readonly action: "call"; readonly tool: string; readonly arguments: unknown }
  | { readonly thought: string; readonly action: "answer"; readonly answer: string };

/**
 * `thought` comes first, because a grammar leaves a model no other room to reason. One flat object with every
 * tool's arguments: grammars are surer with it than with alternatives, and each tool checks its own anyway.
 */
function turnSchema(tools: readonly Tool[]) {
  const fields: Record<string, TSchema> = Object.assign(
    {},
    ...tools.map((tool) => withoutLengths(tool.arguments).properties),
  );
  const optional = Object.fromEntries(
    Object.entries(fields).map(([name, schema]) => [name, Type.Optional(schema)]),
  );
  return Type.Object(
    {
      thought: Type.String({ maxLength: 400 }),
      action: Type.Enum(["call", "answer"]),
      tool: Type.Union([Type.Enum(tools.map((tool) => tool.name)), Type.Null()]),
      arguments: Type.Union([Type.Object(optional, { additionalProperties: false }), Type.Null()]),
      answer: Type.Union([Type.String(), Type.Null()]),
    },
    { additionalProperties: false },
  );
}

const Loose = Type.Object({
  thought: Type.Optional(Type.String()),
  action: Type.Enum(["call", "answer"]),
  tool: Type.Optional(Type.Union([Type.String(), Type.Null()])),
  arguments: Type.Optional(Type.Unknown()),
  answer: Type.Optional(Type.Union([Type.String(), Type.Null()])),
});

/**
 * The turn in a reply: as JSON, fenced, or with words around it, and in the reasoning where the text is empty,
 * as some reasoning models do under a schema. What the call's arguments must be is for the tool to say.
 */
function readTurn(text: string, reasoning: string): Turn | undefined {
  for (const source of [withoutThinking(text), text, reasoning]) {
    for (const json of jsonIn(source)) {
      const turn = turnOf(json);
      if (turn) return turn;
    }
  }
  return undefined;
}

function turnOf(value: unknown): Turn | undefined {
  if (!Check(Loose, value)) return undefined;
  const { thought = "", action, tool, answer }: Static<typeof Loose> = value;
  if (action === "call") {
    return tool ? { thought, action, tool, arguments: withoutNulls(value.arguments) } : undefined;
  }
  const shown = withoutThinking(answer ?? "");
  return shown === "" ? undefined : { thought, action, answer: shown };
}

/** Models write null for an argument that they leave out. */
function withoutNulls(args: unknown): unknown {
  if (typeof args !== "object" || args === null || Array.isArray(args)) return args ?? {};
  return Object.fromEntries(Object.entries(args).filter(([, value]) => value !== null));
}

/** The whole text, then the first fenced block, then from the first brace to the last. */
function jsonIn(text: string): unknown[] {
  const fenced = /```(?:json)?\s*([\s\S]*?)```/.exec(text)?.[1] ?? "";
  const braced = text.slice(Math.max(0, text.indexOf("{")), text.lastIndexOf("}") + 1);
  return [text, fenced, braced].flatMap((candidate) => {
    try {
      return [JSON.parse(candidate) as unknown];
    } catch {
      return [];
    }
  });
}
