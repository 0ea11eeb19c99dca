import { type Definition, isExternal } from "./definition.ts";
import { ProcessManagerError } from "./process-manager-error.ts";

/**
 * The named definitions and all they depend on, dependencies first. Without names, all of them.
 * Throws `service-unknown` for a name that is not defined.
 */
export function startOrder(definitions: readonly Definition[], names?: readonly string[]): Definition[] {
  const byName = new Map(definitions.map((definition) => [definition.name, definition]));
  const order = new Map<string, Definition>();
  const add = (name: string): void => {
    if (order.has(name)) return;
    const definition = byName.get(name);
    if (!definition) throw unknownService(name, definitions);
    if (!isExternal(definition)) for (const dependency of definition.dependsOn ?? []) add(dependency.name);
    order.set(name, definition);
  };
  for (const name of names ?? byName.keys()) add(name);
  return [...order.values()];
}

/** For each name, the services that depend on it directly: those that stop before it does. */
export function dependants(definitions: readonly Definition[]): Map<string, string[]> {
  const result = new Map<string, string[]>(definitions.map(({ name }) => [name, []]));
  for (const definition of definitions)
    if (!isExternal(definition))
      for (const { name } of definition.dependsOn ?? []) result.get(name)?.push(definition.name);
  return result;
}

/** The error for a name that nothing is defined for; it lists those that there are. */
export function unknownService(name: string, definitions: readonly Definition[]): ProcessManagerError {
  const known = definitions.map((definition) => definition.name).join(", ");
  return new ProcessManagerError("service-unknown", `no service is named "${name}"; there are: ${known}`);
}
