#!/usr/bin/env node
// The command, once linked (`npm link`). Plain JavaScript: the Node that runs it may be too old for the rest.
import { spawn } from "node:child_process";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import "../scripts/setup.mjs";

if (Number(process.versions.node.split(".")[0]) >= 24) {
  await import("./main.mjs");
} else {
  const root = dirname(dirname(fileURLToPath(import.meta.url)));
  const newer = join(root, "node_modules", ".bin", process.platform === "win32" ? "node.cmd" : "node");
  const main = join(root, "bin", "main.mjs");
  const child = spawn(newer, [main, ...process.argv.slice(2)], { stdio: "inherit" });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("exit", (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
}
