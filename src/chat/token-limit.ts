import { ChatError } from "./chat-error.ts";

/**
 * The tokens to ask a model for: what was asked, or the limit where nothing was (OpenAI leaves it out, LM
 * Studio takes -1 for "until the context is full"). Throws `ChatError` `max-tokens-exceeded`.
 */
export function tokensWithin(asked: number | null | undefined, limit: number, param: string): number {
  if (asked === undefined || asked === null || asked < 0) return limit;
  if (asked <= limit) return asked;
  throw new ChatError("max-tokens-exceeded", `At most ${limit} tokens may be asked for (CHAT_MAX_TOKENS).`, {
    param,
  });
}
