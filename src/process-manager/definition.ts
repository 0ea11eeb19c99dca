import type { LogPolicy } from "./log-file.ts";

/** A program and its arguments with no shell in between, or one line for the shell (`sh -c`, `cmd /c`). */
export type CommandLine = readonly [string, ...string[]] | string;

/** When a probe is tried and how many answers in a row count. */
interface ProbeTiming {
  /** Wait before the first try. Default 0. */
  readonly initialDelayMs?: number;
  /** From one try to the next. Default 2000. While a service starts, tries begin 20 ms apart and grow to this. */
  readonly periodMs?: number;
  /** One try may take this long. Default 1000. */
  readonly timeoutMs?: number;
  /** Passes in a row that make it good. Default 1. */
  readonly successThreshold?: number;
  /** Failures in a row that make it bad. Default 3. */
  readonly failureThreshold?: number;
}

/** GET. Passes with a wanted status and, where `body` is given, a body that matches it. */
interface HttpProbe {
  readonly kind: "http";
  /** The whole URL, or a path on the service's own `listen` address: `/healthz`. */
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Default: 200 to 399. */
  readonly status?: readonly number[];
  /** A regular expression that the first 64 KiB of the body must match. */
  readonly body?: string;
}

/** A connection that is accepted. Without host and port, on the service's own `listen` address. */
interface TcpProbe {
  readonly kind: "tcp";
  readonly host?: string;
  readonly port?: number;
}

/** A program, run with the service's folder and environment; exit code 0 passes. */
interface ExecProbe {
  readonly kind: "exec";
  readonly command: CommandLine;
}

/** A function of the manager's own process; for definitions in TypeScript alone. */
interface CheckProbe {
  readonly kind: "check";
  readonly check: (signal: AbortSignal) => Promise<void>;
}

/** A question that the manager asks, again and again. */
export type ActiveProbe = (HttpProbe | TcpProbe | ExecProbe | CheckProbe) & ProbeTiming;

/**
 * The process itself says that it is ready: `notify` by a line `READY=1` to the descriptor in `NOTIFY_FD`, `ipc` by
 * `process.send("ready")`, `log` by a line of its output that matches. Only this tells the new process from the
 * old one on a shared socket, so only this allows a rolling restart.
 */
interface Announcement {
  readonly kind: "notify" | "ipc" | "log";
  /** For `ipc`, the message (default `ready`); for `log`, the regular expression, which is needed. */
  readonly pattern?: string;
  /** Asked once it is ready; makes the service `unhealthy` while it fails. */
  readonly watch?: ActiveProbe;
}

export type Readiness = ActiveProbe | Announcement;

/** Whether the process says itself that it is ready: only this tells which of two on a socket is. */
export function isAnnouncement(readiness: Readiness | undefined): readiness is Announcement {
  return readiness?.kind === "notify" || readiness?.kind === "ipc" || readiness?.kind === "log";
}

/** When and how often a service that ended is started again. */
export interface RestartPolicy {
  /** Default `always`; for a task `never`. */
  readonly policy: "always" | "on-failure" | "never";
  /** More restarts than this within `periodMs`, and the service is `failed`. Default 20 in 60 000. */
  readonly intensity: number;
  readonly periodMs: number;
  /** The first restart is at once; the n-th after waits up to base × 2ⁿ⁻¹ (default 20), never more than the cap (3000). */
  readonly backoffBaseMs: number;
  readonly backoffCapMs: number;
  /** Ready for this long, and the next restart is a first one again. Default 1000. */
  readonly stableMs: number;
  /** Exit codes that mean that all is well. Default 0. */
  readonly successExitCodes: readonly number[];
}

export interface StopPolicy {
  /** Default SIGTERM. */
  readonly signal: NodeJS.Signals;
  /** What still runs after this is sent SIGKILL. Default 5000. */
  readonly timeoutMs: number;
}

