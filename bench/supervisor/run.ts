// How does Pugmark's process manager compare with a bare respawn, PM2, supervisord and systemd? Linux only.
//
//   node bench/supervisor/run.ts [ADAPTERS [MEASURES]]       e.g.  floor,pugmark crash,load
//
// A peer that is not on this machine is left out. Prints one Markdown table; about six minutes for each.
import { printMachine } from "../support/report.ts";
import { floor } from "./adapters/floor.ts";
import { pm2Fork } from "./adapters/pm2.ts";
import { ours } from "./adapters/pugmark.ts";
import { supervisord } from "./adapters/supervisord.ts";
import { systemdHeld } from "./adapters/systemd.ts";
import { type Findings, measures } from "./measures.ts";

const adapters = { pugmark: ours, floor, pm2: pm2Fork, supervisord, systemd: systemdHeld };
const [adapterNames = Object.keys(adapters), measureNames = Object.keys(measures)] = process.argv
  .slice(2)
  .map((names) => names.split(","));

printMachine("supervisors");
const columns: { title: string; cells: Map<string, string> }[] = [];
for (const name of adapterNames) {
  const adapter = adapters[name as keyof typeof adapters];
  const version = await adapter.version();
  if (version === null) {
    console.error(`${adapter.title} is not on this machine: left out`);
    continue;
  }
  const cells = new Map([["version", version]]);
  for (const measure of measureNames) {
    console.error(`${adapter.title}: ${measure} …`);
    const findings: Findings = await measures[measure as keyof typeof measures](adapter);
    for (const [row, cell] of Object.entries(findings)) cells.set(row, cell);
  }
  columns.push({ title: adapter.title, cells });
}

const rows = new Set(columns.flatMap(({ cells }) => [...cells.keys()]));
console.log(`| | ${columns.map(({ title }) => title).join(" | ")} |\n|---|${"---|".repeat(columns.length)}`);
for (const row of rows)
  console.log(`| ${row} | ${columns.map(({ cells }) => cells.get(row) ?? "—").join(" | ")} |`);
