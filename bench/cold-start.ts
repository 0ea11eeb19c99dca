// How long from `npm start` on an installed clone to a station that serves?
// Beside it, in the same run: the limit, which is Node and Postgres starting one after the other and doing nothing.
//
//   node bench/cold-start.ts [runs]
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { projectRoot } from "../src/config/config.ts";
import { startTestPostgres } from "../test/support/postgres.ts";
import { testStation } from "../test/support/station.ts";
import { percentile, printMachine, spread } from "./support/report.ts";

const runs = Number(process.argv[2] ?? 5);
printMachine("Cold start of an installed clone");

await using station = await testStation();
const viaNpm: number[] = [];
const direct: number[] = [];
const node: number[] = [];
// The first start makes the database and fills the compile cache; it is told apart.
const first = await timed("npm", ["start"]);
for (let run = 0; run < runs; run += 1) {
  viaNpm.push(await timed("npm", ["start"]));
  direct.push(await timed(process.execPath, ["src/cli/main.ts", "up"]));
  const begun = performance.now();
  spawnSync(process.execPath, ["-e", ""]);
  node.push(performance.now() - begun);
}
const begun = performance.now();
const postgres = await startTestPostgres();
const postgresMs = performance.now() - begun;
await postgres[Symbol.asyncDispose]();

console.log(`first start ever, database made     ${first.toFixed(0)} ms`);
console.log(`npm start → ready                   ${spread(viaNpm)}`);
console.log(`node src/cli/main.ts up → ready     ${spread(direct)}`);
console.log(`limit: node -e ''                   ${spread(node)}`);
console.log(`limit: initdb, Postgres, schema     ${postgresMs.toFixed(0)} ms (once)`);
console.log(
  `ratio: up to one bare Node          ${(percentile(direct, 0.5) / percentile(node, 0.5)).toFixed(1)}`,
);

async function timed(command: string, args: readonly string[]): Promise<number> {
  const begun = performance.now();
  const options = { cwd: projectRoot, env: station.environment };
  const child = spawn(command, [...args], { ...options, stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.startsWith("The station is ready")) break;
  }
  const ms = performance.now() - begun;
  const healthy = await fetch(`${station.api}/readyz`);
  if (!healthy.ok) throw new Error(`said to be ready, and is not: ${healthy.status}`);
  child.stdout.resume();
  child.kill("SIGINT");
  if (child.exitCode === null) await once(child, "exit");
  return ms;
}
