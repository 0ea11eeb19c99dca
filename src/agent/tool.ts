import { type Static, type TObject, type TSchema, Type } from "typebox";
import { Compile } from "typebox/compile";
import { AppError } from "../http/problem.ts";
import type { Pool } from "../store/pool.ts";
import { AgentError } from "./agent-error.ts";

/** What a tool works with. The pool's role can only read. */
export interface ToolContext {
  readonly pool: Pool;
  readonly signal: AbortSignal;
}

/** One thing that the agent can look up. Models, people over HTTP and tests all call it the same way. */
export interface Tool<Arguments extends TObject = TObject, Result extends TSchema = TSchema> {
  readonly name: string;
  /** Written for a model that has to choose. */
  readonly description: string;
  readonly arguments: Arguments;
  readonly result: Result;
  /** Throws an `AppError` where there is nothing to return. */
  run(args: Static<Arguments>, context: ToolContext): Promise<Static<Result>>;
  /** The result in a sentence or two, for an answer that no model wrote. */
  tell(result: Static<Result>): string;
}

/** Most bytes of one result: a small model's whole context is some 16,000. */
const resultBytesMax = 4096;

/**
 * Runs a tool after checking its arguments against its own schema, wherever they come from.
 * Throws `AgentError` `tool-unknown` or `tool-arguments-invalid`, whose words a model can act on.
 */
export async function callTool(
  tools: readonly Tool[],
  name: string,
  args: unknown,
  context: ToolContext,
): Promise<unknown> {
  const tool = tools.find((candidate) => candidate.name === name);
  if (!tool) {
    const names = tools.map((candidate) => candidate.name).join(", ");
    throw new AgentError(
      "tool-unknown",
      `There is no tool ${JSON.stringify(name.slice(0, 100))}; there are ${names}.`,
    );
  }
  const errors = argumentErrors(tool, args);
  if (errors.length > 0) {
    throw new AgentError(
      "tool-arguments-invalid",
      `The arguments of ${tool.name} are wrong: ${errors.join("; ")}.`,
    );
  }
  const result = await tool.run(args as Static<TObject>, context);
  if (byteLength(result) > resultBytesMax) {
    throw new AgentError("tool-result-too-large", `The result of ${tool.name} is too large; ask for less.`);
  }
  return result;
}

/**
 * As many rows, from the first, as fit beside the rest of a result.
 * @param spareBytes what the rest of the result takes.
 */
export function fitting<Row>(rows: readonly Row[], spareBytes = 256): { rows: Row[]; cut: boolean } {
  const fit: Row[] = [];
  let bytes = spareBytes;
  for (const row of rows) {
    bytes += byteLength(row) + 1;
    if (bytes > resultBytesMax) return { rows: fit, cut: true };
    fit.push(row);
  }
  return { rows: fit, cut: false };
}

/** Length of the value as JSON. */
export function byteLength(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value));
}

/** True for a failure that a caller can be told about in its own words. */
export function isTellable(error: unknown): error is AppError<string> {
  return error instanceof AppError;
}

const validators = new WeakMap<Tool, ReturnType<typeof Compile>>();

function argumentErrors(tool: Tool, args: unknown): string[] {
  const validator = validators.get(tool) ?? Compile(Type.Unsafe(tool.arguments));
  validators.set(tool, validator);
  if (validator.Check(args)) return [];
  return validator
    .Errors(args)
    .filter(({ keyword }) => keyword !== "boolean")
    .slice(0, 5)
    .map(({ instancePath, message, params }) => {
      const extra =
        "additionalProperties" in params ? ` (${String(params.additionalProperties).slice(0, 100)})` : "";
      return `${instancePath.slice(1) || "they"} ${message}${extra}`;
    });
}
