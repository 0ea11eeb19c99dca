import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import type { ChildOutput } from "./child-output.ts";
import type { ActiveProbe, Readiness, StopPolicy } from "./definition.ts";
import type { ProbeContext } from "./exec-probe.ts";
import type { Guard } from "./guard.ts";
import { assertRunnable, withListenPid } from "./launch.ts";
import {
  descendantsOf,
  isGroupAlive,
  killAll,
  listProcesses,
  type ProcessEntry,
  signalGroup,
  signalProcess,
  startTicksOf,
} from "./processes.ts";
import { randomId } from "./random-id.ts";
import { type ResolvedService, reachable } from "./resolve-definitions.ts";
import type { ServiceLog } from "./service-log.ts";
import type { Exit } from "./service-status.ts";

/** What a process is started with, beside its definition. */
export interface LifeParts {
  readonly definition: ResolvedService;
  /** The manager's base environment; the definition's own is added to it. */
  readonly baseEnv: Readonly<Record<string, string>>;
  /** The held socket's descriptor, or null. */
  readonly socketFd: number | null;
  /** Where a relay passes connections on to it: the port on 127.0.0.1 that it is to listen on. */
  readonly relayedPort: number | null;
  readonly mark: string;
  readonly guard: Guard;
  readonly log: ServiceLog;
}

/** Output that a closed process left in its pipes is waited for no longer than this. */
const outputGraceMs = 1_000;

/** One process of a service with all it starts, from the spawn until nothing of it is left. */
export class Life {
  readonly pid: number;
  readonly definition: ResolvedService;
  /** Aborts when the process itself has exited; what it started may still be there. */
  readonly over: AbortSignal;
  readonly died: Promise<Exit>;
  /** Resolves when the process has said that it is ready, in the way that its readiness expects. */
  readonly announced: Promise<void>;
  /** The port on 127.0.0.1 that is its own, behind a relay. */
  readonly relayedPort: number | null;
  /** For the programs of its probes. */
  readonly probeContext: ProbeContext;
  /** Why the manager killed it, for the reason that people read. */
  killReason: string | null = null;
  readonly #parts: LifeParts;
  readonly #child: ChildProcess;
  readonly #assignment: string;
  readonly #startTicks: number;
  readonly #output: ChildOutput;
  readonly #killed = new AbortController();
  /** Descendants in other groups when the stop began, pid → start. */
  readonly #strays = new Map<number, number>();
  #ending: Promise<readonly number[]> | null = null;

  private constructor(
    parts: LifeParts,
    child: ChildProcess,
    output: ChildOutput,
    pid: number,
    env: Record<string, string>,
  ) {
    const { cwd, user, readiness } = parts.definition;
    this.#parts = parts;
    this.#child = child;
    this.#output = output;
    this.pid = pid;
    this.definition = parts.definition;
    this.relayedPort = parts.relayedPort;
    this.probeContext = { cwd, env, ...(user ? { user } : {}) };
    this.#assignment = `PROCESS_MANAGER_LIFE=${env.PROCESS_MANAGER_LIFE}`;
    this.#startTicks = startTicksOf(pid);
    const over = new AbortController();
    this.over = over.signal;
    this.died = new Promise((resolve) => {
      child.once("exit", (code, signal) => {
        resolve({ code, signal, at: new Date().toISOString() });
        over.abort(new Error("the process ended"));
      });
    });
    const announced = Promise.withResolvers<void>();
    this.announced = announced.promise;
    const onLines = readiness?.kind === "log" ? untilMatch(readiness, announced.resolve) : undefined;
    output.attach(child, onLines);
    if (readiness?.kind === "notify")
      onReadyLine(child.stdio[notifyFd(parts)] as Readable, announced.resolve);
    if (readiness?.kind === "ipc") {
      const wanted = readiness.pattern ?? "ready";
      child.on("message", (message) => message === wanted && announced.resolve());
    }
  }

  /** Spawns. Throws in words why that is impossible: no such program, no such folder. */
  static async spawn(parts: LifeParts): Promise<Life> {
    const { command, cwd, user, stop } = parts.definition;
    const env = environmentOf(parts);
    const isHanded = parts.socketFd !== null;
    if (isHanded) assertRunnable(command[0], cwd, env.PATH);
    const [program, ...args] = isHanded ? withListenPid(command, env) : command;
    const output = await parts.log.openOutput();
    let child: ChildProcess;
    let pid: number;
    try {
      child = spawn(program, args, {
        stdio: stdioOf(parts, output),
        env,
        cwd,
        ...user,
        detached: true, // leader of its own group, which can then be signalled as a whole
        windowsHide: true,
      });
      pid = child.pid ?? (await refusal(child));
    } catch (error) {
      output.discard();
      if (process.platform !== "win32") assertRunnable(command[0], cwd, env.PATH);
      throw error;
    }
    child.on("error", () => undefined); // a signal that could not be sent; the process list decides
    parts.guard.watch(pid, stop.signal);
    return new Life(parts, child, output, pid, env);
  }

