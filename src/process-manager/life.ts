import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import type { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import type { ServiceDefinition, StopPolicy } from "./definition.ts";
import type { Guard } from "./guard.ts";
import {
  descendantsOf,
  isGroupAlive,
  killAll,
  listProcesses,
  signalGroup,
  signalProcess,
} from "./processes.ts";
import type { ServiceLog } from "./service-log.ts";
import type { Exit } from "./service-status.ts";

/** What a process is started with, beside its definition. */
export interface LifeParts {
  readonly definition: ServiceDefinition;
  readonly env: Readonly<Record<string, string>>;
  /** The held socket's descriptor, or null. */
  readonly socketFd: number | null;
  /** Whether the process is given a `NOTIFY_FD`. */
  readonly notifies: boolean;
  readonly stopSignal: NodeJS.Signals;
  readonly mark: string;
  readonly guard: Guard;
  readonly log: ServiceLog;
}

/** Output that a closed process left in its pipes is waited for no longer than this. */
const outputGraceMs = 1_000;

/** One process of a service with all it starts, from the spawn until nothing of it is left. */
export class Life {
  readonly pid: number;
  /** Aborts when the process itself has exited; what it started may still be there. */
  readonly over: AbortSignal;
  readonly died: Promise<Exit>;
  /** Resolves when the process has written `READY=1` to its `NOTIFY_FD`. */
  readonly notified: Promise<void>;
  /** Why the manager killed it, for the reason that people read. */
  killReason: string | null = null;
  readonly #parts: LifeParts;
  readonly #child: ChildProcess;
  readonly #assignment: string;
  readonly #output: Promise<unknown>;
  readonly #killed = new AbortController();
  #ending: Promise<readonly number[]> | null = null;

  private constructor(parts: LifeParts, child: ChildProcess, pid: number, id: string) {
    this.#parts = parts;
    this.#child = child;
    this.pid = pid;
    this.#assignment = `PROCESS_MANAGER_LIFE=${id}`;
    const over = new AbortController();
    this.over = over.signal;
    this.died = new Promise((resolve) => {
      child.once("exit", (code, signal) => {
        resolve({ code, signal, at: new Date().toISOString() });
        over.abort(new Error("the process ended"));
      });
    });
    const streams = [
      child.stdout && parts.log.attach("stdout", child.stdout),
      child.stderr && parts.log.attach("stderr", child.stderr),
    ];
    this.#output = Promise.all(streams);
    this.notified = parts.notifies ? readyLine(child.stdio[notifyFd(parts)] as Readable) : Promise.resolve();
  }

  /** Spawns. Throws what the system says when that is impossible: no such program, no such folder. */
  static async spawn(parts: LifeParts): Promise<Life> {
    const { definition } = parts;
    const [program, ...args] = definition.command;
    const id = randomBytes(12).toString("hex");
    const child = spawn(program, args, {
      stdio: stdioOf(parts),
      env: { ...parts.env, ...markOf(parts, id) },
      detached: true, // leader of its own group, which can then be signalled as a whole
      windowsHide: true,
      ...(definition.cwd === undefined ? {} : { cwd: definition.cwd }),
      ...(definition.user ?? {}),
    });
    if (child.pid === undefined) {
      const [error] = await once(child, "error");
      throw error;
    }
    child.on("error", () => undefined); // a signal that could not be sent; the process list decides
    parts.guard.watch(child.pid, parts.stopSignal);
    return new Life(parts, child, child.pid, id);
  }

  /**
   * Asks the group to stop, waits until it is empty, kills what is left after the time or after `kill`, and then
   * ends whatever else carries this life's mark. Returns the pids that would not go.
   */
  end(stop: StopPolicy): Promise<readonly number[]> {
    this.#ending ??= this.#endGently(stop);
    return this.#ending;
  }

  /** Kills the process and all it started. A running `end` goes on from there. */
  async kill(): Promise<void> {
    if (this.#killed.signal.aborted) return;
    // Looked up before the first falls: orphans have another parent, and Postgres's children have neither our
    // group nor, after they set their title, a readable environment.
    const tree = this.over.aborted ? [] : descendantsOf(this.pid, await listProcesses());
    this.#killed.abort();
    if (!this.over.aborted) signalGroup(this.pid, "SIGKILL");
    for (const { pid } of tree) if (pid !== this.pid) signalProcess(pid, "SIGKILL");
  }

  /** After the process died by itself: ends what is left of its group and of its mark. */
  endLeftovers(): Promise<readonly number[]> {
    this.#ending ??= this.#sweep();
    return this.#ending;
  }

  async #endGently(stop: StopPolicy): Promise<readonly number[]> {
    if (!this.over.aborted) signalGroup(this.pid, stop.signal);
    const isEmpty = await this.#groupEmpties(stop.timeoutMs);
    if (!isEmpty) await this.kill();
    return await this.#sweep();
  }

  async #groupEmpties(timeoutMs: number): Promise<boolean> {
    const late = AbortSignal.any([AbortSignal.timeout(timeoutMs), this.#killed.signal]);
    await Promise.race([this.died, aborted(late)]);
    for (let pauseMs = 2; !late.aborted; pauseMs = Math.min(pauseMs * 2, 50)) {
      if (!(await isGroupAlive(this.pid))) return true;
      await delay(pauseMs, undefined, { signal: late }).catch(() => undefined);
    }
    return false;
  }

  async #sweep(): Promise<readonly number[]> {
    const left = await killAll((entry) => entry.pgid === this.pid || entry.carries(this.#assignment));
    this.#parts.guard.forget(this.pid);
    await this.#drain();
    return left;
  }

  /** Whoever left our mark behind may hold the pipes open for ever; we do not wait for that. */
  async #drain(): Promise<void> {
    const stop = new AbortController();
    const patience = delay(outputGraceMs, undefined, { signal: stop.signal }).catch(() => undefined);
    await Promise.race([this.#output, patience]);
    stop.abort();
    for (const stream of this.#child.stdio) stream?.destroy();
    await this.#output;
  }
}

function markOf({ mark, definition }: LifeParts, id: string): Record<string, string> {
  return {
    PROCESS_MANAGER_MARK: mark,
    PROCESS_MANAGER_SERVICE: definition.name,
    PROCESS_MANAGER_LIFE: id,
  };
}

function notifyFd({ socketFd }: LifeParts): 3 | 4 {
  return socketFd === null ? 3 : 4;
}

function stdioOf({ socketFd, notifies }: LifeParts): ("ignore" | "pipe" | number)[] {
  return [
    "ignore",
    "pipe",
    "pipe",
    ...(socketFd === null ? [] : [socketFd]),
    ...(notifies ? (["pipe"] as const) : []),
  ];
}

/**
 * The environment that tells a process of its descriptors. systemd's `LISTEN_PID` is left out: the pid is not
 * known before the fork, and a shell in between that could fill it in would cost every start.
 */
export function descriptorEnv(name: string, holdsSocket: boolean, notifies: boolean): Record<string, string> {
  return {
    ...(holdsSocket ? { LISTEN_FDS: "1", LISTEN_FDNAMES: name } : {}),
    ...(notifies ? { NOTIFY_FD: holdsSocket ? "4" : "3" } : {}),
  };
}

/** How a process ended, in words. */
export function describeExit({ code, signal }: Exit): string {
  return signal ? `killed by ${signal}` : `exited with code ${code}`;
}

function readyLine(pipe: Readable): Promise<void> {
  return new Promise((resolve) => {
    let text = "";
    pipe.on("error", () => undefined);
    pipe.on("data", (chunk: Buffer) => {
      text = (text + chunk.toString("latin1")).slice(-1_000); // who writes more than that says something else
      if (/^READY=1$/m.test(text)) resolve();
    });
  });
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
