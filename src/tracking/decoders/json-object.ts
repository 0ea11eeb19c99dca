export type JsonObject = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The value of the first of these names that has one. */
export function firstOf(object: JsonObject, names: readonly string[]): unknown {
  for (const name of names) {
    const value = object[name];
    if (value !== undefined && value !== null) return value;
  }
  return undefined;
}

/** Whatever the decoder did not understand, so that nothing of a report is lost; undefined where there is none. */
export function restOf(object: JsonObject, known: ReadonlySet<string>): Record<string, unknown> | undefined {
  let rest: Record<string, unknown> | undefined;
  for (const name in object) {
    if (known.has(name) || object[name] === null) continue;
    rest ??= {};
    rest[name] = object[name];
  }
  return rest;
}
