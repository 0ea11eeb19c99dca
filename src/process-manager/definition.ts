/** When a probe is tried and how many answers in a row count. */
interface ProbeTiming {
  /** Wait before the first try. Default 0. */
  readonly initialDelayMs?: number;
  /** Between two tries. Default 2000. While a service starts, tries begin 20 ms apart and grow to this. */
  readonly periodMs?: number;
  /** One try may take this long. Default 1000. */
  readonly timeoutMs?: number;
  /** Passes in a row that make it good. Default 1. */
  readonly successThreshold?: number;
  /** Failures in a row that make it bad. Default 3. */
  readonly failureThreshold?: number;
}

/** A question that the manager asks, again and again. An http answer of 200 to 399 passes. */
export type ActiveProbe = (
  | { readonly kind: "http"; readonly url: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "check"; readonly check: (signal: AbortSignal) => Promise<void> }
) &
  ProbeTiming;

/**
 * The process itself says that it is ready: a line `READY=1` to the descriptor in `NOTIFY_FD`.
 * Only this tells the new process from the old one on a shared socket, so only this allows a rolling
 * restart. `watch` is asked once it is ready, and makes the service `unhealthy` while it fails.
 */
interface NotifyProbe {
  readonly kind: "notify";
  readonly watch?: ActiveProbe;
}

type Probe = ActiveProbe | NotifyProbe;

/** When and how often a service that ended is started again. */
export interface RestartPolicy {
  readonly policy: "always" | "on-failure" | "never";
  /** More restarts than this within `periodMs`, and the service is `failed`. */
  readonly intensity: number;
  readonly periodMs: number;
  /** The first restart is at once; the n-th after waits up to base × 2ⁿ⁻¹, never more than the cap. */
  readonly backoffBaseMs: number;
  readonly backoffCapMs: number;
  /** Ready for this long, and the next restart is a first one again. */
  readonly stableMs: number;
}

export interface StopPolicy {
  readonly signal: NodeJS.Signals;
  /** What still runs after this is sent SIGKILL. */
  readonly timeoutMs: number;
}

/** A TCP port that a service serves. */
export interface Listen {
  /** An address, or a name that resolves to one. */
  readonly host: string;
  readonly port: number;
  /** The manager binds and keeps the socket and hands it to the process as fd 3, as systemd does. */
  readonly hold?: boolean;
}

interface Dependency {
  readonly name: string;
  readonly state: "started" | "ready";
}

/** A program that the manager starts, watches and stops. */
export interface ServiceDefinition {
  readonly kind?: "service";
  /** `[a-z][a-z0-9-]*` */
  readonly name: string;
  readonly description?: string;
  /** Program and arguments; no shell in between. */
  readonly command: readonly [string, ...string[]];
  readonly cwd?: string;
  /** Added to the base environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Run as another user; possible only when the manager is root. */
  readonly user?: { readonly uid: number; readonly gid: number };
  readonly listen?: Listen;
  /** Name of the setting that moves the port, for the advice when it is taken: `CHAT_PORT`. */
  readonly portHint?: string;
  /** Waited for on the first start; a dependency that restarts later does not restart this one. */
  readonly dependsOn?: readonly Dependency[];
  /** Without one, a service is ready as soon as its process runs. */
  readonly readiness?: Probe;
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

export function isExternal(definition: Definition): definition is ExternalDefinition {
  return definition.kind === "external";
}

/** The restart policy with its defaults: 20 restarts a minute, 200 ms growing to 3 s. */
export function restartPolicyOf(definition: ServiceDefinition): RestartPolicy {
  return {
    policy: "always",
    intensity: 20,
    periodMs: 60_000,
    backoffBaseMs: 200,
    backoffCapMs: 3_000,
    stableMs: 1_000,
    ...definition.restart,
  };
}

/** The stop policy with its defaults: SIGTERM, and 5 s to obey. */
export function stopPolicyOf(definition: ServiceDefinition): StopPolicy {
  return { signal: "SIGTERM", timeoutMs: 5_000, ...definition.stop };
}
