import { setTimeout as delay } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { isAnnouncement } from "./definition.ts";
import type { Guard } from "./guard.ts";
import { NotRunnable } from "./launch.ts";
import { Life } from "./life.ts";
import { isUp } from "./lifecycle.ts";
import { assertPortFree, canHoldSockets, ListeningSocket } from "./listening-socket.ts";
import { untilPasses, watchProbe } from "./probe.ts";
import { messageOf, ProcessManagerError } from "./process-manager-error.ts";
import type { Relay } from "./relay.ts";
import type { ResolvedService } from "./resolve-definitions.ts";
import { decideRestart, noRestarts, type RestartHistory } from "./restart-decision.ts";
import { gapOf } from "./rolling.ts";
import type { RunRecords } from "./run-record.ts";
import type { ServiceLog } from "./service-log.ts";
import { describeExit, type Exit, type ServiceRecord, type ServiceStatus } from "./service-status.ts";

/** Lines of its log that a failed service shows, and restarts whose reasons are kept. */
const lastLinesMax = 50;
const recentRestartsMax = 20;

/** What a service is handed by the manager. */
export interface ServiceParts {
  readonly definition: ResolvedService;
  readonly status: ServiceStatus;
  readonly baseEnv: Readonly<Record<string, string>>;
  readonly mark: string;
  readonly guard: Guard;
  readonly log: ServiceLog;
  /** Tells what is no change of its state. */
  readonly complain: (text: string) => void;
  readonly runs: RunRecords;
  /** What happened to its dependencies since then (ISO), in words. */
  readonly dependencyNews: (since: string) => readonly string[];
  /** Resolves when the service may be started; rejects when the signal aborts. */
  readonly untilDependenciesMet: (signal: AbortSignal) => Promise<void>;
}

/** From a start by command to the end: at most one for a service. */
interface Run {
  readonly stop: AbortController;
  readonly done: Promise<void>;
}

/** Why a life ended, or never began. */
interface Ending {
  readonly reason: string;
  readonly isFatal: boolean;
  readonly clean: boolean;
  readonly readyForMs: number;
}

/** A service: starts its process, keeps it alive, replaces and stops it. */
export class Service {
  readonly #parts: Omit<ServiceParts, "definition">;
  #definition: ResolvedService;
  readonly #lives = new Set<Life>();
  #run: Run | null = null;
  #isEnding = false;
  /** What was asked for last; a restart that is overtaken by a stop must not start again. */
  #isWanted = false;
  #isForced = false;
  #life: Life | null = null;
  #watch: AbortController | null = null;
  #pause: AbortController | null = null;
  #socket: ListeningSocket | null = null;
  #relay: Relay | null = null;
  #heldFor: ResolvedService["listen"] = null;
  #keepsSocket = false;
  #rolling: Promise<void> | null = null;
  #nextRoll: Promise<void> | null = null;
  #history: RestartHistory = noRestarts;
  /** What the last process, if there ever was one, was spawned from. */
  #spawnedFrom: ResolvedService | null = null;
  #readyAt = 0;

  constructor(parts: ServiceParts) {
    this.#parts = parts;
    this.#definition = parts.definition;
  }

  /** What the running process was started from; null while there is none. */
  get startedFrom(): ResolvedService | null {
    return this.#life?.definition ?? null;
  }

