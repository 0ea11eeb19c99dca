import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import type { Target } from "../ask.ts";

/** Something that stands between a caller and LM Studio. */
export interface Gateway {
  readonly title: string;
  /** Its version, where it is on this machine or can be brought here; else why not. */
  readonly version: () => Promise<{ readonly version: string } | { readonly missing: string }>;
  readonly start: (lmStudio: string) => Promise<RunningGateway>;
}

export interface RunningGateway extends Target, AsyncDisposable {
  /** Its processes, whose memory is measured. */
  readonly pids: () => readonly number[];
  /** How many answered questions with this text its durable log has by now, where it keeps one. */
  readonly logged?: (text: string) => Promise<number>;
}

/** Starts a program; resolves once its port answers HTTP. Its output is shown where it ends before that. */
export async function startProgram(
  command: readonly [string, ...string[]],
  origin: string,
  options: { readonly folder?: string; readonly headers?: Readonly<Record<string, string>> } = {},
): Promise<RunningGateway> {
  const [program, ...args] = command;
  const child = spawn(program, args, { cwd: options.folder, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output = (output + text).slice(-4_000);
    });
  }
  const deadline = performance.now() + 30_000;
  while (!(await answers(origin))) {
    if (child.exitCode === null && performance.now() < deadline) continue;
    await end(child);
    throw new Error(`${command.join(" ")} did not start: ${output}`);
  }
  return {
    origin,
    headers: options.headers ?? {},
    pids: () => (child.pid === undefined ? [] : [child.pid]),
    [Symbol.asyncDispose]: () => end(child),
  };
}

async function answers(origin: string): Promise<boolean> {
  return await fetch(origin).then(
    (response) => response.arrayBuffer().then(() => true),
    () => delay(25, false),
  );
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGTERM");
  await once(child, "exit");
}
