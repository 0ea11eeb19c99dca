import { styleText } from "node:util";

/** Prints each line as an error, on standard error, and gives back the exit code. */
export function fail(lines: readonly string[], exitCode: number): number {
  for (const line of lines)
    console.error(`${styleText("red", "pugmark:", { stream: process.stderr })} ${line}`);
  return exitCode;
}
