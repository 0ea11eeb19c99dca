import { EventEmitter, once } from "node:events";
import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { asStarted, type Change, planChanges } from "./change-plan.ts";
import { type Controllable, ControlServer, type LogQuery } from "./control-server.ts";
import type { Definition } from "./definition.ts";
import { ExternalService } from "./external-service.ts";
import { Feed } from "./feed.ts";
import { Guard } from "./guard.ts";
import { HomeLock } from "./home-lock.ts";
import { isUp } from "./lifecycle.ts";
import { defaultLogPolicy, LogFile, type LogPolicy } from "./log-file.ts";
import { LogFolder } from "./log-folder.ts";
import { followLogs } from "./log-follower.ts";
import type { LogLine } from "./log-reader.ts";
import { keepMemoryLimits } from "./memory-limits.ts";
import { PipePool } from "./output-pipe.ts";
import { messageOf, ProcessManagerError } from "./process-manager-error.ts";
import { type MeasuredService, ProcessUsage } from "./process-usage.ts";
import { killAll, listProcesses, signalProcess } from "./processes.ts";
import {
  type Resolved,
  type ResolvedExternal,
  type ResolvedService,
  resolveDefinitions,
} from "./resolve-definitions.ts";
import { gapOf } from "./rolling.ts";
import { RunRecords } from "./run-record.ts";
import { Service } from "./service.ts";
import { ServiceLog } from "./service-log.ts";
import {
  describeExit,
  hasStarted,
  type ServiceEvent,
  type ServiceRecord,
  ServiceStatus,
} from "./service-status.ts";
import { dependants, namedBy, startOrder } from "./start-order.ts";
import { Upkeep } from "./upkeep.ts";
import { validateDefinitions } from "./validate-definitions.ts";

/** What a manager is made of. */
export interface ProcessManagerOptions {
  /** Folder for the lock, the control socket and the logs; made with mode 0700. One manager at a time. */
  readonly home: string;
  readonly definitions: readonly Definition[];
  /** Reads the definitions anew, for `plan` and `apply`; without it they are what they are. */
  readonly reload?: () => Promise<readonly Definition[]>;
  /** The environment that every service starts from. */
  readonly baseEnv: Readonly<Record<string, string | undefined>>;
  /** What all logs together may take of the disk; then the oldest files go, of any service. Default 1 GiB. */
  readonly logsMaxBytes?: number;
}

