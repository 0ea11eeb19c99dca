import type { Said, ToolCallPiece } from "./chunk.ts";

/** A piece of an answer, with the model's thinking told apart from what it says. */
export interface Delta {
  readonly text?: string;
  readonly reasoning?: string;
  readonly toolCalls?: readonly ToolCallPiece[];
  /** One event of `/v1/responses` as it is sent on, its line ends included. */
  readonly event?: string;
}

export interface SeparatorOptions {
  /**
   * What to do with untagged text until it is known whether a `</think>` follows, for the form that lacks the
   * first tag: `text` takes it for the answer, `hold` gives it out once that is known, `think` gives it out as
   * thinking at once, and where no tag follows all of it once more as text, since it was the answer after all.
   */
  readonly untagged: "text" | "hold" | "think";
  /** JSON was asked for: an answer that is nothing but JSON in the thinking is the answer. */
  readonly json: boolean;
}

/**
 * Tells a model's thinking from its answer in the three forms that LM Studio gives it: `<think>…</think>` at
 * the start of the text, the same without its first tag (some templates put that into the prompt), and the
 * field `reasoning_content`. Tags may be split over any number of chunks. Only what the text starts with
 * counts: an answer that is about these tags stays as it is. Of a model that is not known to think, only a
 * `</think>` at the beginning or the end of a line counts, which one that is spoken of hardly ever is.
 *
 * Thinking that never ends leaves no text, and is not passed off as one.
 */
export class Separator {
  /** Chunks, and so tokens, that were thinking. */
  reasoningTokens = 0;
  /** Whether thinking came without its first tag. */
  unopened = false;
  /** The answer's first pieces, where they were given out as thinking and then once more as text. */
  mistaken: readonly string[] | undefined;
  readonly #options: SeparatorOptions;
  #untagged: SeparatorOptions["untagged"];
  #state: "start" | "held" | "thinking" | "after-thinking" | "text" = "start";
  /** Text that is not decided yet, and may be the beginning of a tag. */
  #pending = "";
  /** What came before that and waits for a tag, too. */
  readonly #held: string[] = [];
  #pendingTokens = 0;
  #sawText = false;
  #thought = false;
  /** What was given out as thinking untagged, and is text after all unless a tag follows. */
  #presumed: string[] | undefined;
  /** Thinking that may turn out to be the JSON that was asked for. */
  #maybeJson: string | undefined;

  constructor(options: SeparatorOptions) {
    this.#options = options;
    this.#untagged = options.untagged;
    if (options.json) this.#maybeJson = "";
  }

