import { type Completion, joinDeltas } from "../completion.ts";
import type { Delta } from "../lm-studio/reasoning.ts";
import type { About, KeptAnswer } from "./kept-answer.ts";

/** Raised whenever the form changes: an answer in another one counts as none. */
const version = 1;

/** Characters within which the first line of an encoded answer ends, whatever the names in it. */
export const aboutCharsMax = 4_096;

/**
 * An answer as text: a line that says whose it is, then the deltas it came in. A delta that is only text, as
 * most are, is that text; only thinking is an array of it. What the deltas tell is not said again.
 */
export function encodeAnswer({ completion, about, storedAt }: KeptAnswer): string {
  const { deltas, text, reasoning, toolCalls, ...rest } = completion;
  // Where there is a raw answer, it and not the deltas says what was said.
  const said = completion.raw === undefined ? {} : { text, reasoning, toolCalls };
  const body = JSON.stringify({ ...rest, ...said, deltas: deltas.map(encodeDelta) });
  return `${JSON.stringify([version, storedAt, about.caller, about.model])}\n${body}`;
}

/** The answer, or nothing where this is no encoded answer: damaged, of another version, or not ours. */
export function decodeAnswer(encoded: string): KeptAnswer | undefined {
  const head = decodeHead(encoded);
  if (!head) return undefined;
  const { deltas: told, ...rest } = (parsed(encoded.slice(head.end)) ?? {}) as Loose;
  if (!Array.isArray(told) || !isCompletion(rest)) return undefined;
  const deltas = told.map(decodeDelta);
  if (!deltas.every((delta) => delta !== undefined)) return undefined;
  const said = rest.raw === undefined ? joinDeltas(deltas) : {};
  const completion = { usage: undefined, ...rest, ...said, deltas } as Completion;
  return { completion, about: head.about, storedAt: head.storedAt };
}

/** Whose an encoded answer is, from its beginning; nothing where that cannot be read. */
export function decodeAbout(beginning: string): About | undefined {
  return decodeHead(beginning)?.about;
}

// biome-ignore lint/suspicious/noExplicitAny: this is where text from elsewhere is turned into what we know
type Loose = any;

function decodeHead(text: string): { about: About; storedAt: number; end: number } | undefined {
  const end = text.indexOf("\n");
  const head = parsed(text.slice(0, Math.max(0, end)));
  if (!Array.isArray(head)) return undefined;
  const [given, storedAt, caller, model] = head;
  if (given !== version || !Number.isSafeInteger(storedAt)) return undefined;
  if (typeof caller !== "string" || typeof model !== "string") return undefined;
  return { about: { caller, model }, storedAt, end };
}

function isCompletion({ head, finishReason, usage, raw, text, reasoning, toolCalls }: Loose): boolean {
  if (typeof head?.id !== "string" || typeof head.model !== "string") return false;
  if (!Number.isSafeInteger(head.created) || typeof finishReason !== "string") return false;
  if (usage !== undefined && !Number.isSafeInteger(usage?.total_tokens)) return false;
  if (raw === undefined) return true;
  return typeof text === "string" && typeof reasoning === "string" && Array.isArray(toolCalls);
}

function encodeDelta(delta: Delta): unknown {
  const { text, reasoning, ...more } = delta;
  if (Object.keys(more).length > 0) return delta;
  if (reasoning === undefined) return text ?? delta;
  return text === undefined ? [reasoning] : delta;
}

function decodeDelta(encoded: Loose): Delta | undefined {
  if (typeof encoded === "string") return { text: encoded };
  if (Array.isArray(encoded)) return typeof encoded[0] === "string" ? { reasoning: encoded[0] } : undefined;
  return typeof encoded === "object" && encoded !== null && isDelta(encoded) ? encoded : undefined;
}

function isDelta({ text = "", reasoning = "", event = "", toolCalls = [] }: Loose): boolean {
  if (![text, reasoning, event].every((part) => typeof part === "string")) return false;
  return Array.isArray(toolCalls) && toolCalls.every((piece) => typeof piece === "object" && piece !== null);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
