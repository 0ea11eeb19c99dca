import type { Evidence } from "../evidence.ts";

/** What a number measures. Quantities are kept in the base unit: metres, metres per second, seconds, degrees. */
export type Dimension = "length" | "speed" | "duration" | "angle" | "plain";

export interface Quantity {
  /** In the base unit of its dimension. */
  readonly value: number;
  readonly dimension: Dimension;
}

/** A calendar date in UTC, as far as it was said. Months count from 1, weekdays from 0 (Sunday). */
export interface PartialDate {
  readonly year?: number;
  readonly month?: number;
  readonly day?: number;
  readonly weekday?: number;
}

/** Everything that an answer may repeat: what tools returned, flattened. */
export interface Facts {
  readonly quantities: readonly Quantity[];
  /** Milliseconds since 1970. */
  readonly times: readonly number[];
  /** Texts that are not times: names, keys, ids. */
  readonly names: readonly string[];
  /** Lower-case words of names and of field names. */
  readonly words: ReadonlySet<string>;
}

/**
 * Flattens tool results. A field's last part says what it measures (`distance_km`, `duration_s`); the length of a
 * list counts as a number, and the time between two times of one result as a duration.
 */
export function factsOf(evidence: readonly Evidence[]): Facts {
  const found = {
    quantities: [] as Quantity[],
    times: [] as number[],
    names: [] as string[],
    words: [] as string[],
  };
  for (const { tool, result } of evidence) {
    const before = found.times.length;
    found.words.push(...wordsOf(tool));
    collect(result, "", found);
    found.quantities.push(...spans(found.times.slice(before)));
  }
  return { ...found, words: new Set([...found.words, ...found.names.flatMap(wordsOf)]) };
}

/** The words of a text, lower-case; `mean_speed_mps` has three. */
export function wordsOf(text: string): string[] {
  return text.toLowerCase().match(/[\p{L}\d]+/gu) ?? [];
}

/** The UTC date of a time, with its weekday. */
export function dateOf(at: number): Required<PartialDate> {
  const date = new Date(at);
  return {
    year: date.getUTCFullYear(),
    month: date.getUTCMonth() + 1,
    day: date.getUTCDate(),
    weekday: date.getUTCDay(),
  };
}

const rfc3339 = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$/;

function collect(
  value: unknown,
  key: string,
  found: { quantities: Quantity[]; times: number[]; names: string[]; words: string[] },
): void {
  if (typeof value === "number") {
    const { dimension, factor } = measureOf(key);
    found.quantities.push({ value: value * factor, dimension });
  } else if (typeof value === "string") {
    if (rfc3339.test(value)) found.times.push(Date.parse(value));
    else if (value.trim() !== "") found.names.push(value);
    // A subject may be called 7, and "subject 7" then is no invention.
    if (/^\d+(\.\d+)?$/.test(value)) found.quantities.push({ value: Number(value), dimension: "plain" });
  } else if (Array.isArray(value)) {
    found.quantities.push({ value: value.length, dimension: "plain" });
    for (const item of value) collect(item, key, found);
  } else if (typeof value === "object" && value !== null) {
    for (const [name, item] of Object.entries(value)) {
      found.words.push(...wordsOf(name));
      collect(item, name, found);
    }
  }
}

const measures: Readonly<Record<string, { dimension: Dimension; factor: number }>> = {
  m: { dimension: "length", factor: 1 },
  km: { dimension: "length", factor: 1000 },
  mps: { dimension: "speed", factor: 1 },
  kmh: { dimension: "speed", factor: 1 / 3.6 },
  s: { dimension: "duration", factor: 1 },
  ms: { dimension: "duration", factor: 0.001 },
  deg: { dimension: "angle", factor: 1 },
  lat: { dimension: "angle", factor: 1 },
  lon: { dimension: "angle", factor: 1 },
  north: { dimension: "angle", factor: 1 },
  south: { dimension: "angle", factor: 1 },
  east: { dimension: "angle", factor: 1 },
  west: { dimension: "angle", factor: 1 },
};

function measureOf(key: string): { dimension: Dimension; factor: number } {
  const parts = key.split("_");
  return measures[parts.at(-1) ?? ""] ?? measures[parts[0] ?? ""] ?? { dimension: "plain", factor: 1 };
}

/** A result with few times is about a span; one with many is a list, whose pairs would allow nearly anything. */
function spans(times: readonly number[]): Quantity[] {
  const timesMax = 6;
  if (times.length > timesMax) return [];
  return times.flatMap((a) =>
    times.filter((b) => b > a).map((b) => ({ value: (b - a) / 1000, dimension: "duration" as const })),
  );
}
