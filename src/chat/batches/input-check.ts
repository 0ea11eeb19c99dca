import type { NewLine } from "../../store/batch-lines.ts";
import type { BatchProblem } from "../../store/batches.ts";
import { readInputLine } from "./input-line.ts";
import { unreadable } from "./text-lines.ts";

/** As OpenAI has it. */
const linesMax = 50_000;

/** Checks the lines of one input, each by itself and against those before. */
export class InputCheck {
  readonly #endpoint: string;
  readonly #defaultModel: string;
  /** The line that each id is on. */
  readonly #customIds = new Map<string, number>();
  #line = 0;
  #model: string | undefined;

  constructor(endpoint: string, defaultModel: string) {
    this.#endpoint = endpoint;
    this.#defaultModel = defaultModel;
  }

  /** The one model that all lines ask. Undefined where there were none. */
  get model(): string | undefined {
    return this.#model;
  }

  get linesTotal(): number {
    return this.#customIds.size;
  }

  /** True from the first line that is too many. */
  get isFull(): boolean {
    return this.#customIds.size > linesMax;
  }

  /** The next line as it can be stored, or what is wrong with it. An empty one is neither. */
  take(text: string | typeof unreadable): NewLine | BatchProblem | undefined {
    this.#line += 1;
    if (text === unreadable) {
      return this.#problem("invalid_json_line", "This line is not UTF-8, or has more than 8 MiB.");
    }
    if (text.trim() === "") return undefined;
    const line = readInputLine(text, this.#endpoint);
    if ("code" in line) return { ...line, line: this.#line };
    const { customId, body } = line;
    const first = this.#customIds.get(customId);
    if (first !== undefined) {
      const message = `custom_id ${JSON.stringify(customId)} is on line ${first} already.`;
      return this.#problem("duplicate_custom_id", message, "custom_id");
    }
    this.#customIds.set(customId, this.#line);
    if (this.isFull) {
      return this.#problem("too_many_lines", `A batch may have ${linesMax.toLocaleString("en")} lines.`);
    }
    const model = line.model ?? this.#defaultModel;
    this.#model ??= model;
    if (model !== this.#model) {
      const message = `A batch asks one model; the lines before ask ${this.#model}.`;
      return this.#problem("mismatched_model", message, "body.model");
    }
    return { line: this.#line, customId, body };
  }

  #problem(code: string, message: string, param: string | null = null): BatchProblem {
    return { code, message, param, line: this.#line };
  }
}
