#!/usr/bin/env node
// The command, once linked (`npm link`). Plain JavaScript: the Node that runs it may be too old for the rest.
import { spawn, spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const main = join(root, "src", "cli", "main.ts");
const setup = spawnSync(process.execPath, [join(root, "scripts", "setup.mjs")], { stdio: "inherit" });
if (setup.status !== 0) process.exit(setup.status ?? 1);

if (Number(process.versions.node.split(".")[0]) >= 24) {
  await import(main);
} else {
  const newer = join(root, "node_modules", ".bin", process.platform === "win32" ? "node.cmd" : "node");
  const child = spawn(newer, [main, ...process.argv.slice(2)], { stdio: "inherit" });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("exit", (code) => process.exit(code ?? 1));
}
