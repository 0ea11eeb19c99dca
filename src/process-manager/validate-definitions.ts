import {
  type ActiveProbe,
  type Definition,
  isAnnouncement,
  type Listen,
  type ServiceDefinition,
} from "./definition.ts";
import { ProcessManagerError } from "./process-manager-error.ts";
import {
  dependencyNames,
  type ResolvedService,
  replicaNames,
  resolveDefinitions,
} from "./resolve-definitions.ts";

/** Throws one `definition-invalid` that names everything wrong with the definitions, or returns. */
export async function validateDefinitions(definitions: readonly Definition[]): Promise<void> {
  const problems = await findProblems(definitions);
  if (problems.length > 0) throw new ProcessManagerError("definition-invalid", problems.join("; "));
}

/** Everything wrong with the definitions, a sentence each, which begins with the name where it is about one service. */
export async function findProblems(definitions: readonly Definition[]): Promise<string[]> {
  return [
    ...badNames(definitions),
    ...definitions.flatMap((definition) => (definition.kind === "external" ? [] : badFields(definition))),
    ...unknownDependencies(definitions),
    ...endlessWaits(definitions),
    ...cycles(definitions),
    ...sharedPorts(definitions),
    ...(await badSchedules(definitions)),
  ];
}

function badNames(definitions: readonly Definition[]): string[] {
  const seen = new Set<string>();
  return definitions.flatMap((definition) => {
    const { name } = definition;
    if (!/^[a-z][a-z0-9-]*$/.test(name))
      return [`"${name}" is no name: lower-case letters, digits and dashes`];
    // The manager writes its own log as manager.log beside those of the services.
    if (name === "manager") return [`the name "manager" is the manager's own`];
    const names = [...namesOf(definition)];
    const taken = names.filter((one) => seen.has(one));
    for (const one of names) seen.add(one);
    return taken.map((one) => `the name "${one}" is used twice`);
  });
}

/** What it is called by, and what its replicas are. */
function namesOf(definition: Definition): Set<string> {
  return new Set([definition.name, ...(definition.kind === "external" ? [] : replicaNames(definition))]);
}

function badFields(definition: ServiceDefinition): string[] {
  const { name, command, listen, restart, stop, logs, replicas = 1, memoryMaxMiB = 1 } = definition;
  const problems: string[] = [];
  if (!command[0]) problems.push(`${name} has no command`);
  const last = Math.max(0, replicas - 1);
  for (const port of listen ? new Set([listen.port, listen.port + last]) : [])
    if (!(Number.isInteger(port) && port > 0 && port < 65_536))
      problems.push(`${name} listens on ${port}, which is no port`);
  for (const [key, value] of Object.entries({ ...restart, ...stop, ...logs }))
    if (typeof value === "number" && !(value >= 0)) problems.push(`${name} has ${key} ${value}`);
  if (!(Number.isInteger(replicas) && replicas >= 0 && replicas <= 1_000))
    problems.push(`${name} has ${replicas} replicas; from 0 to 1000 are possible`);
  if (!(memoryMaxMiB > 0)) problems.push(`${name} has memoryMaxMiB ${memoryMaxMiB}`);
  return [...problems, ...badRelay(definition), ...badTask(definition), ...badProbes(definition)];
}

function badRelay({ name, kind, listen, env }: ServiceDefinition): string[] {
  if (!listen?.relay) return [];
  return [
    ...(listen.hold ? [`${name} has both hold and relay; a program is handed a socket or relayed to`] : []),
    ...(kind === "task" ? [`${name} is a task, which nothing can be relayed to`] : []),
    ...(env?.PORT !== undefined
      ? [`${name} is relayed to on the port that it finds in PORT, which its env may not set`]
      : []),
  ];
}

function badTask({ name, kind, schedule, readiness, liveness }: ServiceDefinition): string[] {
  if (kind !== "task")
    return schedule === undefined ? [] : [`${name} has a schedule, which only a task (kind: task) can have`];
  return readiness || liveness ? [`${name} is a task, which has no probes: it is done when it ends`] : [];
}

