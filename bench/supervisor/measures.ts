import { createReadStream, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { freePort } from "../../test/support/ports.ts";
import { percentile } from "../support/report.ts";
import { type Adapter, type BenchService, type Run, until } from "./adapters/adapter.ts";
import { type Answer, ask, load, untilServing } from "./client.ts";
import {
  cpuOf,
  isAlive,
  kill,
  memoryOf,
  processesOf,
  servicePids,
  supervisorPids,
  sweep,
} from "./processes.ts";

/** What a measure found: a row's title → its cell. */
export type Findings = Readonly<Record<string, string>>;

const linesOfFlood = Number(process.env.BENCH_LINES ?? 2_000_000);
let runs = 0;

/** A run with these services; whatever it leaves behind is ended and its folder removed. */
async function during(
  adapter: Adapter,
  wanted: readonly BenchService[] | ((folder: string) => readonly BenchService[]),
  work: (run: Run) => Promise<Findings>,
): Promise<Findings> {
  runs += 1;
  const id = `${process.pid}x${runs}`;
  const folder = mkdtempSync(join(tmpdir(), "supervisor-bench-"));
  const env: NodeJS.ProcessEnv = { ...process.env, BENCH_RUN: id };
  const services = (typeof wanted === "function" ? wanted(folder) : wanted).map((service) => ({
    ...service,
    env: { BENCH_RUN: id, BENCH_SERVICE: service.name, ...service.env },
  }));
  const run: Run = { id, folder, env, services, mainPid: 0 };
  try {
    adapter.configure(run);
    return await work(run);
  } finally {
    await adapter.stop(run).catch(() => undefined);
    await sweep(id);
    rmSync(folder, { recursive: true, force: true });
  }
}

const file = (name: string): string => fileURLToPath(new URL(`services/${name}`, import.meta.url));

async function webServices(
  count: number,
  more: Partial<BenchService> = {},
  variables: (index: number) => Record<string, string> = () => ({}),
): Promise<BenchService[]> {
  const services: BenchService[] = [];
  for (let index = 0; index < count; index += 1) {
    const port = await freePort();
    const env = { PORT: String(port), ...variables(index) };
    services.push({ name: `web${index}`, command: [process.execPath, file("web.mjs")], env, port, ...more });
  }
  return services;
}

const portOf = (run: Run, name = "web0"): number => run.services.find((one) => one.name === name)?.port ?? 0;

async function startAll(adapter: Adapter, run: Run): Promise<number> {
  const begun = performance.now();
  const started = adapter.start(run);
  const ports = run.services.flatMap(({ port }) => (port === undefined ? [] : [port]));
  const ready = await Promise.all(ports.map((port) => untilServing(port, 30_000, begun)));
  if (ready.includes(null)) throw new Error(`${adapter.title}: a service did not get ready within 30 s`);
  const tookMs = performance.now() - begun;
  await started;
  return tookMs;
}

const ms = (samples: readonly (number | null)[]): string => {
  const good = samples.filter((sample) => sample !== null);
  if (good.length === 0) return "never";
  const lost = samples.length - good.length;
  const text = `${Math.round(percentile(good, 0.5))} (${Math.round(Math.max(...good))})`;
  return lost > 0 ? `${text}, ${lost} never` : text;
};

async function cold(adapter: Adapter): Promise<Findings> {
  const ready: number[] = [];
  const stop: number[] = [];
  const status: number[] = [];
  for (let round = 0; round < 5; round += 1) {
    await during(adapter, await webServices(4), async (run) => {
      ready.push(await startAll(adapter, run));
      await delay(1_500);
      if (adapter.status) status.push(await timed(() => adapter.status?.(run)));
      stop.push(await timed(() => adapter.stop(run)));
      return {};
    });
  }
  return {
    "cold start, 4 services ready, ms (max)": ms(ready),
    "status command, ms (max)": status.length > 0 ? ms(status) : "—",
    "full stop of 4, ms (max)": ms(stop),
  };
}

async function timed(work: () => Promise<unknown> | undefined): Promise<number> {
  const begun = performance.now();
  await work();
  return performance.now() - begun;
}

/** Kills a service's process and waits until its port answers again. */
async function killOnce(run: Run, name = "web0"): Promise<number | null> {
  const pids = servicePids(run.id, name);
  if (pids.length === 0) return null;
  const begun = performance.now();
  for (const pid of pids) kill(pid);
  await until(() => !pids.some(isAlive), 1_000, 1);
  return await untilServing(portOf(run, name), 20_000, begun);
}

async function crash(adapter: Adapter): Promise<Findings> {
  return await during(adapter, await webServices(4), async (run) => {
    await startAll(adapter, run);
    const kills = async (count: number, uptimeMs: number): Promise<(number | null)[]> => {
      const samples: (number | null)[] = [];
      for (let index = 0; index < count; index += 1) {
        await delay(uptimeMs);
        samples.push(await killOnce(run));
      }
      return samples;
    };
    return {
      "kill -9 → serving, after 1.5 s of service, ms (max)": ms(await kills(9, 1_500)),
      "same, after 0.3 s": ms(await kills(7, 300)),
    };
  });
}

const outcome = (counts: Record<Answer, number>): string =>
  `${counts.ok.toLocaleString("en")} / ${counts.refused} / ${counts.reset} / ${counts["timed out"] + counts.other}`;

async function underLoad(adapter: Adapter): Promise<Findings> {
  return await during(adapter, await webServices(4), async (run) => {
    await startAll(adapter, run);
    const end = load(portOf(run));
    const outages: (number | null)[] = [];
    for (let index = 0; index < 20; index += 1) {
      await delay(1_500);
      outages.push(await killOnce(run));
    }
    const counts = await end();
    const total = Object.values(counts).reduce((sum, count) => sum + count, 0);
    return {
      "20 kills under load: ok / refused / reset / timed out": outcome(counts),
      "… failed, %": ((100 * (total - counts.ok)) / total).toFixed(2),
      "… kill → serving, ms (max)": ms(outages),
    };
  });
}

async function rolling(adapter: Adapter): Promise<Findings> {
  const { restart } = adapter;
  const row = "5 restarts by command under load: ok / refused / reset / timed out";
  if (!restart) return { [row]: "—" };
  return await during(adapter, await webServices(4), async (run) => {
    await startAll(adapter, run);
    await delay(1_500);
    const end = load(portOf(run));
    const took: number[] = [];
    for (let index = 0; index < 5; index += 1) {
      took.push(await timed(() => restart(run, "web0")));
      await untilServing(portOf(run), 20_000);
      await delay(1_500);
    }
    return { [row]: outcome(await end()), "… one restart, ms (max)": ms(took) };
  });
}

async function hung(adapter: Adapter): Promise<Findings> {
  const row = "hung service → serving, ms (max)";
  return await during(adapter, await webServices(2, { isProbed: true }), async (run) => {
    await startAll(adapter, run);
    await delay(6_000);
    const samples: (number | null)[] = [];
    for (let index = 0; index < (adapter.probes ? 5 : 1); index += 1) {
      await ask(portOf(run), "/stall");
      samples.push(await untilServing(portOf(run), adapter.probes ? 60_000 : 15_000));
      await delay(6_000);
    }
    return { [row]: ms(samples) };
  });
}

async function idle(adapter: Adapter): Promise<Findings> {
  const resident: number[] = [];
  let findings: Findings = {};
  for (const count of [4, 12]) {
    findings = await during(adapter, await webServices(count), async (run) => {
      await startAll(adapter, run);
      await delay(6_000);
      const pids = supervisorPids(run.id);
      const before = cpuOf(pids);
      const begun = performance.now();
      await delay(count === 4 ? 15_000 : 2_000);
      const after = cpuOf(pids);
      const share = (after.own + after.children - before.own - before.children) / (performance.now() - begun);
      resident.push(memoryOf(pids).residentMiB);
      const service = memoryOf(servicePids(run.id, "web0")).residentMiB;
      if (count !== 4) return findings;
      return {
        "idle with 4 services: resident MiB (processes)": `${Math.round(resident[0] ?? 0)} (${pids.length})`,
        "… CPU, % of a core": (share * 100_000).toFixed(2),
        "… one service, resident MiB": String(Math.round(service)),
      };
    });
  }
  const each = ((resident[1] ?? 0) - (resident[0] ?? 0)) / 8;
  return { ...findings, "… each further service, MiB": each.toFixed(1) };
}

async function flood(adapter: Adapter): Promise<Findings> {
  const took: number[] = [];
  const peak: number[] = [];
  const cpu: number[] = [];
  let missing = 0;
  let broken = 0;
  for (let round = 0; round < 3; round += 1) {
    const servicesOf = (folder: string): BenchService[] => [
      {
        name: "flood",
        command: [process.execPath, file("flood.mjs")],
        env: { LINES: String(linesOfFlood), DONE_FILE: join(folder, "done.json") },
      },
    ];
    await during(adapter, servicesOf, async (run) => {
      await adapter.start(run);
      const done = join(run.folder, "done.json");
      await until(() => existsSync(done) && readFileSync(done, "utf8").endsWith("}"), 180_000);
      const settledAt = await sizeSettles(() => adapter.logFiles(run, "flood"));
      const { begunAt } = JSON.parse(readFileSync(done, "utf8")) as { begunAt: number };
      took.push(settledAt - begunAt);
      const pids = supervisorPids(run.id);
      peak.push(memoryOf(pids).peakMiB);
      cpu.push(cpuOf(pids).own);
      const counts = await countLines(adapter.logFiles(run, "flood"));
      missing = Math.max(missing, linesOfFlood - counts.lines);
      broken = Math.max(broken, counts.lines - counts.whole);
      return {};
    });
  }
  return {
    [`${linesOfFlood / 10_000} MB of log, all in its files, ms (max)`]: ms(took),
    "… supervisor's CPU s": percentile(cpu, 0.5).toFixed(1),
    "… its peak resident MiB": String(Math.round(percentile(peak, 0.5))),
    "… lines missing / broken": `${missing} / ${broken}`,
  };
}

/** When (epoch ms) the files last grew, told once they have not for 2 s. */
async function sizeSettles(files: () => string[]): Promise<number> {
  let size = -1;
  let grewAt = Date.now();
  await until(() => {
    const now = files().reduce(
      (sum, path) => sum + (statSync(path, { throwIfNoEntry: false })?.size ?? 0),
      0,
    );
    if (now !== size) grewAt = Date.now();
    size = now;
    return Date.now() - grewAt > 2_000;
  }, 180_000);
  return grewAt;
}

async function countLines(files: readonly string[]): Promise<{ lines: number; whole: number }> {
  let lines = 0;
  let whole = 0;
  for (const path of files) {
    let rest = "";
    for await (const chunk of createReadStream(path, { encoding: "latin1", highWaterMark: 1 << 20 })) {
      const parts = (rest + chunk).split("\n");
      rest = parts.pop() ?? "";
      for (const line of parts.filter((part) => part.includes("xxxxxxxxxx"))) {
        lines += 1;
        if (/\d{10} x{88}$/.test(line)) whole += 1;
      }
    }
  }
  return { lines, whole };
}

async function stop(adapter: Adapter): Promise<Findings> {
  const took: number[] = [];
  const left = new Map<string, number>();
  for (let round = 0; round < 3; round += 1) {
    const services: BenchService[] = [
      ...(await webServices(1)),
      { name: "deaf", command: [process.execPath, file("deaf.mjs")], env: {} },
      { name: "family", command: [process.execPath, file("family.mjs")], env: { FAMILY: "same" } },
      { name: "runaway", command: [process.execPath, file("family.mjs")], env: { FAMILY: "setsid" } },
    ];
    await during(adapter, services, async (run) => {
      await startAll(adapter, run);
      await until(() => processesOf(run.id).filter(({ service }) => service !== null).length >= 6, 10_000);
      await delay(1_500);
      took.push(await timed(() => adapter.stop(run)));
      await delay(1_500);
      for (const { service } of processesOf(run.id)) {
        const name = service ?? "supervisor";
        left.set(name, (left.get(name) ?? 0) + 1);
      }
      return {};
    });
  }
  return {
    "stop with a deaf service and runaway children, ms (max)": ms(took),
    "… processes left, of 3 stops": [...left].map(([name, count]) => `${count} ${name}`).join(", ") || "none",
  };
}

async function murder(adapter: Adapter): Promise<Findings> {
  const chatty = (index: number): Record<string, string> => (index < 2 ? {} : { CHATTY: "1" });
  return await during(adapter, await webServices(4, {}, chatty), async (run) => {
    await startAll(adapter, run);
    await delay(2_500);
    const before = new Set(processesOf(run.id).flatMap(({ pid, service }) => (service ? [pid] : [])));
    kill(run.mainPid);
    await delay(5_000);
    const orphans = processesOf(run.id).filter(({ pid }) => before.has(pid)).length;
    await adapter.start(run);
    await delay(10_000);
    const kept = processesOf(run.id).filter(({ pid }) => before.has(pid)).length;
    const answers = await Promise.all(run.services.map(({ port = 0 }) => ask(port)));
    return {
      "supervisor killed -9: its services alive 5 s later, of 4": String(orphans),
      "… started again: old processes, serving of 4": `${kept}, ${answers.filter((one) => one === "ok").length}`,
      "… a killed service comes back": (await killOnce(run)) === null ? "no" : "yes",
    };
  });
}

async function loop(adapter: Adapter): Promise<Findings> {
  const web = await webServices(1);
  const servicesOf = (folder: string): BenchService[] => [
    ...web,
    { name: "looper", command: ["/bin/sh", "-c", `echo x >> ${join(folder, "starts")}; exit 1`], env: {} },
  ];
  return await during(adapter, servicesOf, async (run) => {
    await startAll(adapter, run);
    const starts = (): number => readFileSync(join(run.folder, "starts"), "utf8").length / 2;
    await delay(30_000);
    const cpu = cpuOf(supervisorPids(run.id));
    const after30 = starts();
    await delay(5_000);
    return {
      "crash loop: starts in 30 s, in 5 s more": `${after30}, ${starts() - after30}`,
      "… CPU s: supervisor + its children": `${cpu.own.toFixed(1)} + ${cpu.children.toFixed(1)}`,
      "… state shown": (await adapter.status?.(run)) ?? "—",
    };
  });
}

/** Every measure, in the order of the table. */
export const measures = {
  cold,
  crash,
  load: underLoad,
  rolling,
  hung,
  idle,
  flood,
  stop,
  murder,
  loop,
} satisfies Record<string, (adapter: Adapter) => Promise<Findings>>;
