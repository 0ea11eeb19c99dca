import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { promisify } from "node:util";
import { readStat } from "./processes.ts";
import { listTcpListeners, socketInodesOf } from "./tcp-listeners.ts";

const run = promisify(execFile);

/** A process and what it uses. A zombie is one too: its processor time is not yet its parent's. */
export interface ProcessFacts {
  readonly pid: number;
  readonly ppid: number;
  readonly pgid: number;
  readonly isZombie: boolean;
  /** Milliseconds since the epoch. */
  readonly startedAtMs: number;
  /** On Linux with that of the children it has waited for. */
  readonly cpuSeconds: number;
  /** Resident memory; 0 where it has ended meanwhile. Read when asked for. */
  readonly memoryBytes: () => number;
  /** The environment that it was started with, as `KEY=VALUE` between separators; empty where we may not look. */
  readonly environment: () => string;
}

/** Clock ticks in a second, as `/proc` counts them: the same on every Linux that Node runs on. */
const ticksPerSecond = 100;

/** All processes of this machine; null on Windows, which has no cheap answer. */
export async function listProcessFacts(): Promise<ProcessFacts[] | null> {
  if (process.platform === "linux") return factsFromProc();
  if (process.platform === "win32") return null;
  const columns = "pid=,ppid=,pgid=,stat=,rss=,time=,etime=,command=";
  const { stdout } = await run("ps", ["-axwwE", "-o", columns], { maxBuffer: 64 * 1024 * 1024 });
  return parsePsFacts(stdout, Date.now());
}

/** When a Linux process started, in milliseconds since the epoch; null when it is gone. */
export function startedAtMsOf(pid: number): number | null {
  const stat = readStat(pid);
  return stat && bootedAtMs() + ticksToMs(Number(stat.startTicks));
}

/** The lines of `ps -axwwE -o pid=,ppid=,pgid=,stat=,rss=,time=,etime=,command=` as macOS prints them. */
export function parsePsFacts(text: string, nowMs: number): ProcessFacts[] {
  return text.split("\n").flatMap((line) => {
    const [, pid, ppid, pgid, state, kibibytes, time, elapsed, command] =
      /^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\S+)\s+(\d+)\s+(\S+)\s+(\S+)\s(.*)$/.exec(line) ?? [];
    if (!pid || !state || !time || !elapsed) return [];
    return [
      {
        pid: Number(pid),
        ppid: Number(ppid),
        pgid: Number(pgid),
        isZombie: state.startsWith("Z"),
        startedAtMs: nowMs - clockSeconds(elapsed) * 1000,
        cpuSeconds: clockSeconds(time),
        memoryBytes: () => Number(kibibytes) * 1024,
        environment: () => ` ${command} `,
      },
    ];
  });
}

/** `1:02.34`, `01:02:03` or `2-01:02:03` as seconds. */
function clockSeconds(text: string): number {
  const [, days = "0", clock = ""] = /^(?:(\d+)-)?(.*)$/.exec(text) ?? [];
  return clock.split(":").reduce((seconds, part) => seconds * 60 + Number(part), 0) + Number(days) * 86_400;
}

/** The TCP ports that each of the processes listens on. */
export async function portsOf(pids: readonly number[]): Promise<ReadonlyMap<number, number[]>> {
  if (pids.length === 0) return new Map();
  if (process.platform !== "linux") {
    const options = ["-nP", "-iTCP", "-sTCP:LISTEN", "-a", "-p", pids.join(","), "-Fpn"];
    // It exits with 1 where one of them listens on nothing; what it found is printed all the same.
    const { stdout } = await run("lsof", options).catch((error: { stdout?: string }) => error);
    return parseLsofPorts(stdout ?? "");
  }
  const portOfInode = new Map(listTcpListeners().map(({ inode, port }) => [inode, port]));
  const portsAt = (pid: number) => socketInodesOf(pid).flatMap((inode) => portOfInode.get(inode) ?? []);
  return new Map(pids.map((pid) => [pid, portsAt(pid)]));
}

/** Ports by pid in what `lsof -Fpn` prints: a line `pPID`, then lines `nADDRESS:PORT`. */
export function parseLsofPorts(text: string): Map<number, number[]> {
  const ports = new Map<number, number[]>();
  let pid = 0;
  for (const line of text.split("\n")) {
    if (line.startsWith("p")) pid = Number(line.slice(1));
    const port = /^n.*:(\d+)$/.exec(line)?.[1];
    if (port) ports.set(pid, [...(ports.get(pid) ?? []), Number(port)]);
  }
  return ports;
}

function factsFromProc(): ProcessFacts[] {
  const bootMs = bootedAtMs();
  // Synchronous on purpose: a few hundred reads of memory cost less than their trips to the thread pool.
  return readdirSync("/proc").flatMap((name) => {
    const stat = /^\d+$/.test(name) ? readStat(name) : null;
    if (!stat) return [];
    return [
      {
        pid: Number(name),
        ppid: stat.ppid,
        pgid: stat.pgid,
        isZombie: stat.state === "Z" || stat.state === "X",
        startedAtMs: bootMs + ticksToMs(Number(stat.startTicks)),
        cpuSeconds: stat.cpuTicks / ticksPerSecond,
        memoryBytes: () =>
          Number(/^VmRSS:\s+(\d+) kB/m.exec(readOrEmpty(`/proc/${name}/status`))?.[1] ?? 0) * 1024,
        environment: () => `\0${readOrEmpty(`/proc/${name}/environ`)}\0`,
      },
    ];
  });
}

function bootedAtMs(): number {
  return Number(/^btime (\d+)$/m.exec(readOrEmpty("/proc/stat"))?.[1] ?? 0) * 1000;
}

function ticksToMs(ticks: number): number {
  return (ticks / ticksPerSecond) * 1000;
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, "utf8"); // any other encoding takes a buffer of 64 KiB for each of these small files
  } catch {
    return ""; // gone meanwhile, or another user's
  }
}
