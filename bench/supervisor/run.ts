// How does Pugmark's process manager compare with a bare respawn, PM2, supervisord and systemd? Linux only.
//
//   node bench/supervisor/run.ts [ADAPTERS [MEASURES]]       e.g.  floor,pugmark crash,load
//
// A peer that is not on this machine is left out. Prints one Markdown table; a quarter of an hour for all five.
import { printMachine } from "../support/report.ts";
import type { Adapter } from "./adapters/adapter.ts";
import { floor } from "./adapters/floor.ts";
import { pm2Fork } from "./adapters/pm2.ts";
import { ours } from "./adapters/pugmark.ts";
import { supervisord } from "./adapters/supervisord.ts";
import { systemdHeld } from "./adapters/systemd.ts";
import { measures } from "./measures.ts";

const adapters = { pugmark: ours, floor, pm2: pm2Fork, supervisord, systemd: systemdHeld };
const [adapterNames = Object.keys(adapters), measureNames = Object.keys(measures)] = process.argv
  .slice(2)
  .map((names) => names.split(","));

/** What is measured in milliseconds has the machine for itself; what mostly waits or counts runs side by side. */
const alone = new Set(["cold", "crash", "load", "rolling", "flood"]);

printMachine("supervisors");
const columns: { adapter: Adapter; cells: Map<string, string> }[] = [];
for (const name of adapterNames) {
  const adapter = adapters[name as keyof typeof adapters];
  const version = await adapter.version();
  if (version === null) console.error(`${adapter.title} is not on this machine: left out`);
  else columns.push({ adapter, cells: new Map([["version", version]]) });
}

for (const name of measureNames) {
  const measure = async ({ adapter, cells }: (typeof columns)[number]): Promise<void> => {
    console.error(`${adapter.title}: ${name} …`);
    const findings = await measures[name as keyof typeof measures](adapter);
    for (const [row, cell] of Object.entries(findings)) cells.set(row, cell);
  };
  if (alone.has(name)) for (const column of columns) await measure(column);
  else await Promise.all(columns.map(measure));
}

const rows = new Set(columns.flatMap(({ cells }) => [...cells.keys()]));
console.log(
  `| | ${columns.map(({ adapter }) => adapter.title).join(" | ")} |\n|---|${"---|".repeat(columns.length)}`,
);
for (const row of rows)
  console.log(`| ${row} | ${columns.map(({ cells }) => cells.get(row) ?? "—").join(" | ")} |`);