  /** A probe of the service's own address asks this process, and not another behind the same relay. */
  ownProbe(probe: ActiveProbe): ActiveProbe {
    const { listen } = this.definition;
    const port = this.relayedPort;
    if (port === null || !listen) return probe;
    const own = new Set([reachable(listen.host), "127.0.0.1", "localhost"]);
    if (probe.kind === "tcp")
      return probe.port === listen.port && own.has(probe.host ?? "127.0.0.1")
        ? { ...probe, host: "127.0.0.1", port }
        : probe;
    if (probe.kind !== "http") return probe;
    const url = new URL(probe.url);
    if (url.port !== String(listen.port) || !own.has(url.hostname.replace(/^\[|\]$/g, ""))) return probe;
    url.host = `127.0.0.1:${port}`;
    return { ...probe, url: url.href };
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
    if (!this.over.aborted) {
      // Looked up before, as in `kill`: what has cleared its environment and left the group is found by its parent alone.
      const tree = descendantsOf(this.pid, await listProcesses());
      for (const { pid, pgid, startTicks } of tree)
        if (pgid !== this.pid && startTicks > 0) this.#strays.set(pid, startTicks); // else it cannot be told from a later one
      if (!this.over.aborted) signalGroup(this.pid, stop.signal);
    }
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
    // What is older than this life is nothing of it: most environments need not be read.
    const isOurs = (entry: ProcessEntry): boolean =>
      entry.startTicks >= this.#startTicks &&
      (entry.pgid === this.pid ||
        this.#strays.get(entry.pid) === entry.startTicks ||
        entry.carries(this.#assignment));
    const left = await killAll(isOurs);
    this.#parts.guard.forget(this.pid);
    await this.#drain();
    return left;
  }

  async #drain(): Promise<void> {
    await this.#output.drain(outputGraceMs);
    for (const stream of this.#child.stdio) stream?.destroy();
    if (this.#child.connected) this.#child.disconnect();
    // Who stopped a service wants to read its last words; a disk that hangs is no reason to wait for ever.
    await Promise.race([this.#parts.log.written(), delay(outputGraceMs, undefined, { ref: false })]);
  }
}

/** Throws why there is no process. */
async function refusal(child: ChildProcess): Promise<never> {
  const [error] = await once(child, "error");
  throw error;
}

/** Everything that the process finds in its environment. */
function environmentOf({
  baseEnv,
  definition,
  socketFd,
  relayedPort,
  mark,
}: LifeParts): Record<string, string> {
  return {
    ...baseEnv,
    ...definition.env,
    ...(relayedPort === null ? {} : { PORT: String(relayedPort) }),
    ...descriptorEnv(definition.name, socketFd !== null, definition.readiness),
    PROCESS_MANAGER_MARK: mark,
    PROCESS_MANAGER_SERVICE: definition.name,
    PROCESS_MANAGER_LIFE: randomId(12),
  };
}

function notifyFd({ socketFd }: LifeParts): 3 | 4 {
  return socketFd === null ? 3 : 4;
}

function stdioOf(
  { socketFd, definition }: LifeParts,
  output: ChildOutput,
): ("ignore" | "pipe" | "ipc" | number)[] {
  const { readiness } = definition;
  return [
    "ignore",
    ...output.stdio,
    ...(socketFd === null ? [] : [socketFd]),
    ...(readiness?.kind === "notify" ? (["pipe"] as const) : []),
    ...(readiness?.kind === "ipc" ? (["ipc"] as const) : []),
  ];
}

/** The environment that tells a process of its descriptors, `LISTEN_PID` apart; Node adds the ipc channel's. */
function descriptorEnv(
  name: string,
  holdsSocket: boolean,
  readiness: Readiness | undefined,
): Record<string, string> {
  return {
    ...(holdsSocket ? { LISTEN_FDS: "1", LISTEN_FDNAMES: name } : {}),
    ...(readiness?.kind === "notify" ? { NOTIFY_FD: holdsSocket ? "4" : "3" } : {}),
  };
}

function onReadyLine(pipe: Readable, tell: () => void): void {
  let text = "";
  pipe.on("error", () => undefined);
  pipe.on("data", (chunk: Buffer) => {
    text = (text + chunk.toString("latin1")).slice(-1_000); // who writes more than that says something else
    if (/^READY=1$/m.test(text)) tell();
  });
}

/** Looks at whole lines of output until one matches. */
function untilMatch(
  { pattern = "" }: { readonly pattern?: string },
  tell: () => void,
): (lines: Buffer) => void {
  const wanted = new RegExp(pattern);
  let isTold = false;
  return (lines) => {
    if (
      isTold ||
      !lines
        .toString("utf8")
        .split("\n")
        .some((line) => wanted.test(line))
    )
      return;
    isTold = true;
    tell();
  };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
