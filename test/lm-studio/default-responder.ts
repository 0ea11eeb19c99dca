import type { ChatMessage, GenerationRequest, Reply, Schema } from "./reply.ts";

/**
 * What the stand-in's model says where no script tells it: it calls the tool whose name and description share
 * the most words with the question, answers from what tools returned, fills in a JSON schema, and else
 * repeats what it was asked.
 */
export function defaultResponder(request: GenerationRequest): Reply {
  const messages = request.messages ?? [];
  const question = textOf(messages.findLast(({ role }) => role === "user")) || (request.prompt ?? "");
  const format = request.response_format;
  if (format?.type === "json_schema") {
    return { text: JSON.stringify(jsonFor(format.json_schema?.schema ?? {}, messages, question)) };
  }
  const results = messages.slice(lastQuestion(messages)).filter(({ role }) => role === "tool");
  if (results.length > 0) {
    return {
      thinking: "The tools have answered; I only repeat what they say.",
      text: `The tools say: ${results.map(textOf).join(" ")}`,
    };
  }
  const tools = (request.tools ?? []).map((tool) => tool.function);
  const tool = bestMatch(tools, question);
  if (tool) return { toolCalls: [{ name: tool.name, arguments: argumentsFor(tool.parameters ?? {}) }] };
  return {
    thinking: `They ask: ${question}`,
    text: `You asked: ${question}`,
  };
}

/** The smallest value that a JSON Schema allows; throws on nothing, an unknown schema gives null. */
function sampleOf(schema: Schema, root: Schema = schema): unknown {
  if (schema.$ref) return sampleOf(root.$defs?.[schema.$ref.split("/").at(-1) ?? ""] ?? {}, root);
  if (schema.const !== undefined) return schema.const;
  if (schema.default !== undefined) return schema.default;
  if (schema.enum) return schema.enum[0];
  const choice = schema.anyOf?.[0] ?? schema.oneOf?.[0];
  if (choice) return sampleOf(choice, root);
  const type = typeof schema.type === "string" ? schema.type : schema.type?.[0];
  switch (type ?? (schema.properties ? "object" : "null")) {
    case "object":
      return Object.fromEntries(
        (schema.required ?? []).map((name) => [name, sampleOf(schema.properties?.[name] ?? {}, root)]),
      );
    case "array":
      return Array.from({ length: schema.minItems ?? 0 }, () => sampleOf(schema.items ?? {}, root));
    case "string":
      return schema.format === "date-time" ? "2026-01-01T00:00:00Z" : "x".repeat(schema.minLength ?? 1);
    case "integer":
    case "number":
      return schema.minimum ?? 1;
    case "boolean":
      return true;
    default:
      return null;
  }
}

/** A planner's turn calls its first tool once and then answers; any other schema gets its smallest value. */
function jsonFor(schema: Schema, messages: readonly ChatMessage[], question: string): unknown {
  const sample = sampleOf(schema);
  const actions = schema.properties?.action?.enum;
  if (!actions?.includes("call") || !actions.includes("answer")) return sample;
  const asked = messages.some(({ role }) => role === "assistant" || role === "tool");
  const tools = schema.properties?.tool;
  const names = tools?.enum ?? tools?.anyOf?.find((option) => option.enum)?.enum ?? [];
  const first = names.find((name) => typeof name === "string");
  return asked || first === undefined
    ? { ...(sample as object), action: "answer", tool: null, answer: `The tools say: ${question}` }
    : { ...(sample as object), action: "call", tool: first, answer: null };
}

function argumentsFor(parameters: Schema): Record<string, unknown> {
  return (sampleOf({ type: "object", ...parameters }) ?? {}) as Record<string, unknown>;
}

type Tool = { readonly name: string; readonly description?: string; readonly parameters?: Schema };

function bestMatch(tools: readonly Tool[], question: string): Tool | undefined {
  const asked = new Set(wordsOf(question));
  const score = (tool: Tool) =>
    wordsOf(`${tool.name} ${tool.description ?? ""}`).filter((word) => asked.has(word)).length;
  return tools.toSorted((a, b) => score(b) - score(a))[0];
}

function wordsOf(text: string): string[] {
  return (text.toLowerCase().match(/[a-z]{3,}/g) ?? []).map((word) => word.replace(/s$/, ""));
}

function lastQuestion(messages: readonly ChatMessage[]): number {
  return Math.max(
    0,
    messages.findLastIndex(({ role }) => role === "user"),
  );
}

function textOf(message: ChatMessage | undefined): string {
  const content = message?.content ?? "";
  return typeof content === "string" ? content : content.map((part) => part.text ?? "").join("");
}
