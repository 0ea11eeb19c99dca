import { styleText } from "node:util";
import type { Finding } from "../config/finding.ts";

const marks = { ok: ["green", "✔"], warn: ["yellow", "!"], fail: ["red", "✘"] } as const;

/** A line for what was found, and one for the remedy. */
export function printFinding({ check, outcome, detail, remedy }: Finding): void {
  const [colour, mark] = marks[outcome];
  console.log(`${styleText(colour, mark)} ${check.padEnd(10)} ${detail}`);
  if (remedy) console.log(`  ${"".padEnd(10)} ${styleText("dim", "→")} ${remedy}`);
}
