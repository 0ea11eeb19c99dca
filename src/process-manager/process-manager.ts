import { EventEmitter, once } from "node:events";
import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { type Controllable, ControlServer, type LogQuery } from "./control-server.ts";
import {
  type Definition,
  type ExternalDefinition,
  isExternal,
  type ServiceDefinition,
} from "./definition.ts";
import { ExternalService } from "./external-service.ts";
import { Feed } from "./feed.ts";
import { Guard } from "./guard.ts";
import { HomeLock } from "./home-lock.ts";
import { defaultRotation, type RotationPolicy } from "./log-file.ts";
import { followLogs } from "./log-follower.ts";
import { ProcessManagerError } from "./process-manager-error.ts";
import { killAll, listProcesses, signalProcess } from "./processes.ts";
import { Service } from "./service.ts";
import { type LogLine, ServiceLog } from "./service-log.ts";
import { type ServiceEvent, type ServiceRecord, ServiceStatus } from "./service-status.ts";
import { dependants, startOrder, unknownService } from "./start-order.ts";
import { validateDefinitions } from "./validate-definitions.ts";

/** What a manager is made of. */
export interface ProcessManagerOptions {
  /** Folder for the lock, the control socket and the logs; made with mode 0700. One manager at a time. */
  readonly home: string;
  readonly definitions: readonly Definition[];
  /** The environment that every service starts from. */
  readonly baseEnv: Readonly<Record<string, string | undefined>>;
  readonly rotation?: Partial<RotationPolicy>;
}

type Part = {
  readonly status: ServiceStatus;
} & (
  | {
      readonly kind: "service";
      readonly definition: ServiceDefinition;
      readonly service: Service;
      readonly log: ServiceLog;
    }
  | { readonly kind: "external"; readonly definition: ExternalDefinition; readonly service: ExternalService }
);

/** Events that may wait for one slow reader; its subscription then ends, and it asks for a snapshot again. */
const waitingEventsMax = 10_000;

/** How long a dead manager's children may take to stop before they are killed. */
const leftoverGraceMs = 1_500;

/** Starts, watches, restarts and stops the services of one home. */
export class ProcessManager implements Controllable, AsyncDisposable {
  /** Resolves when everything has stopped and the home is free again, whoever asked for it. */
  readonly closed: Promise<void>;
  readonly home: string;
  readonly #definitions: readonly Definition[];
  readonly #lock: HomeLock;
  readonly #guard: Guard;
  readonly #ownLog: ServiceLog;
  readonly #parts = new Map<string, Part>();
  readonly #events = new Feed<ServiceEvent>();
  readonly #changes = new EventEmitter<{ change: [] }>().setMaxListeners(0);
  readonly #listeners = new EventEmitter<{ event: [ServiceEvent] }>().setMaxListeners(0);
  readonly #asked = new Set<string>();
  readonly #closed = Promise.withResolvers<void>();
  #control: ControlServer | null = null;
  #stopping: Promise<void> | null = null;

  private constructor(options: ProcessManagerOptions, lock: HomeLock) {
    this.home = resolve(options.home);
    this.closed = this.#closed.promise;
    this.#definitions = options.definitions;
    this.#lock = lock;
    this.#guard = new Guard(lock.holder.mark, options.baseEnv.PATH ?? "/usr/bin:/bin");
    const rotation = { ...defaultRotation, ...options.rotation };
    this.#ownLog = this.#openLog("manager", rotation);
    for (const definition of options.definitions)
      this.#parts.set(definition.name, this.#makePart(definition, inheritable(options.baseEnv), rotation));
  }

