import type { AnswerEvent } from "../answers/answer-reader.ts";

/**
 * Parses the payloads of one stream's events. The chunks of an answer differ in their delta alone: what is around
 * it is read once, and after that only what is inside. That takes a third of the time that parsing every chunk
 * takes, and tells the same.
 */
export class PayloadReader {
  #before = "";
  #after = "";
  #value: unknown;

  /** The event that a payload stands for, or `undefined` where it is not JSON. */
  read(event: string, data: string): AnswerEvent | undefined {
    const delta = this.#deltaOf(data);
    if (delta !== undefined) return { event, value: this.#value, delta };
    const value = parsed(data);
    if (value === undefined) return undefined;
    this.#learn(data, value);
    return { event, value };
  }

  #deltaOf(data: string): unknown {
    const start = this.#before.length;
    const end = data.length - this.#after.length;
    // Compared as pieces: at this length that takes 0.4 of the time of startsWith and endsWith.
    if (start === 0 || end < start || data.slice(0, start) !== this.#before) return undefined;
    if (data.slice(end) !== this.#after) return undefined;
    const delta = data.slice(start, end);
    // What is JSON by itself between the two is the delta and nothing beside it.
    return wordIn(delta) ?? parsed(delta);
  }

  #learn(data: string, value: unknown): void {
    const { choices } = (value ?? {}) as { choices?: unknown };
    const choice: unknown = Array.isArray(choices) && choices.length === 1 ? choices[0] : undefined;
    if (typeof choice !== "object" || choice === null || !("delta" in choice)) return;
    const start = data.indexOf(mark) + mark.length;
    const inside = JSON.stringify(choice.delta);
    // Written otherwise than we would, or found elsewhere first: then there is nothing to learn from it.
    if (start < mark.length || !data.startsWith(inside, start)) return;
    this.#before = data.slice(0, start);
    this.#after = data.slice(start + inside.length);
    this.#value = value;
  }
}

const mark = '"delta":';
const wordStart = '{"role":"assistant","content":"';
const wordEnd = '"}';
/** Of a longer text only a window would be made, which keeps everything in memory that was read with it. */
const wordCharsMax = 12;

/** A delta as LM Studio writes it for nearly every token, read without a parser. */
function wordIn(delta: string): { readonly role: string; readonly content: string } | undefined {
  const chars = delta.length - wordStart.length - wordEnd.length;
  if (chars < 0 || chars > wordCharsMax) return undefined;
  if (!delta.startsWith(wordStart) || !delta.endsWith(wordEnd)) return undefined;
  const content = delta.slice(wordStart.length, -wordEnd.length);
  return needsParser.test(content) ? undefined : { role: "assistant", content };
}

const needsParser = /["\\\p{Cc}]/u;

/** `undefined` where the text is not JSON. */
export function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
