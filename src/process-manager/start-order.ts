import { ProcessManagerError } from "./process-manager-error.ts";
import type { Resolved } from "./resolve-definitions.ts";

/**
 * The named definitions (a group's name means all of its replicas) and all they depend on, dependencies first.
 * Without names, all of them. Throws `service-unknown` for a name that is not defined.
 */
export function startOrder(definitions: readonly Resolved[], names?: readonly string[]): Resolved[] {
  const order = new Set<Resolved>();
  const add = (definition: Resolved): void => {
    if (order.has(definition)) return;
    for (const { name } of definition.dependsOn) for (const other of namedBy(name, definitions)) add(other);
    order.add(definition);
  };
  for (const name of names ?? definitions.map((definition) => definition.name))
    for (const definition of namedBy(name, definitions)) add(definition);
  return [...order];
}

/** The definition of that name, or all replicas of the group. Throws `service-unknown`. */
export function namedBy(name: string, definitions: readonly Resolved[]): Resolved[] {
  const found = definitions.filter((definition) => definition.name === name || definition.group === name);
  if (found.length === 0) throw unknownService(name, definitions);
  return found;
}

/** For each name, the services that depend on it directly: those that stop before it does. */
export function dependants(definitions: readonly Resolved[]): Map<string, string[]> {
  const result = new Map<string, string[]>(definitions.map(({ name }) => [name, []]));
  for (const definition of definitions)
    for (const { name } of definition.dependsOn) result.get(name)?.push(definition.name);
  return result;
}

/** The error for a name that nothing is defined for; it lists those that there are. */
function unknownService(name: string, definitions: readonly Resolved[]): ProcessManagerError {
  const known = definitions.map((definition) => definition.name).join(", ");
  return new ProcessManagerError("service-unknown", `no service is named "${name}"; there are: ${known}`);
}