  /**
   * Takes the home and opens its control socket; starts nothing yet. What a manager that was killed left running
   * is ended first. Throws `definition-invalid`, `home-held` or `home-unusable`.
   */
  static async open(options: ProcessManagerOptions): Promise<ProcessManager> {
    validateDefinitions(options.definitions);
    const home = resolve(options.home);
    try {
      // A folder that was there keeps its mode, for it may be anybody's; what is put into it is closed to others.
      await mkdir(home, { recursive: true, mode: 0o700 });
    } catch (error) {
      throw new ProcessManagerError("home-unusable", `${home} cannot be used as a home`, { cause: error });
    }
    const lock = await HomeLock.take(home, process.argv.join(" "));
    try {
      await endLeftovers(lock);
      const manager = new ProcessManager(options, lock);
      await manager.#open();
      return manager;
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** All services as they are now, in the order of their definitions. */
  services(): ServiceRecord[] {
    return [...this.#parts.values()].map((part) => part.status.record);
  }

  /** Asks the named services and all they depend on to start (all of them without names); see `whenSettled`. */
  async start(names?: readonly string[]): Promise<void> {
    this.#refuseWhenStopping();
    const wanted = startOrder(this.#definitions, names);
    for (const { name } of wanted) this.#asked.add(name);
    await Promise.all(wanted.map(({ name }) => this.#part(name).service.start()));
  }

  /** Starts one service and what it depends on; throws `start-failed` when it does not get ready. */
  async startAndWait(name: string): Promise<ServiceRecord> {
    await this.start([name]);
    return await this.#whenUp(name, "start-failed");
  }

  /** Stops one service, whoever depends on it, and resolves when nothing of it is left. */
  async stop(name: string): Promise<ServiceRecord> {
    const part = this.#ownPart(name);
    this.#asked.delete(name);
    await part.service.stop();
    return part.status.record;
  }

  /**
   * Replaces a service's process and resolves when the new one is ready. Without a gap where the service's
   * socket is held and it notifies; see `Service.restart`. Throws `restart-failed`.
   */
  async restart(name: string): Promise<ServiceRecord> {
    this.#refuseWhenStopping();
    const part = this.#ownPart(name);
    const { state } = part.status;
    if (state === "stopped" || state === "failed") return await this.startAndWait(name);
    this.#asked.add(name);
    await part.service.restart();
    return await this.#whenUp(name, "restart-failed");
  }

  /**
   * Stops everything, dependants before what they depend on, and closes the manager: nothing is left after it.
   * With `force`, also while a gentle stop is going on, every process is killed at once.
   */
  async stopAll({ force = false } = {}): Promise<void> {
    if (force) void this.#killAll();
    this.#stopping ??= this.#close();
    await this.#stopping;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopAll();
  }

  /**
   * The records of the named services (of all that were asked for without names) once each is ready, has failed, or
   * waits for something that will not come by itself.
   */
  async whenSettled(names?: readonly string[]): Promise<ServiceRecord[]> {
    for (const name of names ?? []) this.#part(name);
    for (;;) {
      const parts = [...(names ?? this.#asked)].map((name) => this.#part(name));
      if (this.#stopping || parts.every((part) => this.#isSettled(part)))
        return parts.map((part) => part.status.record);
      await once(this.#changes, "change");
    }
  }

  /** Every change of a service's state from now on. A reader that falls far behind is ended. */
  events(): AsyncIterableIterator<ServiceEvent, undefined> {
    return this.#events.subscribe({ weightMax: waitingEventsMax, weigh: () => 1 });
  }

  /** Calls the listener at every change, in the same turn. Returns what ends that. */
  onEvent(listener: (event: ServiceEvent) => void): () => void {
    this.#listeners.on("event", listener);
    return () => this.#listeners.off("event", listener);
  }

  /** Lines of one service or of all: the last ones of the file first, then new ones as they come. */
  subscribeLogs({
    service,
    tailLines = 0,
    follow = true,
  }: LogQuery = {}): AsyncIterableIterator<LogLine, undefined> {
    const logs = service === undefined ? this.#allLogs() : [this.#logOf(service)];
    return followLogs(logs, tailLines, follow);
  }

  #openLog(name: string, rotation: RotationPolicy): ServiceLog {
    return new ServiceLog(name, join(this.home, "logs", `${name}.log`), rotation);
  }

  #makePart(definition: Definition, baseEnv: Record<string, string>, rotation: RotationPolicy): Part {
    const tell = (event: ServiceEvent): void => this.#tell(event);
    const { name, description = null } = definition;
    if (isExternal(definition)) {
      const first = { state: "waiting", reason: "is not probed yet", port: null, dependsOn: [] } as const;
      const status = new ServiceStatus({ name, description, kind: "external", ...first }, tell);
      return { kind: "external", definition, status, service: new ExternalService(definition, status) };
    }
    const first = { state: "stopped", reason: "was not asked to start" } as const;
    const dependsOn = (definition.dependsOn ?? []).map((dependency) => dependency.name);
    const port = definition.listen?.port ?? null;
    const status = new ServiceStatus({ name, description, kind: "service", ...first, port, dependsOn }, tell);
    const log = this.#openLog(name, rotation);
    const untilDependenciesMet = async (signal: AbortSignal): Promise<void> =>
      await this.#untilDependenciesMet(definition, status, signal);
    const service = new Service({
      definition,
      status,
      baseEnv,
      mark: this.#lock.holder.mark,
      guard: this.#guard,
      log,
      untilDependenciesMet,
    });
    return { kind: "service", definition, status, service, log };
  }

  async #open(): Promise<void> {
    try {
      this.#control = await ControlServer.open(this.home, this);
    } catch (error) {
      await this.#guard.close();
      throw error;
    }
    this.#ownLog.write(`${this.#lock.holder.since} manager: pid ${process.pid} manages ${this.home}`);
  }

  #tell(event: ServiceEvent): void {
    const { at, service, from, to, reason } = event;
    this.#ownLog.write(`${at} ${service}: ${from === to ? to : `${from} → ${to}`}: ${reason}`);
    this.#events.publish(event);
    this.#listeners.emit("event", event);
    this.#changes.emit("change");
  }

  async #untilDependenciesMet(
    definition: ServiceDefinition,
    status: ServiceStatus,
    signal: AbortSignal,
  ): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const missing = this.#missingDependency(definition);
      if (missing === null) return;
      status.explain(missing);
      await once(this.#changes, "change", { signal });
    }
  }

  /** What the service still waits for, in words; null when everything is there. */
  #missingDependency(definition: ServiceDefinition): string | null {
    for (const { name, state: wanted } of definition.dependsOn ?? []) {
      const { state, pid, reason } = this.#part(name).status.record;
      if (state === "ready" || (wanted === "started" && (pid !== null || state === "unhealthy"))) continue;
      if (state === "failed") return `waits for ${name}, which failed: ${reason}`;
      return `waits for ${name} to be ${wanted}; it is ${state}: ${reason}`;
    }
    return null;
  }

  #isSettled({ status, definition }: Part): boolean {
    const { state } = status;
    if (state === "waiting") return this.#isBlocked(definition);
    return state === "ready" || state === "unhealthy" || state === "failed" || state === "stopped";
  }

  /** Whether it waits for something that has settled without being what it waits for. */
  #isBlocked(definition: Definition): boolean {
    if (isExternal(definition) || this.#missingDependency(definition) === null) return false;
    return (definition.dependsOn ?? []).some(({ name }) => {
      const part = this.#part(name);
      return part.status.state !== "ready" && this.#isSettled(part);
    });
  }

  async #whenUp(name: string, code: "start-failed" | "restart-failed"): Promise<ServiceRecord> {
    const [record] = await this.whenSettled([name]);
    if (record && (record.state === "ready" || record.state === "unhealthy")) return record;
    throw new ProcessManagerError(code, `${name} is ${record?.state}: ${record?.reason}`);
  }

  #part(name: string): Part {
    const part = this.#parts.get(name);
    if (!part) throw unknownService(name, this.#definitions);
    return part;
  }

  #ownPart(name: string): Extract<Part, { kind: "service" }> {
    const part = this.#part(name);
    if (part.kind === "service") return part;
    throw new ProcessManagerError("service-external", `${name} is run by others; here it is only watched`);
  }