  /** From now on this definition counts: its probes and policies at once, the rest with the next process. */
  redefine(definition: ResolvedService): void {
    this.#definition = definition;
    if (this.#life && this.#run && isUp(this.#parts.status.state))
      this.#adopt(this.#life, this.#run.stop.signal, this.#parts.status.state === "ready");
  }

  /**
   * Sees to it that the service runs, or will as soon as it can; clears a failure. Does not wait for it. Its restarts are
   * counted anew, unless this is one more, which nobody commanded: `why`.
   */
  async start(why: string | null = null): Promise<void> {
    this.#isWanted = true;
    while (this.#isEnding) await this.#run?.done;
    if (!this.#isWanted) return;
    if (this.#run) {
      this.#pause?.abort(); // asked for by hand: no more waiting
      return;
    }
    this.#history = noRestarts;
    this.#isForced = false;
    const reason = why === null ? "was asked to start" : `is being restarted: ${why}`;
    this.#parts.status.move("start-asked", reason, {
      ...(why === null ? { restarts: 0, recentRestarts: [] } : this.#oneMoreRestart(why)),
      completedAt: null,
      lastLines: [],
      changes: [],
    });
    const stop = new AbortController();
    const done = this.#keepRunning(stop.signal).finally(() => {
      this.#run = null;
      this.#isEnding = false;
    });
    this.#run = { stop, done };
  }

  /** Stops whatever is going on and resolves when nothing of the service is left. `force` kills at once. */
  async stop({ force = false } = {}): Promise<void> {
    this.#isWanted = false;
    this.#keepsSocket = false;
    this.#isForced ||= force;
    await this.#halt("was asked to stop");
  }

  /**
   * Replaces the process. Where the socket is held and the process says itself that it is ready, and behind a relay,
   * the new one is ready before the old one is asked to stop; throws `restart-failed` when it does not get there, and the
   * old one goes on. Otherwise stops and starts, and does not wait until it is ready.
   */
  async restart(why: string | null = null): Promise<void> {
    const old = this.#life;
    if (this.#rolling) return await this.#rollAgain(this.#rolling, why);
    if (!old || !this.#run || !this.#canRoll()) return await this.#stopAndStart(why);
    this.#rolling = this.#roll(old, this.#run.stop.signal, why).finally(() => {
      this.#rolling = null;
    });
    await this.#rolling;
  }

  /** What this restart is for may have come after the new process began: one more, for all who ask meanwhile. */
  #rollAgain(rolling: Promise<void>, why: string | null): Promise<void> {
    this.#nextRoll ??= rolling
      .catch(() => undefined)
      .then(async () => {
        this.#nextRoll = null;
        if (this.#isWanted) await this.restart(why);
      });
    return this.#nextRoll;
  }

  #canRoll(): boolean {
    const { status } = this.#parts;
    return (this.#socket ?? this.#relay) !== null && gapOf(this.#definition, status.state) === null;
  }

  async #stopAndStart(why: string | null): Promise<void> {
    this.#isWanted = true;
    this.#keepsSocket = true; // who comes in between waits in the backlog
    await this.#halt(why === null ? "is being restarted" : `is being restarted: ${why}`);
    this.#keepsSocket = false;
    if (this.#isWanted) await this.start(why);
    else this.#closeSocket();
  }

  async #halt(reason: string): Promise<void> {
    const { status } = this.#parts;
    status.move("stop-asked", reason);
    if (this.#run) {
      this.#isEnding = true;
      this.#run.stop.abort(new Error(reason));
      if (this.#isForced) await Promise.all([...this.#lives].map((life) => life.kill()));
      await this.#run.done;
    }
    status.move("ended", reason, { pid: null }); // it had failed before: nothing was left to end
  }

