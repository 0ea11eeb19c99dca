import type { Upstream } from "./lm-studio/upstream.ts";

/** How old the list of models may be. */
const refreshMs = 30_000;

/**
 * Tokens of context that models were loaded with, as LM Studio last listed them. Asking costs nothing and
 * waits for nothing: a list that is old is fetched on the side, for the calls after this one.
 */
export class LoadedContexts {
  readonly #upstream: Upstream;
  #contexts: ReadonlyMap<string, number> = new Map();
  #refreshAt = 0;

  constructor(upstream: Upstream) {
    this.#upstream = upstream;
  }

  /** `undefined` where the model is not loaded, or nothing is known of it yet. */
  of(model: string): number | undefined {
    if (Date.now() >= this.#refreshAt) void this.#refresh();
    return this.#contexts.get(model);
  }

  async #refresh(): Promise<void> {
    this.#refreshAt = Date.now() + refreshMs;
    // Where LM Studio is away, the call itself will say so.
    const models = await this.#upstream.models().catch(() => []);
    this.#contexts = new Map(
      models.flatMap(({ id, loaded_context_length: tokens }) => (tokens ? [[id, tokens] as const] : [])),
    );
  }
}
