// What does a gateway cost, and what does it give, in front of a local model? Ours beside its peers, in one run.
//
//   node bench/gateway/run.ts [--peers pugmark,floor,nginx,nginx-cache,portkey] [--only latency,throughput,…]
//                             [--seconds 5] [--memory] [--json]
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { printMachine } from "../support/report.ts";
import { floor } from "./gateways/floor.ts";
import type { Gateway } from "./gateways/gateway.ts";
import { nginx, nginxCache } from "./gateways/nginx.ts";
import { portkey } from "./gateways/portkey.ts";
import { pugmark } from "./gateways/pugmark.ts";
import { loader } from "./load.ts";
import { type Bench, measures } from "./measures.ts";
import type { Counts } from "./question.ts";

const gateways: Readonly<Record<string, Gateway>> = {
  pugmark,
  floor,
  nginx,
  "nginx-cache": nginxCache,
  portkey,
};
const { values } = parseArgs({
  options: {
    peers: { type: "string", default: Object.keys(gateways).join(",") },
    only: { type: "string" },
    seconds: { type: "string", default: "5" },
    memory: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  },
});
const names =
  values.only?.split(",") ?? Object.keys(measures).filter((name) => name !== "memory" || values.memory);

await using all = new AsyncDisposableStack();
const columns: { readonly title: string; readonly bench: Bench; readonly cells: Map<string, string> }[] = [];
for (const name of values.peers.split(",")) {
  const gateway = gateways[name];
  if (!gateway) throw new Error(`no gateway ${name}; there are ${Object.keys(gateways).join(", ")}`);
  const { title, version, start } = gateway;
  const found = await version();
  if ("missing" in found) {
    console.error(`${title} is left out: ${found.missing}`);
    continue;
  }
  // Each has a stand-in of its own: none finds it warmed up by another.
  const lmStudio = all.use(await startLmStudio());
  const bench = {
    ...lmStudio,
    gateway: all.use(await start(lmStudio.direct.origin)),
    seconds: Number(values.seconds),
  };
  columns.push({ title, bench, cells: new Map([["version", found.version]]) });
}

// One measure goes over all gateways before the next begins: what else the machine does changes with time.
for (const name of names) {
  for (const { title, bench, cells } of columns) {
    console.error(`${title}: ${name} …`);
    const findings = await measures[name as keyof typeof measures](bench);
    for (const [row, cell] of Object.entries(findings)) cells.set(row, cell);
  }
}

if (values.json) {
  const results = columns.map(({ title, cells }) => [title, Object.fromEntries(cells)]);
  console.log(JSON.stringify(Object.fromEntries(results), null, 2));
} else {
  printMachine(
    `gateways; load by ${loader}, ${values.seconds} s each; 1,000 pairs for latency, 300 for first chunks`,
  );
  const rows = new Set(columns.flatMap(({ cells }) => [...cells.keys()]));
  console.log(
    `| | ${columns.map(({ title }) => title).join(" | ")} |\n|---|${"---|".repeat(columns.length)}`,
  );
  for (const row of rows)
    console.log(`| ${row} | ${columns.map(({ cells }) => cells.get(row) ?? "—").join(" | ")} |`);
}

async function startLmStudio() {
  const program = join(import.meta.dirname, "fast-lm-studio.ts");
  const child = spawn(process.execPath, [program], { stdio: ["ignore", "pipe", "inherit"] });
  const [printed] = await once(child.stdout, "data");
  const { url, door } = JSON.parse(String(printed)) as { url: string; door: string };
  return {
    direct: { origin: url, headers: {} },
    counts: async () => (await (await fetch(door)).json()) as Counts,
    resetCounts: async () => void (await (await fetch(door, { method: "DELETE" })).arrayBuffer()),
    async [Symbol.asyncDispose]() {
      child.kill();
      await once(child, "exit");
    },
  };
}
