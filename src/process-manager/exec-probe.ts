import { spawn } from "node:child_process";
import { once } from "node:events";
import type { CommandLine } from "./definition.ts";
import { signalGroup } from "./processes.ts";
import { argumentVector } from "./resolve-definitions.ts";

/** Where and as whom the program of an `exec` probe runs. */
export interface ProbeContext {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly user?: { readonly uid: number; readonly gid: number };
}

const outputCharactersMax = 2_000;

/** Runs the program; rejects with its exit and its last line unless that is 0. Aborted, it is killed with its group. */
export async function askExec(
  command: CommandLine,
  { cwd, env, user }: ProbeContext,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  const [program, ...args] = argumentVector(command);
  const child = spawn(program, args, {
    cwd,
    env,
    ...user,
    detached: true,
    windowsHide: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const exited = once(child, "exit"); // first of all: where there are no descriptors left, there are no streams either
  const kill = (): void => {
    if (child.pid !== undefined && child.exitCode === null) signalGroup(child.pid, "SIGKILL");
  };
  signal.addEventListener("abort", kill, { once: true });
  let output = "";
  const keep = (text: string): void => {
    output = (output + text).slice(-outputCharactersMax);
  };
  try {
    child.stdout?.setEncoding("utf8").on("data", keep);
    child.stderr?.setEncoding("utf8").on("data", keep);
    const [code, killedBy] = await exited;
    if (code === 0) return;
    const lastLine = output.trimEnd().split("\n").at(-1);
    const end = killedBy ? `was killed by ${killedBy}` : `exited with code ${code}`;
    throw new Error(`the probe ${end}${lastLine ? `: ${lastLine}` : ""}`);
  } finally {
    signal.removeEventListener("abort", kill);
    child.stdout?.destroy(); // what it started may hold the pipes; nobody waits for that
    child.stderr?.destroy();
  }
}
