import { styleText } from "node:util";
import type { ProcessManagerErrorCode } from "../process-manager/process-manager-error.ts";

/** Exit codes of what is not simply a failure (1): 2 for a wrong command line or file, 3 where no station runs. */
export const exitCodes: Partial<Record<ProcessManagerErrorCode, number>> = {
  "definition-invalid": 2,
  "service-unknown": 2,
  "request-invalid": 2,
  "not-running": 3,
};

/** Prints each line as an error, on standard error, and gives back the exit code. */
export function fail(lines: readonly string[], exitCode: number): number {
  for (const line of lines)
    console.error(`${styleText("red", "pugmark:", { stream: process.stderr })} ${line}`);
  return exitCode;
}
