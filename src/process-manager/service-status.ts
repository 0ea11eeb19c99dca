import { type Happening, isUp, nextState, type State } from "./lifecycle.ts";

/** How a process ended. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** ISO time. */
  readonly at: string;
}

/** How a process ended, in words. */
export function describeExit({ code, signal }: Exit): string {
  return signal ? `killed by ${signal}` : `exited with code ${code}`;
}

/** A restart and what it was for. */
interface PastRestart {
  /** ISO time. */
  readonly at: string;
  readonly reason: string;
}

/** What is known of a service without looking; `MeasuredService` adds what it uses. */
export interface ServiceRecord {
  readonly name: string;
  /** The name it is defined under; replicas share it. */
  readonly group: string;
  readonly kind: "service" | "task" | "external";
  readonly description: string | null;
  readonly state: State;
  /** ISO time at which the state was entered. */
  readonly since: string;
  /** Why it is in this state, for people. */
  readonly reason: string;
  readonly pid: number | null;
  readonly port: number | null;
  /** Processes started again since the service was last started by command. */
  readonly restarts: number;
  readonly lastExit: Exit | null;
  /** The last restarts, newest last: at most 20. */
  readonly recentRestarts: readonly PastRestart[];
  /** When a task last ended well, ISO; null until then. */
  readonly completedAt: string | null;
  /** When its process, or the last one, was started, ISO. */
  readonly startedAt: string | null;
  /** The last lines of its log, at most 50, from when it last failed or had to wait for its next try. */
  readonly lastLines: readonly string[];
  /** What was different then from the last run that was good: files, variables, definition, dependencies. */
  readonly changes: readonly string[];
  /** While in `backoff`, or for a scheduled task: when the next attempt comes, ISO. */
  readonly nextTryAt: string | null;
  readonly dependsOn: readonly string[];
}

/** Whether a start has come to what it was for: it is up, done, or waits for its hour. */
export function hasStarted({ state, nextTryAt }: ServiceRecord): boolean {
  return isUp(state) || state === "completed" || (state === "waiting" && nextTryAt !== null);
}

/** A service went from one state to another, or stays in it for another reason. */
export interface ServiceEvent {
  readonly at: string;
  readonly service: string;
  readonly from: State;
  readonly to: State;
  readonly reason: string;
}

type Identity = Pick<ServiceRecord, "name" | "group" | "kind" | "description" | "port" | "dependsOn">;
type Facts = Partial<
  Pick<
    ServiceRecord,
    | "pid"
    | "restarts"
    | "lastExit"
    | "nextTryAt"
    | "recentRestarts"
    | "completedAt"
    | "startedAt"
    | "lastLines"
    | "changes"
  >
>;

/** The record of one service and the only thing that changes it; tells each change. */
export class ServiceStatus {
  #record: ServiceRecord;
  readonly #tell: (event: ServiceEvent) => void;
  #startMs: number | null = null;
  #next = Promise.withResolvers<void>();

  constructor(
    first: Identity & Pick<ServiceRecord, "state" | "reason">,
    tell: (event: ServiceEvent) => void,
  ) {
    const since = new Date().toISOString();
    this.#record = {
      ...first,
      since,
      pid: null,
      restarts: 0,
      lastExit: null,
      nextTryAt: null,
      recentRestarts: [],
      completedAt: null,
      startedAt: null,
      lastLines: [],
      changes: [],
    };
    this.#tell = (event) => {
      tell(event);
      this.#next.resolve();
      this.#next = Promise.withResolvers();
    };
  }

  /** Resolves at the next event. */
  changed(): Promise<void> {
    return this.#next.promise;
  }

  get record(): ServiceRecord {
    return this.#record;
  }

  /** How long the last start took, from its beginning until it was ready, milliseconds; null until then. */
  get startMs(): number | null {
    return this.#startMs;
  }

  get state(): State {
    return this.#record.state;
  }

  /** Makes the move that the happening means here, if any. Returns whether there was one. */
  move(happening: Happening, reason: string, facts: Facts = {}): boolean {
    const from = this.#record.state;
    const to = nextState(from, happening);
    if (to === undefined) return false;
    const at = new Date().toISOString();
    if (from === "starting" && to === "ready")
      this.#startMs = Date.parse(at) - Date.parse(this.#record.since);
    const since = to === from ? this.#record.since : at;
    this.#record = { ...this.#record, nextTryAt: null, ...facts, state: to, since, reason };
    this.#tell({ at, service: this.#record.name, from, to, reason });
    return true;
  }

  /** Notes facts that change no state: a pid, an exit. */
  note(facts: Facts): void {
    this.#record = { ...this.#record, ...facts };
  }

  /** Its definition was changed. */
  redefine(identity: Identity): void {
    this.#record = { ...this.#record, ...identity };
  }

  /** Another reason for the same state; told only when it differs. */
  explain(reason: string, facts: Facts = {}): void {
    const { name, state } = this.#record;
    if (reason === this.#record.reason) return;
    this.#record = { ...this.#record, ...facts, reason };
    this.#tell({ at: new Date().toISOString(), service: name, from: state, to: state, reason });
  }
}