function badProbes({ name, listen, readiness, liveness }: ServiceDefinition): string[] {
  const problems: string[] = [];
  const active: ActiveProbe[] = liveness ? [liveness] : [];
  if (isAnnouncement(readiness)) {
    if (readiness.watch) active.push(readiness.watch);
    if (readiness.kind === "log" && readiness.pattern === undefined)
      problems.push(`${name} has a log probe without a pattern`);
    if (readiness.kind === "log") problems.push(...badPattern(name, readiness.pattern));
  } else if (readiness) active.push(readiness);
  for (const probe of active) {
    if (probe.kind === "http")
      problems.push(...badPattern(name, probe.body), ...badUrl(name, probe.url, listen));
    if (probe.kind === "tcp" && probe.port === undefined && !listen)
      problems.push(`${name} has a tcp probe without a port, and no listen address`);
  }
  return problems;
}

function badPattern(name: string, pattern: string | undefined): string[] {
  try {
    if (pattern !== undefined) new RegExp(pattern);
    return [];
  } catch {
    return [`${name} has a pattern that is no regular expression: ${pattern}`];
  }
}

function badUrl(name: string, url: string, listen: Listen | undefined): string[] {
  if (url.startsWith("/"))
    return listen ? [] : [`${name} is probed at ${url}, and has no listen address that this could be on`];
  const protocol = URL.canParse(url) ? new URL(url).protocol : "";
  return protocol === "http:" || protocol === "https:"
    ? []
    : [`${name} is probed at ${url}, which is no URL`];
}

async function badSchedules(definitions: readonly Definition[]): Promise<string[]> {
  const scheduled = definitions.flatMap((one) =>
    one.kind === "task" && one.schedule !== undefined ? [{ name: one.name, schedule: one.schedule }] : [],
  );
  if (scheduled.length === 0) return [];
  const { nextRunAfter } = await import("./schedule.ts");
  return scheduled.flatMap(({ name, schedule }) => {
    try {
      if (nextRunAfter(schedule, new Date())) return [];
      return [`${name} has the schedule "${schedule}", which never comes`];
    } catch {
      return [`${name} has the schedule "${schedule}", which is none: five fields, like "0 3 * * *"`];
    }
  });
}

function unknownDependencies(definitions: readonly Definition[]): string[] {
  const known = new Set(definitions.map((definition) => definition.name));
  return definitions.flatMap((definition) =>
    dependencyNames(definition)
      .filter((name) => !known.has(name))
      .map((name) => `${definition.name} depends on ${name}, which is not defined`),
  );
}

function endlessWaits(definitions: readonly Definition[]): string[] {
  const tasks = new Set(definitions.flatMap(({ kind, name }) => (kind === "task" ? [name] : [])));
  const known = new Set(definitions.map(({ name }) => name));
  return definitions.flatMap((definition) =>
    definition.kind === "external"
      ? []
      : Object.entries(definition.dependsOn ?? {})
          .filter(([name, state]) => state === "completed" && known.has(name) && !tasks.has(name))
          .map(([name]) => `${definition.name} waits for ${name} to be completed, which only a task ever is`),
  );
}

function cycles(definitions: readonly Definition[]): string[] {
  const byName = new Map(definitions.map((definition) => [definition.name, definition]));
  const done = new Set<string>();
  const found: string[] = [];
  const visit = (name: string, path: readonly string[]): void => {
    const at = path.indexOf(name);
    if (at >= 0) found.push(`${name} depends on itself: ${[...path.slice(at), name].join(" → ")}`);
    const definition = byName.get(name);
    if (at >= 0 || done.has(name) || !definition) return;
    for (const next of dependencyNames(definition)) visit(next, [...path, name]);
    done.add(name);
  };
  for (const { name } of definitions) visit(name, []);
  return found;
}

const wildcards = new Set(["0.0.0.0", "::"]);

type Listener = Omit<ResolvedService, "listen"> & { readonly listen: Required<Listen> };

function overlap({ listen: a }: Listener, { listen: b }: Listener): boolean {
  return a.port === b.port && (a.host === b.host || wildcards.has(a.host) || wildcards.has(b.host));
}

function sharedPorts(definitions: readonly Definition[]): string[] {
  const listeners = resolveDefinitions(definitions).filter(
    (one): one is Listener => one.kind !== "external" && one.listen !== null,
  );
  return listeners.flatMap((one, index) =>
    listeners
      .slice(index + 1)
      .filter((other) => overlap(one, other))
      .map((other) => {
        const hints = [one.portHint, other.portHint].filter((hint) => hint !== undefined);
        const advice = hints.length > 0 ? ` (set ${hints.join(" or ")})` : "";
        return `${one.name} and ${other.name} both listen on port ${one.listen.port}${advice}`;
      }),
  );
}
