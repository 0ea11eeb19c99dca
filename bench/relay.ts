// What does it cost that the manager relays a program's port? Requests a second and their latency, and a transfer of 1 GiB,
// straight to the program and through the relay, in turns; and how long the manager's event loop is held up meanwhile.
//
//   node bench/relay.ts [requests]
import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { ProcessManager } from "../src/process-manager/process-manager.ts";
import { freePort } from "../test/support/ports.ts";
import { fire } from "./support/load.ts";
import { percentile, printMachine, rate } from "./support/report.ts";

const transferBytes = 1024 ** 3;
const rounds = 3;

const program = `
const http = require("node:http");
const piece = Buffer.alloc(256 * 1024, "x");
http.createServer((request, response) => {
  if (request.url !== "/large") return response.end("ok");
  let left = ${transferBytes} / piece.length;
  const send = () => { while (left > 0 && response.write(piece)) left -= 1; if (left > 0) left -= 1; else response.end(); };
  response.on("drain", send);
  send();
}).listen(Number(process.env.PORT), "127.0.0.1");
`;

interface Task {
  readonly port: number;
  readonly kind: "kept" | "new" | "large";
  readonly connections: number;
  readonly requests: number;
}

interface Outcome {
  readonly ms: number;
  readonly samples: readonly number[];
  readonly failed: number;
  readonly bytes: number;
}

if (process.send) await beLoad();
else await measure();

/** The clients run in a process of their own: they must not share the manager's event loop. */
async function beLoad(): Promise<void> {
  process.on("message", (task: Task) => void perform(task).then((outcome) => process.send?.(outcome)));
}

async function perform({ port, kind, connections, requests }: Task): Promise<Outcome> {
  const origin = `http://127.0.0.1:${port}`;
  if (kind === "kept") {
    const shots = Array.from({ length: requests }, () => ({ method: "GET", path: "/" }) as const);
    return { ...(await fire(origin, connections, shots)), bytes: 0 };
  }
  const samples: number[] = [];
  let bytes = 0;
  let left = requests;
  const begun = performance.now();
  const client = async (): Promise<void> => {
    while (left-- > 0) {
      const at = performance.now();
      const came = await get(`${origin}${kind === "large" ? "/large" : "/"}`);
      bytes += came;
      samples.push(performance.now() - at);
    }
  };
  await Promise.all(Array.from({ length: connections }, client));
  return { ms: performance.now() - begun, samples, failed: 0, bytes };
}

function get(url: string): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const request = http.get(url, { agent: false }, (response) => {
    let bytes = 0;
    response.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
    });
    response.on("end", () => resolve(bytes)).on("error", reject);
  });
  request.on("error", reject);
  return promise;
}

async function measure(): Promise<void> {
  const requests = Number(process.argv[2] ?? 20_000);
  printMachine("The relay beside a straight connection");
  const folder = await mkdtemp(join(tmpdir(), "bench-relay-"));
  const script = join(folder, "program.cjs");
  await writeFile(script, program);
  const ports = { straight: await freePort(), relayed: await freePort() };
  const command = [process.execPath, script] as const;
  const load = fork(import.meta.filename);
  const manager = await ProcessManager.open({
    home: join(folder, "home"),
    baseEnv: process.env,
    definitions: [
      { name: "straight", command, listen: { port: ports.straight }, readiness: { kind: "tcp" } },
      { name: "relayed", command, listen: { port: ports.relayed, relay: true } },
    ],
  });
  try {
    await manager.start();
    await manager.whenSettled();
    const ask = async (task: Task): Promise<Outcome> => {
      load.send(task);
      const [outcome] = await once(load, "message");
      return outcome as Outcome;
    };
    await compare("1 kept connection", { kind: "kept", connections: 1, requests: requests / 4 }, ports, ask);
    await compare("64 kept connections", { kind: "kept", connections: 64, requests }, ports, ask);
    await compare(
      "16 clients, each request its own",
      { kind: "new", connections: 16, requests: requests / 4 },
      ports,
      ask,
    );
    await compare("1 GiB", { kind: "large", connections: 1, requests: 1 }, ports, ask);
    await compare("4 × 1 GiB at once", { kind: "large", connections: 4, requests: 4 }, ports, ask);
    console.log(`\nmanager: ${Math.round(process.memoryUsage().rss / 1024 ** 2)} MiB after it all`);
  } finally {
    load.kill();
    await manager.stopAll();
    await rm(folder, { recursive: true });
  }
}

/** In turns, so that both see the same machine; the medians of the rounds. */
async function compare(
  name: string,
  task: Omit<Task, "port">,
  ports: Readonly<Record<"straight" | "relayed", number>>,
  ask: (task: Task) => Promise<Outcome>,
): Promise<void> {
  const rates = { straight: [] as number[], relayed: [] as number[] };
  console.log(`\n## ${name}`);
  for (let round = 0; round < rounds; round += 1)
    for (const way of ["straight", "relayed"] as const) {
      const lag = monitorEventLoopDelay({ resolution: 1 });
      const cpu = process.cpuUsage();
      lag.enable();
      const { ms, samples, failed, bytes } = await ask({ ...task, port: ports[way] });
      lag.disable();
      const { user, system } = process.cpuUsage(cpu);
      if (failed > 0 || samples.length !== task.requests) throw new Error(`${failed} requests failed`);
      if (task.kind === "large" && bytes !== task.requests * transferBytes)
        throw new Error(`${bytes} bytes came`);
      const speed = task.kind === "large" ? bytes / 1024 ** 2 / (ms / 1000) : rate(samples.length, ms);
      rates[way].push(speed);
      const latency = [0.5, 0.99].map((p) => percentile(samples, p).toFixed(2)).join(" / ");
      const held = [50, 99, 100].map((p) => (lag.percentile(p) / 1e6).toFixed(1)).join(" / ");
      console.log(
        `${way.padEnd(8)} ${speed.toFixed(0)} ${task.kind === "large" ? "MiB/s" : `/s, p50 / p99 ${latency} ms`}, ` +
          `manager: loop p50 / p99 / max ${held} ms, CPU ${((user + system) / 10 / ms).toFixed(0)} %`,
      );
    }
  const ratio = percentile(rates.relayed, 0.5) / percentile(rates.straight, 0.5);
  console.log(`ratio of the medians, relayed : straight: ${ratio.toFixed(2)}`);
}
