import type { Call } from "./complete.ts";
import { checkContext, TokenRatios } from "./context-check.ts";
import type { Usage } from "./lm-studio/chunk.ts";
import type { TokenBudgets } from "./token-budgets.ts";
import { type Prompt, partsOf, sumOf } from "./token-estimate.ts";

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
  admit({ body, caller, endpoint }: Limited, contextTokens: number | undefined): Promise<void> | undefined {
    const { model } = body;
    const maxTokens = body.max_tokens ?? body.max_output_tokens;
    checkContext({
      ...promptOf(endpoint, body),
      model,
      maxTokens: typeof maxTokens === "number" ? maxTokens : undefined,
      contextTokens,
      ratio: this.ratios.of(model),
    });
    return this.#budgets?.admit(caller);
  }

  /** Takes in what LM Studio counted of a call that it answered; what came from the cache is free. */
  spent({ body, caller, endpoint }: Limited, usage: Usage | undefined): void {
    if (!usage) return;
    // A response may go on from others, which LM Studio counts along and the request does not have.
    if (endpoint !== "responses") {
      this.ratios.learn(body.model, promptOf(endpoint, body), usage.prompt_tokens);
    }
    this.#budgets?.spend(caller, usage.prompt_tokens + usage.completion_tokens);
  }

  /** Takes in an answer that broke off or that nobody waited for, which LM Studio then does not count: estimated. */
  spentAbout({ body, caller, endpoint }: Limited, completionTokens: number): void {
    if (!this.#budgets) return;
    const promptTokens = sumOf(partsOf(promptOf(endpoint, body))) * this.ratios.of(body.model);
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

/** What takes up context. Of a response that goes on from others only what is new in it: there is more of it. */
function promptOf(endpoint: Call["endpoint"], body: Call["body"]): Prompt {
  const { messages, prompt, tools, instructions, input } = body;
  if (endpoint !== "responses") return { messages, prompt, tools };
  const items = typeof input === "string" ? [{ role: "user", content: input }] : (input as object[]);
  return {
    messages: [...(instructions ? [{ role: "system", content: instructions }] : []), ...items.map(messageOf)],
    tools,
  };
}

/** An item of a response's input as a message. A call and its outcome have their text elsewhere. */
function messageOf(item: object): object {
  const { role, type, content, output, arguments: args } = item as Record<string, unknown>;
  return { role: role ?? type, content: content ?? output ?? args };
}