  async #roll(old: Life, stopAsked: AbortSignal, why: string | null): Promise<void> {
    const deathIsSeen = this.#changeAfter(old.over);
    let next: Life;
    try {
      next = await this.#bringUp(AbortSignal.any([stopAsked, old.over]));
    } catch (error) {
      // Whoever died meanwhile is started again anyway, with the same result.
      if (old.over.aborted && !stopAsked.aborted) return await deathIsSeen;
      throw new ProcessManagerError(
        "restart-failed",
        `the new process of ${this.#definition.name} did not get ready: ${messageOf(error)}; pid ${old.pid} still serves`,
        { cause: error },
      );
    }
    if (old.over.aborted || stopAsked.aborted) {
      await this.#endLife(next);
      if (!stopAsked.aborted) await deathIsSeen;
      return;
    }
    this.#adopt(next, stopAsked);
    const reason = `pid ${next.pid} took over from pid ${old.pid}${why === null ? "" : `: ${why}`}`;
    this.#parts.status.move("replaced", reason, {
      pid: next.pid,
      startedAt: new Date().toISOString(),
      ...this.#oneMoreRestart(reason),
    });
    this.#remember(next).catch(() => undefined);
    await this.#untilDrained(old, stopAsked);
    await this.#endLife(old);
  }

  /** Behind a relay, those that the old process still serves have its stop timeout to finish, and it another. */
  async #untilDrained(old: Life, stopAsked: AbortSignal): Promise<void> {
    const late = AbortSignal.timeout(this.#definition.stop.timeoutMs);
    const end = AbortSignal.any([stopAsked, old.over, late]);
    if (old.relayedPort !== null) await this.#relay?.drained(old.relayedPort, end);
  }

  /** Resolves when the status has changed after the signal: the record then shows what came of it. */
  #changeAfter(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const listen = (): void => void this.#parts.status.changed().then(resolve);
      signal.addEventListener("abort", listen, { once: true });
    });
  }

  async #keepRunning(signal: AbortSignal): Promise<void> {
    const { status } = this.#parts;
    try {
      await this.#parts.untilDependenciesMet(signal);
      do {
        if (this.#definition.schedule) await this.#untilDue(this.#definition.schedule, signal);
        status.move("dependencies-met", "is starting");
        for (;;) {
          const ending = await this.#oneLife(signal);
          if (!(await this.#goesOn(ending, signal))) break;
        }
      } while (this.#definition.schedule);
    } catch (error) {
      // Nothing is expected to throw but the abort; if something does, it must be seen, not lost.
      if (!signal.aborted) status.move("gave-up", `the manager could not go on: ${messageOf(error)}`);
    } finally {
      this.#isEnding = true;
      await this.#release();
      if (signal.aborted) status.move("ended", messageOf(signal.reason), { pid: null });
    }
  }

  /** Whether the service is to be started again, after the wait that is due. */
  async #goesOn(ending: Ending, signal: AbortSignal): Promise<boolean> {
    signal.throwIfAborted();
    if (ending.isFatal) {
      await this.#giveUp(ending.reason);
      return false;
    }
    const { restart } = this.#definition;
    const decision = decideRestart(restart, this.#history, ending, performance.now(), Math.random());
    if (decision.kind === "retry") {
      this.#history = decision.history;
      await this.#waitToRetry(ending.reason, decision.delayMs, signal);
      return true;
    }
    if (decision.kind === "give-up") await this.#giveUp(`${ending.reason}; ${decision.reason}`);
    else this.#finish(ending.reason);
    return false;
  }

  #finish(reason: string): void {
    const { status } = this.#parts;
    if (this.#definition.kind === "service") status.move("finished", reason, { pid: null });
    else {
      const completedAt = new Date().toISOString();
      const happening = this.#definition.schedule ? "rescheduled" : "completed";
      status.move(happening, `is done: ${reason}`, { pid: null, completedAt });
    }
  }

  /** Failed, until somebody starts it; a scheduled task only for this time. */
  async #giveUp(reason: string): Promise<void> {
    const happening = this.#definition.schedule ? "rescheduled" : "gave-up";
    this.#parts.status.move(happening, reason, { pid: null, ...(await this.#circumstances()) });
  }

  /** What a person would look for first: the last lines, and what is not as it was when it ran well. */
  async #circumstances(): Promise<Pick<ServiceRecord, "lastLines" | "changes">> {
    const { status, log, runs, baseEnv, dependencyNews } = this.#parts;
    const env = { ...baseEnv, ...this.#definition.env };
    const lines = await log.tail(lastLinesMax).catch(() => []);
    const found = await runs.changes(this.#definition, env).catch(() => null);
    const since = status.record.startedAt ?? new Date().toISOString();
    const changes = [...(found?.changes ?? []), ...dependencyNews(since)];
    return { lastLines: lines.map(({ line }) => line), changes };
  }

  /** Keeps what the process was started with, once it has been good for as long as counts. */
  async #remember(life: Life): Promise<void> {
    const { restart } = this.#definition;
    await delay(restart.stableMs, undefined, { signal: life.over, ref: false });
    await this.#parts.runs.keep(this.#definition, life.probeContext.env);
  }

  /** Waits for a scheduled task's time, or until it is asked to start by hand. */
  async #untilDue(schedule: string, signal: AbortSignal): Promise<void> {
    const { status } = this.#parts;
    const { nextRunAfter } = await import("./schedule.ts");
    const due = nextRunAfter(schedule, new Date());
    if (!due) throw new Error(`the schedule ${schedule} has no next time`);
    const last = status.record.lastExit ? `; the last run ${describeExit(status.record.lastExit)}` : "";
    status.explain(`runs next at ${due.toISOString()}${last}`, { nextTryAt: due.toISOString() });
    this.#pause = new AbortController();
    const wake = AbortSignal.any([signal, this.#pause.signal]);
    // In steps: a timer cannot wait longer than 24 days, and does not see the clock being set.
    while (!wake.aborted && Date.now() < due.getTime())
      await delay(Math.min(due.getTime() - Date.now(), 60_000), undefined, { signal: wake }).catch(() => {});
    this.#pause = null;
    signal.throwIfAborted();
  }

  #oneMoreRestart(reason: string): Pick<ServiceRecord, "restarts" | "recentRestarts"> {
    const { restarts, recentRestarts } = this.#parts.status.record;
    const one = { at: new Date().toISOString(), reason };
    return { restarts: restarts + 1, recentRestarts: [...recentRestarts, one].slice(-recentRestartsMax) };
  }

  async #waitToRetry(reason: string, delayMs: number, signal: AbortSignal): Promise<void> {
    const { status } = this.#parts;
    const nextTryAt = new Date(Date.now() + delayMs).toISOString();
    const when = delayMs === 0 ? "starting it again at once" : `next try in ${delayMs} ms`;
    status.move("died", `${reason}; ${when}`, { pid: null, nextTryAt });
    this.#pause = new AbortController();
    const wake = AbortSignal.any([signal, this.#pause.signal]);
    if (delayMs > 0) {
      status.note(await this.#circumstances());
      await delay(delayMs, undefined, { signal: wake }).catch(() => undefined);
    }
    this.#pause = null;
    signal.throwIfAborted();
    status.move("retry-due", `is starting again: ${reason}`, this.#oneMoreRestart(reason));
  }

  async #oneLife(signal: AbortSignal): Promise<Ending> {
    let life: Life;
    const isTask = this.#definition.kind === "task";
    try {
      // Told, not only noted: others may wait until this one is started.
      life = await this.#bringUp(signal, ({ pid }) =>
        this.#parts.status.explain(`runs as pid ${pid}${isTask ? "" : " and is not ready yet"}`, {
          pid,
          startedAt: new Date().toISOString(),
        }),
      );
    } catch (error) {
      signal.throwIfAborted();
      return { ...startFailure(error, this.#mayComeBack()), readyForMs: 0 };
    }
    this.#adopt(life, signal);
    this.#readyAt = performance.now();
    if (!isTask) {
      this.#parts.status.move("probe-passed", "is ready");
      this.#remember(life).catch(() => undefined); // it ended first, or the disk is full: then nothing is learnt
    }
    return await this.#untilDeath(signal);
  }

  /** Whether a program that is not there may be soon: it ran before and is being replaced, or watched files bring it. */
  #mayComeBack(): boolean {
    const { command, cwd, watch } = this.#definition;
    const last = this.#spawnedFrom;
    return watch !== null || (last !== null && isDeepStrictEqual([last.command, last.cwd], [command, cwd]));
  }

  /** From nothing to a process that is ready; on any failure ends what it started, and throws. */
  async #bringUp(signal: AbortSignal, onSpawn: (life: Life) => void = () => undefined): Promise<Life> {
    await this.#takePort();
    signal.throwIfAborted();
    await this.#prepare(signal);
    const life = await this.#spawn();
    onSpawn(life);
    try {
      signal.throwIfAborted();
      await this.#untilReady(life, signal);
      return life;
    } catch (error) {
      const exit = life.over.aborted ? await life.died : null;
      await this.#endLife(life);
      if (exit) throw new EarlyDeath(`${describeExit(exit)} before it was ready`, this.#isSuccess(exit));
      throw error;
    }
  }

  async #prepare(signal: AbortSignal): Promise<void> {
    const { prepare, env } = this.#definition;
    const { baseEnv, mark } = this.#parts;
    const marked = { ...baseEnv, ...env, PROCESS_MANAGER_MARK: mark };
    if (prepare) await orAbort(prepare(signal, marked), signal);
  }

  async #takePort(): Promise<void> {
    const { listen, portHint } = this.#definition;
    // A restart that overlapped a change of the port kept the socket of the one before.
    if (!isDeepStrictEqual(this.#heldFor, listen)) this.#closeSocket();
    if (!listen || this.#socket || this.#relay) return;
    this.#heldFor = listen;
    if (listen.relay) {
      const { Relay } = await import("./relay.ts"); // most need none
      this.#relay = await Relay.listen(listen, portHint, this.#parts.complain);
    } else if (listen.hold && canHoldSockets) this.#socket = await ListeningSocket.bind(listen, portHint);
    else await assertPortFree(listen, portHint);
  }

  async #spawn(): Promise<Life> {
    const { baseEnv, mark, guard, log } = this.#parts;
    const socketFd = this.#socket?.fd ?? null;
    const relayedPort = this.#relay && (await this.#relay.freePort());
    const definition = this.#definition;
    const life = await Life.spawn({ definition, baseEnv, socketFd, relayedPort, mark, guard, log });
    this.#lives.add(life);
    this.#spawnedFrom = definition;
    if (relayedPort) life.over.addEventListener("abort", () => this.#relay?.cut(relayedPort), { once: true });
    return life;
  }

  async #untilReady(life: Life, signal: AbortSignal): Promise<void> {
    const { readiness, afterReady, startTimeoutMs } = this.#definition;
    const late = new AbortController();
    const attempt = AbortSignal.any([signal, life.over, late.signal]);
    let lastAnswer = "";
    const timer = setTimeout(() => {
      late.abort(new Error(`was not ready within ${startTimeoutMs / 1000} s${lastAnswer}`));
    }, startTimeoutMs);
    try {
      if (isAnnouncement(readiness)) await orAbort(life.announced, attempt);
      else if (readiness)
        await untilPasses(life.ownProbe(readiness), life.probeContext, attempt, (reason) => {
          lastAnswer = `: ${reason}`;
        });
      clearTimeout(timer); // migrations may take longer than any start should
      if (afterReady) await orAbort(afterReady(attempt), attempt);
    } catch (error) {
      throw late.signal.aborted ? late.signal.reason : error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** From now on this is the process that counts; its probes are asked, those of the one before no more. */
  #adopt(life: Life, stopAsked: AbortSignal, isGood = true): void {
    this.#watch?.abort();
    this.#life = life;
    this.#relay?.passTo(life.relayedPort);
    this.#watch = new AbortController();
    const signal = AbortSignal.any([stopAsked, life.over, this.#watch.signal]);
    const { status } = this.#parts;
    const { readiness, liveness } = this.#definition;
    const watched = isAnnouncement(readiness) ? readiness.watch : readiness;
    if (watched) {
      const onGood = (): boolean => status.move("probe-passed", "is ready again");
      const onBad = (reason: string): boolean => status.move("probe-failed", `is not ready: ${reason}`);
      void watchProbe(life.ownProbe(watched), life.probeContext, isGood, { onGood, onBad }, signal);
    }
    if (liveness) {
      const onBad = (reason: string): void => this.#replaceHung(life, reason);
      const begin = delay(liveness.initialDelayMs ?? 0, undefined, { signal });
      const watcher = { onGood: () => undefined, onBad };
      void begin.then(
        () => watchProbe(life.ownProbe(liveness), life.probeContext, true, watcher, signal),
        () => undefined,
      );
    }
  }

  #replaceHung(life: Life, reason: string): void {
    life.killReason = `does not answer (${reason}) and was killed`;
    const { status } = this.#parts;
    if (!status.move("probe-failed", life.killReason)) status.explain(life.killReason);
    // Not asked to stop first: who does not answer a probe does not answer a signal.
    void life.kill();
  }

  async #untilDeath(signal: AbortSignal): Promise<Ending> {
    for (;;) {
      const life = this.#life;
      const watch = this.#watch;
      if (!life || !watch) throw new Error("no process to wait for");
      // The old one may take long to end; the death of the new one must be seen meanwhile.
      const exit = await orAbort(life.died, AbortSignal.any([signal, watch.signal])).catch(() => null);
      signal.throwIfAborted();
      if (!exit || this.#life !== life) continue; // replaced: the new one is waited for
      this.#parts.status.note({ lastExit: exit });
      this.#life = null;
      await this.#endLeftovers(life);
      const reason = life.killReason ?? describeExit(exit);
      const readyForMs = performance.now() - this.#readyAt;
      return { reason, isFatal: false, clean: this.#isSuccess(exit), readyForMs };
    }
  }

  #isSuccess({ code }: Exit): boolean {
    return code !== null && this.#definition.restart.successExitCodes.includes(code);
  }

  async #endLife(life: Life): Promise<void> {
    if (this.#isForced) await life.kill();
    this.#reportLeft(await life.end(this.#definition.stop));
    if (life.over.aborted) this.#parts.status.note({ lastExit: await life.died });
    this.#lives.delete(life);
  }

  async #endLeftovers(life: Life): Promise<void> {
    this.#reportLeft(await life.endLeftovers());
    this.#lives.delete(life);
  }

  #reportLeft(pids: readonly number[]): void {
    if (pids.length > 0)
      this.#parts.status.explain(`could not be ended, even by SIGKILL: pid ${pids.join(", ")}`);
  }

  async #release(): Promise<void> {
    this.#watch?.abort();
    this.#life = null;
    this.#relay?.passTo(null);
    await this.#rolling?.catch(() => undefined);
    await Promise.all([...this.#lives].map((life) => this.#endLife(life)));
    if (!this.#keepsSocket) this.#closeSocket();
  }

  #closeSocket(): void {
    this.#socket?.close();
    this.#socket = null;
    this.#relay?.close();
    this.#relay = null;
  }
}

/** A process that ended while it was being waited for. */
class EarlyDeath extends Error {
  readonly clean: boolean;

  constructor(message: string, clean: boolean) {
    super(message);
    this.clean = clean;
  }
}

/** A taken port, a hook that says so, or a program that is not there is not mended by trying again. */
function startFailure(error: unknown, mayComeBack: boolean): Omit<Ending, "readyForMs"> {
  if (error instanceof NotRunnable && !mayComeBack)
    return { reason: `${error.message}; trying again cannot mend that`, isFatal: true, clean: false };
  const isPort = error instanceof ProcessManagerError && error.code === "port-taken";
  const saysFatal = error instanceof Error && "fatal" in error && error.fatal === true;
  const clean = error instanceof EarlyDeath && error.clean;
  return { reason: messageOf(error), isFatal: isPort || saysFatal, clean };
}

/** The value, or the signal's reason as soon as it aborts: nobody waits for a hook that does not listen. */
async function orAbort<T>(value: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = (): void => reject(signal.reason);
  if (signal.aborted) abort();
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([value, promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
