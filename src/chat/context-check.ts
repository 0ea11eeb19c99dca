import { ChatError } from "./chat-error.ts";
import { estimateTokens, type Prompt, partsOf, sumOf } from "./token-estimate.ts";

/** A prompt, and the room there is for it. */
export interface Asked extends Prompt {
  readonly model: string;
  readonly maxTokens?: number | undefined;
  /** Tokens of context that the model was loaded with; absent where nobody knows. */
  readonly contextTokens: number | undefined;
  /** Tokens that this model was seen to make of one estimated token. Default 1. */
  readonly ratio?: number;
}

/** The estimate may be this much too high: only past that does a prompt surely not fit. */
const doubt = 1.15;
const partsNamed = 3;

/**
 * Throws `ChatError` `context-length-exceeded` where the prompt alone surely is longer than the context: LM
 * Studio would refuse it in words that name no part, or first read it for minutes. Whatever may fit is let
 * through, for LM Studio to judge exactly.
 */
export function checkContext({ model, contextTokens, maxTokens, ratio = 1, ...prompt }: Asked): void {
  if (contextTokens === undefined) return;
  // A token is a character or more, but for rare scripts: what is short enough needs no closer look.
  if (sumOf(partsOf(prompt, (text) => text.length)) <= contextTokens) return;
  const parts = partsOf(prompt).map(({ name, tokens }) => ({ name, tokens: Math.round(tokens * ratio) }));
  const tokens = sumOf(parts);
  if (tokens / doubt <= contextTokens) return;
  const largest = parts
    .toSorted((one, other) => other.tokens - one.tokens)
    .slice(0, partsNamed)
    .map((part) => `${part.name} ${shown(part.tokens)}`);
  const wanted = 2 ** Math.ceil(Math.log2(tokens + (maxTokens ?? 0)));
  throw new ChatError(
    "context-length-exceeded",
    `The prompt has about ${shown(tokens)} tokens, and ${model} is loaded with a context of ${shown(contextTokens)}. ` +
      `Largest: ${largest.join(", ")}. Shorten ${parts.length > 1 ? "that" : "it"}, or reload the model with more ` +
      `in LM Studio: \`lms load ${model} --context-length ${wanted}\`.`,
  );
}

function shown(tokens: number): string {
  return tokens.toLocaleString("en-US");
}

/** Models whose ratio is remembered. */
const modelsMax = 256;
/** Shorter prompts say more of the template than of the text; longer ones cost time to estimate. */
const learnableChars = { min: 2_000, max: 200_000 };
/** How much one answer changes what was believed before. */
const weight = 0.25;
const ratioMin = 0.5;
const ratioMax = 2;

/** How the tokenizer of each model compares with the estimate, learnt from the usage that LM Studio reports. */
export class TokenRatios {
  readonly #ratios = new Map<string, number>();

  /** Tokens of this model to one estimated token: from 0.5 to 2. */
  of(model: string): number {
    return this.#ratios.get(model) ?? 1;
  }

  /** Takes in what LM Studio counted of a prompt. Pictures tell nothing of a tokenizer. */
  learn(model: string, prompt: Prompt, promptTokens: number): void {
    const chars = sumOf(partsOf(prompt, (text) => text.length));
    if (chars < learnableChars.min || chars > learnableChars.max || hasImages(prompt)) return;
    const seen = promptTokens / sumOf(partsOf(prompt, estimateTokens));
    const before = this.#ratios.get(model) ?? 1;
    const ratio = before + weight * (Math.min(Math.max(seen, ratioMin), ratioMax) - before);
    this.#ratios.delete(model);
    this.#ratios.set(model, ratio);
    const [oldest] = this.#ratios.keys();
    if (this.#ratios.size > modelsMax && oldest !== undefined) this.#ratios.delete(oldest);
  }
}

function hasImages({ messages }: Prompt): boolean {
  return Array.isArray(messages) && messages.some(({ content }) => Array.isArray(content));
}
