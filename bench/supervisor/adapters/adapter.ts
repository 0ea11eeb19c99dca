import { execFile, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

/** A service that every supervisor is asked to run in the same way. */
export interface BenchService {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
  readonly port?: number;
  /** GET / on the port each second, one second for the answer, three failures: then it is to be replaced. */
  readonly isProbed?: boolean;
}

/** A run of one supervisor: its folder, the environment of all it starts, what it is to run. */
export interface Run {
  readonly id: string;
  readonly folder: string;
  readonly env: NodeJS.ProcessEnv;
  services: readonly BenchService[];
  /** The process that `start` left behind; what is killed when the supervisor is. */
  mainPid: number;
}

/** What a supervisor must be told to be measured. Stopping: SIGTERM, SIGKILL after 3 s. */
export interface Adapter {
  readonly title: string;
  /** Whether it can replace a service that hangs. */
  readonly probes: boolean;
  /** Its version, or null where it is not on this machine. */
  version(): Promise<string | null>;
  /** Writes its configuration for the run's services. */
  configure(run: Run): void;
  /** Starts it in the background; need not wait for the services. */
  start(run: Run): Promise<void>;
  /** Stops everything, itself too, and returns when it says that this is done. */
  stop(run: Run): Promise<void>;
  /** Files with a service's standard output, rotated ones included; none where it keeps none. */
  logFiles(run: Run, name: string): string[];
  status?(run: Run): Promise<string>;
  restart?(run: Run, name: string): Promise<void>;
}

export const stopTimeoutMs = 3_000;

/** Runs a program to its end; its output, whatever its exit code. */
export async function execute(
  program: string,
  args: readonly string[],
  { env, folder }: Pick<Run, "env" | "folder">,
): Promise<string> {
  return await new Promise((resolve) => {
    execFile(
      program,
      [...args],
      { env, cwd: folder, timeout: 60_000, maxBuffer: 1 << 26 },
      (_error, stdout) => resolve(stdout),
    );
  });
}

/** The first line that a program prints, or null where there is no such program. */
export async function firstLineOf(program: string, ...args: string[]): Promise<string | null> {
  return await new Promise((resolve) => {
    execFile(program, args, (error, stdout) => {
      const isMissing = error !== null && "code" in error && error.code === "ENOENT";
      resolve(isMissing ? null : (stdout.trim().split("\n").at(-1) ?? ""));
    });
  });
}

/** Starts a supervisor that stays in the foreground, in a session of its own, its output in a file. */
export function startInBackground(run: Run, program: string, args: readonly string[]): number {
  const output = openSync(join(run.folder, "supervisor.out"), "a");
  const child = spawn(program, args, {
    env: run.env,
    cwd: run.folder,
    detached: true,
    stdio: ["ignore", output, output],
  });
  child.on("error", (error) => console.error(error.message));
  child.unref();
  closeSync(output);
  return child.pid ?? 0;
}

/** Polls until the look is true; false when the time is over first. */
export async function until(
  look: () => boolean | Promise<boolean>,
  withinMs: number,
  everyMs = 20,
): Promise<boolean> {
  const end = performance.now() + withinMs;
  while (performance.now() < end) {
    if (await look()) return true;
    await delay(everyMs);
  }
  return false;
}

/** `NAME=value program argument …` as one line for a shell. */
export function shellLine({ env, command }: BenchService): string {
  const words = ["env", ...Object.entries(env).map(([name, value]) => `${name}=${value}`), ...command];
  return words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
}
