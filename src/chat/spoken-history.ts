import { type Delta, Separator } from "./lm-studio/reasoning.ts";

type Message = Readonly<Record<string, unknown>>;

/**
 * The messages without what the model thought in earlier turns, which programs send back with its answers: it
 * takes up context, and models are trained not to see it. The turn under way, from the last question on, stays
 * as it is: models that call tools go on from what they thought.
 */
export function spokenHistory(messages: readonly Message[]): readonly Message[] {
  const question = messages.findLastIndex(({ role }) => role === "user");
  return messages.map((message, index) =>
    index < question && message.role === "assistant" ? spoken(message) : message,
  );
}

function spoken({ reasoning_content: _, reasoning: __, ...message }: Message): Message {
  const { content } = message;
  if (typeof content === "string") return { ...message, content: withoutThinking(content) };
  if (!Array.isArray(content)) return message;
  return { ...message, content: content.map(spokenPart) };
}

function spokenPart(part: { readonly text?: unknown } | null): unknown {
  return typeof part?.text === "string" ? { ...part, text: withoutThinking(part.text) } : part;
}

function withoutThinking(content: string): string {
  if (!content.trimStart().startsWith("<think>")) return content;
  const separator = new Separator({ untagged: "text", json: false });
  const deltas: Delta[] = [];
  separator.push({ content, reasoning: "", toolCalls: undefined }, deltas);
  deltas.push(...separator.end());
  return deltas.map(({ text = "" }) => text).join("");
}
