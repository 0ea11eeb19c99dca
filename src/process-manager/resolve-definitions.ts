import { resolve } from "node:path";
import {
  type ActiveProbe,
  type CommandLine,
  type Definition,
  type DependencyState,
  type ExternalDefinition,
  isAnnouncement,
  type Listen,
  type Readiness,
  type RestartPolicy,
  type ServiceDefinition,
  type StopPolicy,
  type WatchPolicy,
} from "./definition.ts";
import { defaultLogPolicy, type LogPolicy } from "./log-file.ts";

/** Where a server listens. */
export interface TcpAddress {
  readonly host: string;
  readonly port: number;
}

/** One process to run: a definition, or one replica of it, with every default filled in. */
export interface ResolvedService
  extends Pick<ServiceDefinition, "user" | "portHint" | "readiness" | "liveness" | "prepare" | "afterReady"> {
  readonly kind: "service" | "task";
  readonly name: string;
  /** The name it was defined under: several replicas share it. */
  readonly group: string;
  readonly description: string | null;
  readonly command: readonly [string, ...string[]];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly listen: Required<Listen> | null;
  readonly dependsOn: readonly { readonly name: string; readonly state: DependencyState }[];
  readonly startTimeoutMs: number;
  readonly restart: RestartPolicy;
  readonly stop: StopPolicy;
  readonly logs: LogPolicy;
  readonly schedule: string | null;
  readonly watch: Required<WatchPolicy> | null;
  readonly memoryMaxMiB: number | null;
}

export interface ResolvedExternal extends Omit<ExternalDefinition, "description"> {
  readonly group: string;
  readonly description: string | null;
  readonly dependsOn: readonly [];
}

export type Resolved = ResolvedService | ResolvedExternal;

/** Valid definitions with replicas spelled out and defaults filled in, in their order. */
export function resolveDefinitions(definitions: readonly Definition[]): Resolved[] {
  const byName = new Map(definitions.map((definition) => [definition.name, definition]));
  return definitions.flatMap((definition): Resolved[] => {
    const { name, description = null } = definition;
    if (definition.kind === "external") return [{ ...definition, group: name, description, dependsOn: [] }];
    const dependsOn = dependenciesOf(definition, byName);
    return replicaNames(definition).map((replica, index) =>
      resolveService(definition, replica, index, dependsOn),
    );
  });
}

/** The names under which a definition's processes run: its own, or one for each replica. */
export function replicaNames({ name, replicas }: ServiceDefinition): string[] {
  if (replicas === undefined) return [name];
  return Array.from({ length: replicas }, (_, index) => `${name}-${index + 1}`);
}

/** The names of a definition's dependencies as they were written. */
export function dependencyNames(definition: Definition): string[] {
  if (definition.kind === "external" || !definition.dependsOn) return [];
  return isList(definition.dependsOn) ? [...definition.dependsOn] : Object.keys(definition.dependsOn);
}

function dependenciesOf(
  definition: ServiceDefinition,
  byName: ReadonlyMap<string, Definition>,
): ResolvedService["dependsOn"] {
  const { dependsOn = [] } = definition;
  return dependencyNames(definition).flatMap((name) => {
    const other = byName.get(name);
    const usual = other?.kind === "task" ? "completed" : "ready";
    const state = isList(dependsOn) ? usual : (dependsOn[name] ?? usual);
    const names = other && other.kind !== "external" ? replicaNames(other) : [name];
    return names.map((replica) => ({ name: replica, state }));
  });
}

function isList(dependsOn: NonNullable<ServiceDefinition["dependsOn"]>): dependsOn is readonly string[] {
  return Array.isArray(dependsOn);
}

function resolveService(
  definition: ServiceDefinition,
  name: string,
  index: number,
  dependsOn: ResolvedService["dependsOn"],
): ResolvedService {
  const { kind = "service", description = null, startTimeoutMs = 60_000, watch, replicas } = definition;
  const listen = definition.listen ? ownListen(definition.listen, index) : null;
  const { user, portHint, liveness, prepare, afterReady } = definition;
  // A relay must not pass connections on before somebody listens.
  const readiness = definition.readiness ?? (listen?.relay ? { kind: "tcp" } : undefined);
  return {
    kind,
    name,
    group: definition.name,
    description,
    command: argumentVector(definition.command),
    cwd: resolve(definition.cwd ?? "."),
    env: {
      ...(listen ? { PORT: String(listen.port) } : {}),
      ...(replicas === undefined ? {} : { REPLICA: String(index + 1) }),
      ...definition.env,
    },
    listen,
    dependsOn,
    startTimeoutMs,
    restart: { ...defaultRestart, policy: kind === "task" ? "never" : "always", ...definition.restart },
    stop: { signal: "SIGTERM", timeoutMs: 5_000, ...definition.stop },
    logs: { ...defaultLogPolicy, ...definition.logs },
    schedule: definition.schedule ?? null,
    watch: watch ? { ignore: [], debounceMs: 200, ...watch } : null,
    memoryMaxMiB: definition.memoryMaxMiB ?? null,
    ...(user ? { user } : {}),
    ...(portHint ? { portHint } : {}),
    ...(readiness ? { readiness: ownReadiness(readiness, listen) } : {}),
    ...(liveness ? { liveness: ownProbe(liveness, listen) } : {}),
    ...(prepare ? { prepare } : {}),
    ...(afterReady ? { afterReady } : {}),
  };
}

const defaultRestart: Omit<RestartPolicy, "policy"> = {
  intensity: 20,
  periodMs: 60_000,
  backoffBaseMs: 20,
  backoffCapMs: 3_000,
  stableMs: 1_000,
  successExitCodes: [0],
};

/** The program and arguments that run a command line. */
export function argumentVector(command: CommandLine): readonly [string, ...string[]] {
  if (typeof command !== "string") return command;
  return process.platform === "win32" ? ["cmd.exe", "/d", "/s", "/c", command] : ["/bin/sh", "-c", command];
}

function ownListen(listen: Listen, index: number): Required<Listen> {
  const { host = "127.0.0.1", port, hold = false, relay = false } = listen;
  return { host, port: port + index, hold, relay };
}

function ownReadiness(readiness: Readiness, address: TcpAddress | null): Readiness {
  if (!isAnnouncement(readiness)) return ownProbe(readiness, address);
  return readiness.watch ? { ...readiness, watch: ownProbe(readiness.watch, address) } : readiness;
}

/** A probe of "the service's own address" with that address in it. */
function ownProbe(probe: ActiveProbe, address: TcpAddress | null): ActiveProbe {
  if (!address) return probe;
  const host = reachable(address.host);
  if (probe.kind === "tcp") return { host, port: address.port, ...probe };
  if (probe.kind !== "http" || !probe.url.startsWith("/")) return probe;
  const authority = host.includes(":") ? `[${host}]` : host;
  return { ...probe, url: `http://${authority}:${address.port}${probe.url}` };
}

/** A server on every address is asked on loopback. */
export function reachable(host: string): string {
  if (host === "0.0.0.0") return "127.0.0.1";
  return host === "::" ? "::1" : host;
}