/** A TCP port that a service serves. It finds the number in `PORT`, unless its `env` says otherwise. */
export interface Listen {
  /** An address, or a name that resolves to one. Default 127.0.0.1. */
  readonly host?: string;
  /** Of the first replica; the next has the next. */
  readonly port: number;
  /** The manager binds and keeps the socket and hands it to the process as fd 3, as systemd does. */
  readonly hold?: boolean;
  /**
   * For programs that cannot be handed a socket: the manager serves the port and passes each connection on to the
   * process, which listens on 127.0.0.1 on a port of its own that it finds in `PORT`. Not together with `hold`.
   */
  readonly relay?: boolean;
}

/** Files whose change restarts the service. */
export interface WatchPolicy {
  /** Files and folders, from the service's `cwd`. */
  readonly paths: readonly string[];
  /** Globs on the path from `cwd`; `node_modules`, `.git` and the home are never watched. */
  readonly ignore?: readonly string[];
  /** Quiet for this long before it restarts. Default 200. */
  readonly debounceMs?: number;
}

/** What a dependency must have come to: its process runs, it is ready, or it has ended well. */
export type DependencyState = "started" | "ready" | "completed";

/** A program that the manager starts, watches and stops. */
export interface ServiceDefinition {
  /** A `task` runs to its end and is then `completed`. Default `service`. */
  readonly kind?: "service" | "task";
  /** `[a-z][a-z0-9-]*` */
  readonly name: string;
  readonly description?: string;
  readonly command: CommandLine;
  readonly cwd?: string;
  /** Added to the base environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Run as another user; possible only when the manager is root. */
  readonly user?: { readonly uid: number; readonly gid: number };
  readonly listen?: Listen;
  /** Name of the setting that moves the port, for the advice when it is taken: `CHAT_PORT`. */
  readonly portHint?: string;
  /** Run this many, as `name-1`, `name-2` …, each with `REPLICA` in its environment. */
  readonly replicas?: number;
  /**
   * Waited for on the first start; a dependency that restarts later does not restart this one. A list means `ready`,
   * of a task `completed`.
   */
  readonly dependsOn?: readonly string[] | Readonly<Record<string, DependencyState>>;
  /** Without one, a service is ready as soon as its process runs. */
  readonly readiness?: Readiness;
  /** Asked while the service is ready; when it fails, the process is killed and started again. */
  readonly liveness?: ActiveProbe;
  /** Not ready after this long counts as a failed start. Default 60 000. */
  readonly startTimeoutMs?: number;
  /**
   * Before every spawn, for as long as it takes. An error with `fatal: true` makes the service `failed` at once.
   * Programs that it runs belong in `env`, the service's own with the mark: then they cannot outlive the manager.
   */
  readonly prepare?: (signal: AbortSignal, env: Readonly<Record<string, string>>) => Promise<void>;
  /** After readiness first passes in a life, before the state is `ready`, as long as it takes. `fatal` as above. */
  readonly afterReady?: (signal: AbortSignal) => Promise<void>;
  readonly restart?: Partial<RestartPolicy>;
  readonly stop?: Partial<StopPolicy>;
  readonly logs?: Partial<LogPolicy>;
  /** When a task runs, in cron's five fields, local time: `0 3 * * *`. */
  readonly schedule?: string;
  readonly watch?: WatchPolicy;
  /** Resident memory of all its processes together; above it the service is restarted. */
  readonly memoryMaxMiB?: number;
}

/** Something that others run and we only watch: LM Studio, a hosted database, Redis. */
export interface ExternalDefinition {
  readonly kind: "external";
  readonly name: string;
  readonly description?: string;
  readonly probe: ActiveProbe;
  /** After the probe first passes, before the state is `ready`; tried again while it throws. */
  readonly afterReady?: (signal: AbortSignal) => Promise<void>;
}

export type Definition = ServiceDefinition | ExternalDefinition;

/** A service definition, checked by the compiler where it is written. */
export function defineService<const D extends ServiceDefinition>(definition: D): D {
  return definition;
}

/** An external definition, checked by the compiler where it is written. */
export function defineExternal<const D extends ExternalDefinition>(definition: D): D {
  return definition;
}
