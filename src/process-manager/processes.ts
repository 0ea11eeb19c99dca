import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";

const run = promisify(execFile);

/** A process of this machine that still runs (a zombie does not). */
export interface ProcessEntry {
  readonly pid: number;
  readonly ppid: number;
  readonly pgid: number;
  /** Clock ticks from boot to its start; 0 where the platform does not say. */
  readonly startTicks: number;
  /** Whether `KEY=VALUE` is in the environment it was started with. False where we may not look. */
  readonly carries: (assignment: string) => boolean;
}

/**
 * All processes, once over. Linux reads /proc (environments only when asked for); macOS asks `ps`, which
 * shows the environments of one's own programs but not of Apple's; Windows has no answer: an empty list.
 */
export async function listProcesses(): Promise<ProcessEntry[]> {
  if (process.platform === "linux") return listFromProc();
  return process.platform === "win32" ? [] : await listFromPs();
}

function listFromProc(): ProcessEntry[] {
  // Synchronous on purpose: a few hundred reads of memory cost less than their trips to the thread pool.
  return readdirSync("/proc").flatMap((name) => {
    const stat = /^\d+$/.test(name) ? readStat(name) : null;
    if (!stat || stat.state === "Z" || stat.state === "X") return [];
    const carries = (assignment: string): boolean =>
      `\0${readOr(`/proc/${name}/environ`, "")}\0`.includes(`\0${assignment}\0`);
    const { ppid, pgid } = stat;
    return [{ pid: Number(name), ppid, pgid, startTicks: Number(stat.startTicks), carries }];
  });
}

/** What Linux's `/proc/PID/stat` says of a process. */
export interface ProcStat {
  readonly state: string;
  readonly ppid: number;
  readonly pgid: number;
  /** Clock ticks from boot to the start of the process. */
  readonly startTicks: string;
  /** Clock ticks of processor time, its own and that of the children it has waited for. */
  readonly cpuTicks: number;
}

/** Null when there is no such process, or no `/proc`. */
export function readStat(pid: number | string): ProcStat | null {
  const text = readOr(`/proc/${pid}/stat`, "");
  // The second field is the program's name and may hold spaces and brackets: count from its last bracket.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [state, ppid, pgid] = fields;
  if (!state || !ppid || !pgid) return null;
  const cpuTicks = fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0);
  return { state, ppid: Number(ppid), pgid: Number(pgid), startTicks: fields[19] ?? "", cpuTicks };
}

function readOr(path: string, otherwise: string): string {
  try {
    return readFileSync(path, "utf8"); // any other encoding takes a buffer of 64 KiB for each of these small files
  } catch {
    return otherwise; // gone meanwhile, or another user's
  }
}

async function listFromPs(): Promise<ProcessEntry[]> {
  const { stdout } = await run("ps", ["-axwwE", "-o", "pid=,ppid=,pgid=,stat=,command="], {
    maxBuffer: 64 * 1024 * 1024,
  });
  return stdout.split("\n").flatMap((line) => {
    const [, pid, ppid, pgid, state, command] = /^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\S+)\s(.*)$/.exec(line) ?? [];
    if (!pid || !state || state.startsWith("Z")) return [];
    const carries = (assignment: string): boolean => ` ${command} `.includes(` ${assignment} `);
    return [{ pid: Number(pid), ppid: Number(ppid), pgid: Number(pgid), startTicks: 0, carries }];
  });
}

/** Clock ticks from boot to the start of this process; 0 when it is gone, or where the platform does not say. */
export function startTicksOf(pid: number): number {
  return process.platform === "linux" ? Number(readStat(pid)?.startTicks ?? 0) : 0;
}

/** The process and all that descend from it, itself first. */
export function descendantsOf(pid: number, entries: readonly ProcessEntry[]): ProcessEntry[] {
  const found = entries.filter((entry) => entry.pid === pid);
  for (const parent of found) found.push(...entries.filter((entry) => entry.ppid === parent.pid));
  return found;
}

/** Sends a signal to one process. False when it is gone or not ours to signal. */
export function signalProcess(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch {
    return false;
  }
}

/** Sends a signal to a whole process group (0 only asks whether it is there: zombies count). */
export function signalGroup(pgid: number, signal: NodeJS.Signals | 0): boolean {
  if (process.platform !== "win32") return signalProcess(-pgid, signal);
  if (signal === 0) return signalProcess(pgid, 0);
  // Windows has neither groups nor signals: the tree is ended as it stands.
  execFile("taskkill", ["/pid", String(pgid), "/T", "/F"], () => undefined);
  return true;
}

/** Whether anything but zombies is left of a group. */
export async function isGroupAlive(pgid: number): Promise<boolean> {
  if (!signalGroup(pgid, 0)) return false;
  if (process.platform === "win32") return true;
  return (await listProcesses()).some((entry) => entry.pgid === pgid);
}

/**
 * SIGKILLs whatever `isDoomed` picks until nothing of it is left, again and again since it may fork meanwhile.
 * Returns the pids that would not go within the time, which only a process stuck in the kernel does.
 */
export async function killAll(
  isDoomed: (entry: ProcessEntry) => boolean,
  timeoutMs = 2_000,
): Promise<number[]> {
  const until = performance.now() + timeoutMs;
  for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 2, 50)) {
    const left = (await listProcesses()).filter((entry) => entry.pid !== process.pid && isDoomed(entry));
    if (left.length === 0 || performance.now() > until) return left.map((entry) => entry.pid);
    for (const { pid } of left) signalProcess(pid, "SIGKILL");
    await delay(pauseMs);
  }
}

/**
 * What tells a process from a later one with the same pid: its start, and the boot it was in. Empty when the
 * pid is not in use, "unknown" where the platform does not say.
 */
export async function processIdentity(pid: number): Promise<string> {
  if (process.platform === "linux") {
    const stat = readStat(pid);
    const boot = readOr("/proc/sys/kernel/random/boot_id", "").trim();
    return stat && stat.state !== "Z" ? `${boot}:${stat.startTicks}` : "";
  }
  if (!signalProcess(pid, 0)) return "";
  if (process.platform === "win32") return "unknown";
  const { stdout } = await run("ps", ["-o", "lstart=", "-p", String(pid)]).catch(() => ({ stdout: "" }));
  return stdout.trim();
}
