import type { Call } from "./complete.ts";
import { checkContext, TokenRatios } from "./context-check.ts";
import type { Usage } from "./lm-studio/chunk.ts";
import type { TokenBudgets } from "./token-budgets.ts";
import { partsOf, sumOf } from "./token-estimate.ts";

type Limited = Pick<Call, "body" | "caller" | "endpoint">;

/** What a call has to pass before anything is done for it. */
export class Limits {
  readonly ratios = new TokenRatios();
  readonly #budgets: TokenBudgets | undefined;

  /** Without `budgets` everybody may use as many tokens as they like, which then costs nothing to know. */
  constructor(budgets?: TokenBudgets) {
    this.#budgets = budgets;
  }

  /**
   * Throws `ChatError` `context-length-exceeded`, where the prompt surely is longer than the context that the
   * model was loaded with, or `token-budget-spent`. Gives a promise only where the log has to be read first.
   */
  admit({ body, caller }: Limited, contextTokens: number | undefined): Promise<void> | undefined {
    const { model, messages, prompt, tools, max_tokens: maxTokens } = body;
    checkContext({
      model,
      messages,
      prompt,
      tools,
      maxTokens: typeof maxTokens === "number" ? maxTokens : undefined,
      contextTokens,
      ratio: this.ratios.of(model),
    });
    return this.#budgets?.admit(caller);
  }

  /** Takes in what LM Studio counted of a call that it answered; what came from the cache is free. */
  spent({ body, caller, endpoint }: Limited, usage: Usage | undefined): void {
    if (!usage) return;
    const { model, messages, prompt, tools } = body;
    // A response may go on from others, which LM Studio counts along and the request does not have.
    if (endpoint !== "responses") this.ratios.learn(model, { messages, prompt, tools }, usage.prompt_tokens);
    this.#budgets?.spend(caller, usage.prompt_tokens + usage.completion_tokens);
  }

  /** Takes in an answer that broke off or that nobody waited for, which LM Studio then does not count: estimated. */
  spentAbout({ body, caller }: Limited, completionTokens: number): void {
    if (!this.#budgets) return;
    const { model, messages, prompt, tools } = body;
    const promptTokens = sumOf(partsOf({ messages, prompt, tools })) * this.ratios.of(model);
    this.#budgets.spend(caller, Math.round(promptTokens) + completionTokens);
  }

  /** How a caller with a limit stands, as headers in OpenAI's form. */
  async headersFor(caller: string): Promise<Record<string, string>> {
    const budget = await this.#budgets?.of(caller);
    if (!budget) return {};
    return {
      "x-ratelimit-limit-tokens": String(budget.limit),
      "x-ratelimit-remaining-tokens": String(budget.remaining),
      "x-ratelimit-reset-tokens": `${budget.resetS}s`,
    };
  }
}
