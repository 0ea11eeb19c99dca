const unitsMs: Readonly<Record<string, number>> = {
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};

const timePattern = /^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?)?$/;

/**
 * A point in time as people give it: how long ago (`30s`, `10m`, `2h`, `3d`, `1w`), or a date with or without a
 * time, RFC 3339 or in local time. Milliseconds since the epoch; null for anything else.
 */
export function parseTime(text: string, nowMs: number): number | null {
  const [, amount, unit] = /^(\d+(?:\.\d+)?)([smhdw])$/.exec(text) ?? [];
  if (amount && unit) return nowMs - Number(amount) * (unitsMs[unit] ?? 0);
  if (!timePattern.test(text)) return null;
  // A date alone would be midnight in Greenwich.
  const time = Date.parse(text.length === 10 ? `${text}T00:00` : text.replace(" ", "T"));
  return Number.isNaN(time) ? null : time;
}