  #logOf(name: string): ServiceLog {
    return name === "manager" ? this.#ownLog : this.#ownPart(name).log;
  }

  #allLogs(): ServiceLog[] {
    return [...this.#parts.values()].flatMap((part) => (part.kind === "service" ? [part.log] : []));
  }

  #refuseWhenStopping(): void {
    if (this.#stopping) throw new ProcessManagerError("manager-stopping", "the manager is stopping");
  }

  async #killAll(): Promise<void> {
    const parts = [...this.#parts.values()];
    await Promise.all(
      parts.map((part) => (part.kind === "service" ? part.service.stop({ force: true }) : null)),
    );
  }

  async #close(): Promise<void> {
    await this.#stopInOrder();
    await this.#guard.close();
    this.#ownLog.write(`${new Date().toISOString()} manager: stopped`);
    // The socket goes before the lock does: the next manager's would have the same path.
    await this.#control?.stopListening();
    this.#events.close();
    await Promise.all([this.#ownLog, ...this.#allLogs()].map((log) => log.close()));
    await this.#lock.release();
    await this.#control?.close();
    this.#changes.emit("change");
    this.#closed.resolve();
  }

  /** Each service stops as soon as all that depend on it have. */
  async #stopInOrder(): Promise<void> {
    const waitedFor = dependants(this.#definitions);
    const stopped = new Map<string, Promise<void>>();
    for (const { name } of startOrder(this.#definitions).reverse()) {
      const before = (waitedFor.get(name) ?? []).map((dependant) => stopped.get(dependant));
      stopped.set(
        name,
        Promise.all(before).then(() => this.#part(name).service.stop()),
      );
    }
    await Promise.all(stopped.values());
  }
}

/** The base environment without what speaks of another manager, or of descriptors that are not passed on. */
function inheritable(env: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const isOurs = /^(PROCESS_MANAGER_\w+|LISTEN_(FDS|FDNAMES|PID)|NOTIFY_FD|NOTIFY_SOCKET)$/;
  const entries = Object.entries(env).flatMap(([key, value]) =>
    value === undefined || isOurs.test(key) ? [] : [[key, value] as const],
  );
  return Object.fromEntries(entries);
}

/** Ends what managers of this home that were killed left running: only what carries their mark. */
async function endLeftovers(lock: HomeLock): Promise<void> {
  const marks = lock.staleMarks.map((mark) => `PROCESS_MANAGER_MARK=${mark}`);
  if (marks.length > 0) {
    const isMarked = (entry: { carries: (assignment: string) => boolean }): boolean =>
      marks.some(entry.carries);
    const until = performance.now() + leftoverGraceMs;
    let left = (await listProcesses()).filter(isMarked);
    for (const { pid } of left) signalProcess(pid, "SIGTERM");
    while (left.length > 0 && performance.now() < until) {
      await new Promise((done) => setTimeout(done, 20));
      left = (await listProcesses()).filter(isMarked);
    }
    if (left.length > 0) await killAll(isMarked);
  }
  await lock.forgetStale();
}
