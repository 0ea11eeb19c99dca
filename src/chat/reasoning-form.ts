import type { Completion } from "./completion.ts";
import type { Delta } from "./lm-studio/reasoning.ts";

/** Where a caller wants a model's thinking: in `reasoning_content`, in the text as `<think>…</think>`, or nowhere. */
export type ReasoningForm = "separate" | "inline" | "drop";

/** A whole answer with its thinking where it is wanted. Takes one that has it apart. */
export function shapedCompletion(form: ReasoningForm, completion: Completion): Completion {
  const { text, reasoning } = completion;
  if (form === "separate" || reasoning === "") return completion;
  return {
    ...completion,
    reasoning: "",
    text: form === "drop" ? text : `${opening}${reasoning}${closing}${text}`,
  };
}

/** The same for an answer that comes in pieces. */
export class DeltaShaper {
  readonly #form: ReasoningForm;
  #thinks = false;

  constructor(form: ReasoningForm) {
    this.#form = form;
  }

  /** What is to be sent for a delta, in order. */
  push(delta: Delta): Delta[] {
    const { reasoning } = delta;
    if (this.#form === "separate") return [delta];
    if (reasoning === undefined) return [...this.end(), delta];
    if (this.#form === "drop") return [];
    const text = this.#thinks ? reasoning : opening + reasoning;
    this.#thinks = true;
    return [{ text }];
  }

  /** What is still to be sent when no delta follows. */
  end(): Delta[] {
    if (!this.#thinks) return [];
    this.#thinks = false;
    return [{ text: closing }];
  }
}

const opening = "<think>\n";
const closing = "\n</think>\n\n";