  /** Adds to `deltas` what this chunk settles, in order. */
  push(chunk: Said, deltas: Delta[]): void {
    if (chunk.reasoning) {
      this.reasoningTokens += 1;
      // Where the field is used, the text has no tags.
      if (this.#state === "start") this.#state = "after-thinking";
      this.#think(chunk.reasoning, deltas);
    }
    if (chunk.content) this.#content(chunk.content, deltas);
    if (chunk.toolCalls) {
      this.#settle(deltas);
      deltas.push({ toolCalls: chunk.toolCalls });
    }
  }

  /** Gives out what is held until it is known whether a tag follows, and from now on holds nothing for that. */
  release(): Delta[] {
    const deltas: Delta[] = [];
    if (this.#untagged === "hold") this.#untagged = "text";
    if (this.#state === "held") {
      this.#state = "text";
      this.#say(this.#takeHeld(), deltas);
    }
    return deltas;
  }

  /** What was held back to the end. Where the answer was cut off, no tag could follow any more. */
  end({ isCutOff = false } = {}): Delta[] {
    const deltas: Delta[] = [];
    if (isCutOff) this.#presumed = undefined;
    this.#settle(deltas);
    if (this.#maybeJson) {
      const held = this.#maybeJson;
      this.#maybeJson = undefined;
      if (!this.#sawText && isJson(held)) this.#say(held, deltas);
      else deltas.push({ reasoning: held });
    }
    return deltas;
  }

  #content(content: string, deltas: Delta[]): void {
    if (this.#state === "text") this.#say(content, deltas);
    else if (this.#state === "start") this.#start(content, deltas);
    else if (this.#state === "after-thinking") {
      const text = this.#sawText ? content : content.trimStart();
      if (text) this.#state = "text";
      this.#say(text, deltas);
    } else this.#untilClosed(content, deltas);
  }

  /** Decides by its first characters what the text is. */
  #start(content: string, deltas: Delta[]): void {
    this.#pending += content;
    this.#pendingTokens += 1;
    const text = this.#pending.trimStart();
    const looksLikeJson = this.#options.json && /^[{[]/.test(text);
    if (text.startsWith(opening)) {
      this.#state = "thinking";
      this.#pending = "";
      // The chunk at hand is counted below.
      this.reasoningTokens += this.#pendingTokens - 1;
      this.#untilClosed(text.slice(opening.length).trimStart(), deltas);
    } else if (opening.startsWith(text)) {
      // Too short to tell.
    } else if (this.#untagged !== "text" && !looksLikeJson) {
      const aloud = this.#untagged === "think";
      this.#state = aloud ? "thinking" : "held";
      if (aloud) this.#presumed = [];
      const held = this.#pending;
      this.#pending = "";
      this.#pendingTokens -= 1;
      this.#untilClosed(held, deltas);
    } else {
      this.#state = "text";
      this.#say(this.#pending, deltas);
      this.#pending = "";
    }
  }

  /** Looks for the tag that ends the thinking, in what is pending and what came now. */
  #untilClosed(content: string, deltas: Delta[]): void {
    this.#presumed?.push(content);
    this.#pending += content;
    this.#pendingTokens += 1;
    if (this.#state === "thinking") this.reasoningTokens += 1;
    const isHeld = this.#state === "held";
    const end = isHeld ? this.#pending.search(closingAtLine) : this.#pending.indexOf(closing);
    if (end >= 0) {
      if (isHeld) this.reasoningTokens += this.#pendingTokens;
      this.unopened = isHeld || this.#presumed !== undefined;
      this.#presumed = undefined;
      const after = this.#pending.slice(end + closing.length).trimStart();
      this.#pending = this.#pending.slice(0, end);
      this.#think(this.#trimmed(this.#takeHeld()), deltas);
      this.#state = "after-thinking";
      if (after) this.#content(after, deltas);
      return;
    }
    // All but what may be the beginning of the tag, and the white space before it.
    const settled = this.#pending.slice(0, openEnd(this.#pending));
    if (!settled) return;
    this.#pending = this.#pending.slice(settled.length);
    if (isHeld) this.#held.push(settled);
    else this.#think(this.#trimmed(settled, false), deltas);
  }

  #takeHeld(): string {
    this.#held.push(this.#pending);
    this.#pending = "";
    return this.#held.splice(0).join("");
  }

  /** Nothing more comes that could tell: what is pending is what it looks like. */
  #settle(deltas: Delta[]): void {
    const pending = this.#takeHeld();
    const state = this.#state;
    if (this.#presumed) {
      this.mistaken = this.#presumed;
      this.#presumed = undefined;
      this.#state = "text";
      this.reasoningTokens = 0;
      this.#say(this.mistaken.join(""), deltas);
    } else if (state === "start" || state === "held") {
      this.#state = "text";
      this.#say(pending, deltas);
    } else if (state === "thinking") this.#think(pending.trimEnd(), deltas);
  }

  #think(reasoning: string, deltas: Delta[]): void {
    if (!reasoning) return;
    this.#thought = true;
    if (this.#maybeJson !== undefined) {
      this.#maybeJson += reasoning;
      if (/^\s*([{[]|$)/.test(this.#maybeJson)) return;
      deltas.push({ reasoning: this.#maybeJson });
      this.#maybeJson = undefined;
    } else deltas.push({ reasoning });
  }

  /** Thinking begins with its first word, and ends with its last. */
  #trimmed(text: string, ends = true): string {
    const begun = this.#thought ? text : text.trimStart();
    return ends ? begun.trimEnd() : begun;
  }

  #say(text: string, deltas: Delta[]): void {
    if (!text) return;
    if (this.#maybeJson) {
      // There is an answer, so what looked like it was thinking after all.
      deltas.push({ reasoning: this.#maybeJson });
    }
    this.#maybeJson = undefined;
    this.#sawText = true;
    deltas.push({ text });
  }
}

/** True for the names of models that think before they answer. */
export function usuallyThinks(model: string): boolean {
  return /(^|[^a-z])(r1|qwq|magistral|gpt-oss)([^a-z]|$)|think|reason/i.test(model);
}

/** True for a text in which thinking was not told apart: it began before anybody could know. */
export function hasStrayTag(text: string): boolean {
  return closingAtLine.test(text);
}

const opening = "<think>";
const closing = "</think>";
const closingAtLine = /(?<=\n[ \t]*)<\/think>|<\/think>(?=[ \t]*\r?\n)/;

/** Where the longest end of `text` begins that white space and a beginning of the closing tag could make up. */
function openEnd(text: string): number {
  const tag = text.lastIndexOf("<");
  const end = tag >= 0 && closing.startsWith(text.slice(tag).trimEnd()) ? tag : text.length;
  return text.slice(0, end).trimEnd().length;
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
