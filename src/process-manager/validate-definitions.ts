import { type Definition, isExternal, type Listen, type ServiceDefinition } from "./definition.ts";
import { ProcessManagerError } from "./process-manager-error.ts";

/** Throws one `definition-invalid` that names everything wrong with the definitions, or returns. */
export function validateDefinitions(definitions: readonly Definition[]): void {
  const problems = [
    ...badNames(definitions),
    ...definitions.flatMap((definition) => (isExternal(definition) ? [] : badFields(definition))),
    ...unknownDependencies(definitions),
    ...cycles(definitions),
    ...sharedPorts(definitions),
  ];
  if (problems.length > 0) throw new ProcessManagerError("definition-invalid", problems.join("; "));
}

function badNames(definitions: readonly Definition[]): string[] {
  const seen = new Set<string>();
  return definitions.flatMap(({ name }) => {
    if (!/^[a-z][a-z0-9-]*$/.test(name))
      return [`"${name}" is no name: lower-case letters, digits and dashes`];
    // The manager writes its own log as manager.log beside those of the services.
    if (name === "manager") return [`the name "manager" is the manager's own`];
    if (seen.has(name)) return [`the name "${name}" is used twice`];
    seen.add(name);
    return [];
  });
}

function badFields(definition: ServiceDefinition): string[] {
  const { name, command, listen, restart, stop } = definition;
  const problems: string[] = [];
  if (!command[0]) problems.push(`${name} has no command`);
  if (listen && !(Number.isInteger(listen.port) && listen.port > 0 && listen.port < 65_536))
    problems.push(`${name} listens on ${listen.port}, which is no port`);
  for (const [key, value] of Object.entries({ ...restart, ...stop }))
    if (typeof value === "number" && !(value >= 0)) problems.push(`${name} has ${key} ${value}`);
  return problems;
}

function dependenciesOf(definition: Definition): readonly string[] {
  return isExternal(definition) ? [] : (definition.dependsOn ?? []).map((dependency) => dependency.name);
}

function unknownDependencies(definitions: readonly Definition[]): string[] {
  const known = new Set(definitions.map((definition) => definition.name));
  return definitions.flatMap((definition) =>
    dependenciesOf(definition)
      .filter((name) => !known.has(name))
      .map((name) => `${definition.name} depends on ${name}, which is not defined`),
  );
}

function cycles(definitions: readonly Definition[]): string[] {
  const byName = new Map(definitions.map((definition) => [definition.name, definition]));
  const done = new Set<string>();
  const found: string[] = [];
  const visit = (name: string, path: readonly string[]): void => {
    const at = path.indexOf(name);
    if (at >= 0) found.push(`a cycle of dependencies: ${[...path.slice(at), name].join(" → ")}`);
    const definition = byName.get(name);
    if (at >= 0 || done.has(name) || !definition) return;
    for (const next of dependenciesOf(definition)) visit(next, [...path, name]);
    done.add(name);
  };
  for (const { name } of definitions) visit(name, []);
  return found;
}

const wildcards = new Set(["0.0.0.0", "::"]);

function overlap(a: Listen, b: Listen): boolean {
  return a.port === b.port && (a.host === b.host || wildcards.has(a.host) || wildcards.has(b.host));
}

function sharedPorts(definitions: readonly Definition[]): string[] {
  const listeners = definitions.flatMap((definition) =>
    !isExternal(definition) && definition.listen
      ? [{ name: definition.name, listen: definition.listen, hint: definition.portHint }]
      : [],
  );
  return listeners.flatMap((one, index) =>
    listeners
      .slice(index + 1)
      .filter((other) => overlap(one.listen, other.listen))
      .map((other) => {
        const hints = [one.hint, other.hint].filter((hint) => hint !== undefined);
        const advice = hints.length > 0 ? ` (set ${hints.join(" or ")})` : "";
        return `${one.name} and ${other.name} both listen on port ${one.listen.port}${advice}`;
      }),
  );
}