type Part = {
  readonly status: ServiceStatus;
} & (
  | {
      readonly kind: "service";
      definition: ResolvedService;
      readonly service: Service;
      readonly log: ServiceLog;
      readonly upkeep: Upkeep;
    }
  | { readonly kind: "external"; readonly definition: ResolvedExternal; readonly service: ExternalService }
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
  readonly #options: ProcessManagerOptions;
  readonly #baseEnv: Readonly<Record<string, string>>;
  /** As they were written, and what became of them. */
  #written: readonly Definition[];
  #definitions: readonly Resolved[];
  readonly #lock: HomeLock;
  readonly #guard: Guard;
  readonly #pipes: PipePool;
  readonly #logs: LogFolder;
  readonly #ownLog: ServiceLog;
  readonly #runs: RunRecords;
  readonly #parts = new Map<string, Part>();
  readonly #events = new Feed<ServiceEvent>();
  readonly #changes = new EventEmitter<{ change: [] }>().setMaxListeners(0);
  readonly #listeners = new EventEmitter<{ event: [ServiceEvent] }>().setMaxListeners(0);
  readonly #usage: ProcessUsage;
  readonly #asked = new Set<string>();
  readonly #closed = Promise.withResolvers<void>();
  readonly #end = new AbortController();
  #control: ControlServer | null = null;
  #stopping: Promise<void> | null = null;
  #changing: Promise<unknown> = Promise.resolve();

  private constructor(options: ProcessManagerOptions, lock: HomeLock) {
    this.home = resolve(options.home);
    this.closed = this.#closed.promise;
    this.#options = options;
    // By its home a process that outlives its station can be told from others: see `findPortOwner`.
    this.#baseEnv = { ...inheritable(options.baseEnv), PROCESS_MANAGER_HOME: this.home };
    this.#written = options.definitions;
    this.#definitions = resolveDefinitions(options.definitions);
    this.#lock = lock;
    this.#usage = new ProcessUsage(lock.holder.mark);
    this.#guard = new Guard(lock.holder.mark, options.baseEnv.PATH ?? "/usr/bin:/bin");
    this.#runs = new RunRecords(this.home);
    this.#pipes = new PipePool(join(this.home, "pipes"), 2 * options.definitions.length + 2);
    this.#logs = new LogFolder(join(this.home, "logs"), options.logsMaxBytes ?? 1024 ** 3);
    this.#ownLog = this.#openLog("manager", defaultLogPolicy);
    for (const definition of this.#definitions) this.#parts.set(definition.name, this.#makePart(definition));
  }

  /**
   * Takes the home and opens its control socket; starts nothing yet. What a manager that was killed left running
   * is ended first. Throws `definition-invalid`, `home-held` or `home-unusable`.
   */
  static async open(options: ProcessManagerOptions): Promise<ProcessManager> {
    await validateDefinitions(options.definitions);
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
    return this.#definitions.map(({ name }) => this.#part(name).status.record);
  }

  /** The same with what each of them uses now. */
  async measuredServices(): Promise<MeasuredService[]> {
    return await this.#usage.measure(this.services());
  }

  /** All that is measured of the services and of the manager, in Prometheus' text format. */
  async metrics(): Promise<string> {
    const { metricsText } = await import("./metrics-text.ts");
    const services = await this.measuredServices();
    const counted = services.map((service) => {
      const part = this.#part(service.name);
      const logBytes = "log" in part ? part.log.bytesTotal : null;
      return { ...service, logBytes, startMs: part.status.startMs };
    });
    return await metricsText(counted);
  }

  /** Asks the named services and all they depend on to start (all of them without names); see `whenSettled`. */
  async start(names?: readonly string[]): Promise<void> {
    this.#refuseWhenStopping();
    const named = (names ?? []).flatMap((name) => namedBy(name, this.#definitions));
    // A task that is done is not done again for one more that depends on it.
    const wanted = startOrder(this.#definitions, names).filter(
      (definition) => named.includes(definition) || this.#part(definition.name).status.state !== "completed",
    );
    for (const { name } of wanted) this.#asked.add(name);
    await Promise.all(
      wanted.map(async ({ name }) => {
        const part = this.#part(name);
        if (part.kind === "service" && !part.upkeep.isGoing) part.upkeep.begin(part.definition);
        await part.service.start();
      }),
    );
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
    await part.upkeep.end();
    await part.service.stop();
    return part.status.record;
  }

  /**
   * Replaces a service's process and resolves when the new one is ready. Without a gap where the service's
   * socket is held and it notifies, or its port is relayed; see `Service.restart`. Throws `restart-failed`; with
   * `isRolling`, at once where there would be a gap.
   */
  async restart(name: string, why: string | null = null, isRolling = false): Promise<ServiceRecord> {
    this.#refuseWhenStopping();
    const part = this.#ownPart(name);
    const { state } = part.status;
    const gap = isRolling ? gapOf(part.definition, state) : null;
    if (gap !== null)
      throw new ProcessManagerError("restart-failed", `${name} cannot be replaced without a gap: ${gap}`);
    if (state === "stopped" || state === "failed" || state === "completed")
      return await this.startAndWait(name);
    this.#asked.add(name);
    await part.service.restart(why);
    return await this.#whenUp(name, "restart-failed");
  }

  /** What `apply` would do: the definitions as they are written now beside those that run. */
  async plan(): Promise<Change[]> {
    return planChanges(this.#asRun(), resolveDefinitions(await this.#reload()));
  }

  /**
   * Makes what runs what is written now: restarts only what changed, starts what is new, ends what is gone. Resolves
   * when all of it is up; throws `definition-invalid` before anything is touched, and, when all else is done,
   * `restart-failed`: what did not get ready on its new definition is still to be changed.
   */
  async apply(): Promise<Change[]> {
    return await this.#inTurn(async () => await this.#become(await this.#reload()));
  }

  /** Runs this many of a service that has replicas. Throws `request-invalid` where it has none. */
  async scale(group: string, replicas: number): Promise<Change[]> {
    return await this.#inTurn(async () => {
      this.#refuseWhenStopping();
      const definition = this.#written.find(({ name }) => name === group);
      if (definition?.kind === "external" || definition?.replicas === undefined)
        throw new ProcessManagerError("request-invalid", `${group} is not defined with replicas`);
      const written = this.#written.map((one) => (one === definition ? { ...definition, replicas } : one));
      await validateDefinitions(written);
      return await this.#become(written);
    });
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

  /** Resolves when the files that restart this service are being watched: what changes from then on is seen. */
  async watching(name: string): Promise<void> {
    await this.#ownPart(name).upkeep.watching();
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

  #openLog(name: string, policy: LogPolicy): ServiceLog {
    const file = new LogFile(join(this.home, "logs", `${name}.log`), policy, this.#logs);
    return new ServiceLog(name, file, this.#pipes);
  }

  #makePart(definition: Resolved): Part {
    const tell = (event: ServiceEvent): void => this.#tell(event);
    const { name } = definition;
    const { mark } = this.#lock.holder;
    if (definition.kind === "external") {
      const first = { state: "waiting", reason: "is not probed yet" } as const;
      const status = new ServiceStatus({ ...identityOf(definition), ...first }, tell);
      const env = { ...this.#baseEnv, PROCESS_MANAGER_MARK: mark };
      const service = new ExternalService(definition, { cwd: this.home, env }, status);
      return { kind: "external", definition, status, service };
    }
    const first = { state: "stopped", reason: "was not asked to start" } as const;
    const status = new ServiceStatus({ ...identityOf(definition), ...first }, tell);
    const log = this.#openLog(name, definition.logs);
    const complain = (text: string): void => this.#note(`${name}: ${text}`);
    const service = new Service({
      definition,
      status,
      baseEnv: this.#baseEnv,
      mark,
      guard: this.#guard,
      log,
      complain,
      runs: this.#runs,
      dependencyNews: (since) => this.#dependencyNews(name, since),
      untilDependenciesMet: async (signal) => await this.#untilDependenciesMet(name, status, signal),
    });
    const upkeep = new Upkeep({
      home: this.home,
      restart: async (why) => void (await this.restart(name, why)),
      complain,
    });
    return { kind: "service", definition, status, service, log, upkeep };
  }

  async #reload(): Promise<readonly Definition[]> {
    this.#refuseWhenStopping();
    const definitions = (await this.#options.reload?.()) ?? this.#written;
    await validateDefinitions(definitions);
    return definitions;
  }

  /** One change of the definitions at a time. */
  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#changing.then(work);
    this.#changing = result.catch(() => undefined);
    return await result;
  }

  /** Removals first, since they may hold ports that others are to have; dependants end before what they need. */
  async #become(written: readonly Definition[]): Promise<Change[]> {
    const after = resolveDefinitions(written);
    const changes = planChanges(this.#asRun(), after);
    const named = (action: Change["action"]): string[] =>
      changes.filter((change) => change.action === action).map(({ name }) => name);
    const gone = named("remove");
    const before = this.#definitions;
    for (const definition of after) if (!this.#parts.has(definition.name)) this.#add(definition);
    this.#written = written;
    this.#definitions = after; // before the stop: from here on nobody can start what is gone
    await this.#stopInOrder(gone, before);
    await Promise.all(gone.map((name) => this.#forget(name)));
    for (const name of named("update")) this.#redefine(name);
    await this.start(named("add"));
    const failures: string[] = [];
    for (const { name } of startOrder(after).filter((one) => named("restart").includes(one.name))) {
      const why = changes.find((change) => change.name === name)?.why.join(", ") ?? "";
      await this.#replace(name, why).catch((error: unknown) => failures.push(messageOf(error)));
    }
    await this.whenSettled(named("add"));
    if (failures.length > 0) throw new ProcessManagerError("restart-failed", failures.join("; "));
    return changes;
  }

  /** The definitions, each with what its process was started from: that may have outlived a change. */
  #asRun(): Resolved[] {
    return this.#definitions.map((definition) => {
      const part = this.#part(definition.name);
      const started = part.kind === "service" ? part.service.startedFrom : null;
      return started && definition.kind !== "external" ? asStarted(definition, started) : definition;
    });
  }

  #add(definition: Resolved): void {
    this.#parts.set(definition.name, this.#makePart(definition));
  }

  async #forget(name: string): Promise<void> {
    const part = this.#part(name);
    this.#parts.delete(name);
    this.#asked.delete(name);
    if (part.kind === "service") await part.log.close();
  }

  #redefine(name: string): void {
    const part = this.#part(name);
    const definition = this.#definitions.find((one) => one.name === name);
    if (part.kind !== "service" || !definition || definition.kind === "external") return;
    const isWatching = part.upkeep.isGoing;
    part.definition = definition;
    part.log.policy = definition.logs;
    part.status.redefine(identityOf(definition));
    part.service.redefine(definition);
    this.#changes.emit("change"); // it may wait for something else now
    if (isWatching) part.upkeep.begin(definition);
  }

  /** On the new definition: without a gap where that can be, through a full stop where the port is another. */
  async #replace(name: string, why: string): Promise<void> {
    const part = this.#part(name);
    const after = this.#definitions.find((one) => one.name === name);
    const isAsked = this.#asked.has(name);
    if (part.kind !== "service" || !after || after.kind === "external") {
      await part.service.stop();
      if (part.kind === "service") await part.log.close();
      if (after) this.#add(after);
      return isAsked ? await this.start([name]) : undefined;
    }
    if (!isAsked) return this.#redefine(name);
    const isMoved = !isDeepStrictEqual(part.definition.listen, after.listen);
    if (isMoved) await part.service.stop();
    this.#redefine(name);
    if (isMoved) await this.startAndWait(name);
    else await this.restart(name, why);
  }

  async #open(): Promise<void> {
    try {
      this.#control = await ControlServer.open(this.home, this);
    } catch (error) {
      await this.#guard.close();
      await this.#pipes.close();
      throw error;
    }
    this.#note(`manager: pid ${process.pid} manages ${this.home}`);
    void keepMemoryLimits(
      {
        limits: () => memoryLimitsOf(this.#definitions),
        memory: async () => await this.#usage.memoryOf(this.services().filter(({ state }) => isUp(state))),
        restart: async (name, why) => void (await this.restart(name, why)),
      },
      this.#end.signal,
    );
  }

  #tell(event: ServiceEvent): void {
    const { service, from, to, reason } = event;
    this.#note(`${service}: ${from === to ? to : `${from} → ${to}`}: ${reason}`);
    this.#events.publish(event);
    this.#listeners.emit("event", event);
    if (from !== to) this.#tellDependants(event);
    this.#changes.emit("change");
  }

  /** Who runs on a dependency hears that it has failed, and when it is back. */
  #tellDependants({ service, from, to, reason }: ServiceEvent): void {
    const isBack = to === "ready" && from === "starting";
    if (to !== "failed" && !isBack) return;
    const isMissing = `is ready, but ${service}, which it needs, failed`;
    for (const name of dependants(this.#definitions).get(service) ?? []) {
      const status = this.#parts.get(name)?.status;
      if (status?.state !== "ready") continue;
      if (!isBack) status.explain(`${isMissing}: ${reason}`);
      else if (status.record.reason.startsWith(isMissing))
        status.explain(`is ready, and so is ${service} again`);
    }
  }

  /** A line in the manager's own log. */
  #note(text: string): void {
    this.#ownLog.write(`${new Date().toISOString()} ${text}`);
  }

  async #untilDependenciesMet(name: string, status: ServiceStatus, signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const missing = this.#missingDependency(this.#part(name).definition);
      if (missing === null) return;
      status.explain(missing);
      await once(this.#changes, "change", { signal });
    }
  }

  #dependencyNews(name: string, since: string): string[] {
    return this.#dependenciesOf(this.#part(name).definition).flatMap((dependency) => {
      const { state, reason, lastExit } = this.#part(dependency.name).status.record;
      if (lastExit && lastExit.at > since && dependency.state !== "completed")
        return [`${dependency.name} ${describeExit(lastExit)} at ${lastExit.at}`];
      if (state === "unhealthy" || state === "failed") return [`${dependency.name} is ${state}: ${reason}`];
      return [];
    });
  }

  /** While a change is made, a service may still be defined to need what is already gone. */
  #dependenciesOf({ dependsOn }: Resolved): Resolved["dependsOn"] {
    return dependsOn.filter(({ name }) => this.#parts.has(name));
  }

  /** What the service still waits for, in words; null when everything is there. */
  #missingDependency(definition: Resolved): string | null {
    for (const { name, state: wanted } of this.#dependenciesOf(definition)) {
      const { state, pid, reason, completedAt } = this.#part(name).status.record;
      if (wanted === "completed" ? completedAt !== null : state === "ready") continue;
      if (wanted === "started" && (pid !== null || state === "unhealthy" || completedAt !== null)) continue;
      if (state === "failed") return `waits for ${name}, which failed: ${reason}`;
      return `waits for ${name} to be ${wanted}; it is ${state}: ${reason}`;
    }
    return null;
  }

  #isSettled({ status, definition }: Part): boolean {
    const { state } = status;
    if (state === "waiting") return isScheduled(definition) || this.#isBlocked(definition);
    return state !== "starting" && state !== "backoff" && state !== "stopping";
  }

  /** Whether it waits for something that has settled without being what it waits for. */
  #isBlocked(definition: Resolved): boolean {
    if (this.#missingDependency(definition) === null) return false;
    return this.#dependenciesOf(definition).some(({ name, state }) => {
      const part = this.#part(name);
      if (state === "completed") return part.status.record.completedAt === null && this.#isSettled(part);
      return part.status.state !== "ready" && this.#isSettled(part);
    });
  }

  async #whenUp(name: string, code: "start-failed" | "restart-failed"): Promise<ServiceRecord> {
    const [record] = await this.whenSettled([name]);
    if (record && hasStarted(record)) return record;
    throw new ProcessManagerError(code, `${name} is ${record?.state}: ${record?.reason}`);
  }

  #part(name: string): Part {
    const part = this.#parts.get(name);
    if (part) return part;
    namedBy(name, this.#definitions); // throws, unless it is a group's
    throw new ProcessManagerError("service-unknown", `${name} has replicas: name one of them, as ${name}-1`);
  }

  #ownPart(name: string): Extract<Part, { kind: "service" }> {
    const part = this.#part(name);
    namedBy(name, this.#definitions); // what is being removed is known no more
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
    this.#end.abort();
    await this.#stopInOrder();
    await this.#changing; // it may be stopping what it removes
    await this.#guard.close();
    await this.#pipes.close();
    this.#note("manager: stopped");
    // The socket goes before the lock does: the next manager's would have the same path.
    await this.#control?.stopListening();
    this.#events.close();
    await Promise.all([this.#ownLog, ...this.#allLogs()].map((log) => log.close()));
    // Without a home or without room there is nothing to mark; the next manager finds that we are gone.
    await this.#lock.release().catch(() => undefined);
    await this.#control?.close();
    this.#changes.emit("change");
    this.#closed.resolve();
  }

  /** Each of the named services (all without names) stops as soon as all that depend on it have. */
  async #stopInOrder(
    names: readonly string[] = [...this.#parts.keys()],
    definitions = this.#definitions,
  ): Promise<void> {
    const waitedFor = dependants(definitions);
    const stopped = new Map<string, Promise<void>>();
    for (const { name } of startOrder(definitions).reverse()) {
      if (!names.includes(name)) continue;
      const before = (waitedFor.get(name) ?? []).map((dependant) => stopped.get(dependant));
      const part = this.#part(name);
      const stop = async (): Promise<void> => {
        await Promise.all(before);
        if (part.kind === "service") await part.upkeep.end();
        await part.service.stop();
      };
      stopped.set(name, stop());
    }
    await Promise.all(stopped.values());
  }
}

function isScheduled(definition: Resolved): boolean {
  return definition.kind === "task" && definition.schedule !== null;
}

function identityOf(definition: Resolved) {
  const { name, group, description, kind } = definition;
  const port = definition.kind === "external" ? null : (definition.listen?.port ?? null);
  const dependsOn = definition.dependsOn.map((dependency) => dependency.name);
  return { name, group, description, kind, port, dependsOn };
}

function memoryLimitsOf(definitions: readonly Resolved[]): Map<string, number> {
  const limits = definitions.flatMap((definition) =>
    definition.kind !== "external" && definition.memoryMaxMiB !== null
      ? [[definition.name, definition.memoryMaxMiB] as const]
      : [],
  );
  return new Map(limits);
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
