import type { Evidence } from "./evidence.ts";
import { byteLength, callTool, isTellable, type Tool, type ToolContext } from "./tool.ts";

const callsMax = 12;
/** Past this nothing more is read: with the last result some 12 KB, near the 4,096 tokens that LM Studio loads a model with. */
const evidenceBytesMax = 8_192;

/**
 * The tools as one run may use them: each call is kept as evidence, a repeated one is answered from it, and
 * calls and bytes have a bound, behind which the model is told to answer.
 */
export class Toolbox {
  readonly evidence: Evidence[] = [];
  /** What made the run impossible, such as a database that is away. */
  failure: unknown;
  readonly #tools: readonly Tool[];
  readonly #context: ToolContext;
  readonly #fail: (error: unknown) => void;
  readonly #asked = new Map<string, Promise<string>>();
  #calls = 0;
  #bytes = 0;

  /** @param fail called with a failure that no model can do anything about; it should end the run. */
  constructor(tools: readonly Tool[], context: ToolContext, fail: (error: unknown) => void) {
    this.#tools = tools;
    this.#context = context;
    this.#fail = fail;
  }

  /** Runs a tool and gives its result, or what is wrong with the call, as text for the model. */
  call(name: string, args: unknown): Promise<string> {
    const key = `${name} ${canonical(args)}`;
    const known = this.#asked.get(key);
    if (known) return known;
    const text = this.#run(name, args);
    this.#asked.set(key, text);
    return text;
  }

  async #run(name: string, args: unknown): Promise<string> {
    this.#calls += 1;
    if (this.#calls > callsMax || this.#bytes > evidenceBytesMax) {
      return dataText(name, { error: { code: "enough-read", detail: "Enough has been read; answer now." } });
    }
    try {
      return this.#keep(name, args, await callTool(this.#tools, name, args, this.#context));
    } catch (error) {
      if (!isTellable(error)) {
        this.failure ??= error;
        this.#fail(error);
        throw error;
      }
      const result = { error: { code: error.code, detail: error.message } };
      // A call that never ran read nothing, so nothing can rest on it.
      if (error.code === "tool-unknown" || error.code === "tool-arguments-invalid")
        return dataText(name, result);
      return this.#keep(name, args, result);
    }
  }

  #keep(name: string, args: unknown, result: unknown): string {
    this.#bytes += byteLength(result);
    this.evidence.push({ tool: name, arguments: args, result });
    return dataText(name, result);
  }
}

/** A result between marks that nothing inside it can close: what is in between is data, whatever it says. */
export function dataText(tool: string, result: unknown): string {
  const name = tool.replace(/[^\w-]/g, "").slice(0, 64);
  return `<tool_result tool="${name}">${JSON.stringify(result).replaceAll("<", "\\u003c")}</tool_result>`;
}

/** A model's words with the marks' escape undone, where it copied a name that had one. */
export function asRecorded(text: string): string {
  return text.replaceAll("\\u003c", "<");
}

/** One text for equal arguments, whatever the order of their fields. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, item: unknown) =>
    typeof item === "object" && item !== null && !Array.isArray(item)
      ? Object.fromEntries(Object.entries(item).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : item,
  );
}
