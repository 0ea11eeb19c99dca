import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";

/** A process of a run: everything that one starts carries `BENCH_RUN` in its environment, a service's `BENCH_SERVICE` too. */
export interface RunProcess {
  readonly pid: number;
  /** Null for the supervisor and whatever helps it. */
  readonly service: string | null;
}

/** All processes of a run that live; zombies do not. */
export function processesOf(run: string): RunProcess[] {
  return readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) return [];
    const environment = read(`/proc/${name}/environ`);
    if (!environment.includes(`BENCH_RUN=${run}\0`)) return [];
    const stat = read(`/proc/${name}/stat`);
    if (stat === "" || stat.slice(stat.lastIndexOf(")") + 2).startsWith("Z")) return [];
    const service = /(?:^|\0)BENCH_SERVICE=([^\0]*)/.exec(environment)?.[1] ?? null;
    return [{ pid: Number(name), service }];
  });
}

export function supervisorPids(run: string): number[] {
  return processesOf(run).flatMap(({ pid, service }) => (service === null ? [pid] : []));
}

export function servicePids(run: string, name: string): number[] {
  return processesOf(run).flatMap(({ pid, service }) => (service === name ? [pid] : []));
}

/** Resident memory now and at its highest, MiB, of all these processes together. */
export function memoryOf(pids: readonly number[]): {
  readonly residentMiB: number;
  readonly peakMiB: number;
} {
  const status = pids.map((pid) => read(`/proc/${pid}/status`));
  const total = (key: string): number =>
    status.reduce((sum, text) => sum + Number(new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(text)?.[1] ?? 0), 0);
  return { residentMiB: total("VmRSS") / 1024, peakMiB: total("VmHWM") / 1024 };
}

/** Processor seconds of these processes, all threads, and of the children that they have buried. */
export function cpuOf(pids: readonly number[]): { readonly own: number; readonly children: number } {
  let own = 0;
  let children = 0;
  for (const pid of pids) {
    const stat = read(`/proc/${pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    children += (Number(fields[13] ?? 0) + Number(fields[14] ?? 0)) / 100;
    for (const thread of list(`/proc/${pid}/task`))
      own += Number(read(`/proc/${pid}/task/${thread}/schedstat`).split(" ")[0] || 0) / 1e9;
  }
  return { own, children };
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

export function kill(pid: number, signal: NodeJS.Signals = "SIGKILL"): void {
  try {
    process.kill(pid, signal);
  } catch {
    // it was faster
  }
}

/** Ends whatever is left of a run, the supervisor before what it would start again. */
export async function sweep(run: string): Promise<void> {
  for (let round = 0; round < 40; round += 1) {
    const left = processesOf(run);
    if (left.length === 0) return;
    for (const { pid } of [...left].sort((a, b) => Number(a.service !== null) - Number(b.service !== null)))
      kill(pid);
    await delay(50);
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
