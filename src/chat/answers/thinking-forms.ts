import { usuallyThinks } from "../lm-studio/reasoning.ts";

/** Models whose way of thinking is remembered; past that, the one seen first is forgotten. */
const modelsMax = 256;

/** How each model was seen to answer: with thinking that lacks its first tag, or without any. */
export class ThinkingForms {
  readonly #forms = new Map<string, "unopened" | "plain">();

  /** True where a model's first words may still turn out to be thinking. A model not seen yet goes by its name. */
  isUnopened(model: string): boolean {
    const form = this.#forms.get(model);
    return form === undefined ? usuallyThinks(model) : form === "unopened";
  }

  isKnown(model: string): boolean {
    return this.#forms.has(model);
  }

  remember(model: string, form: "unopened" | "plain"): void {
    this.#forms.set(model, form);
    const [oldest] = this.#forms.keys();
    if (this.#forms.size > modelsMax && oldest !== undefined) this.#forms.delete(oldest);
  }
}
