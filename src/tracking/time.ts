const form =
  /^(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,12}))?)?(Z|z| ?[+-]\d\d(?::?\d\d)?)?$/;

/**
 * Reads a time as RFC 3339 writes it, and with a space for the T, without seconds, or with a zone that lacks
 * its colon, as devices do. Gives epoch milliseconds, further digits cut off; NaN where it is no such time.
 * `withoutZone` says what a time without a zone is: UTC, or unreadable.
 */
export function parseTime(text: string, withoutZone: "utc" | "invalid"): number {
  const parts = form.exec(text);
  if (!parts) return Number.NaN;
  const [, year, month, day, hour, minute, second, fraction, zone] = parts;
  if (zone === undefined && withoutZone === "invalid") return Number.NaN;
  const ms = fraction === undefined ? 0 : Number(fraction.slice(0, 3).padEnd(3, "0"));
  const date = Date.UTC(Number(year), Number(month) - 1, Number(day));
  // Date.UTC takes 31 February for 3 March, and years below 100 for 19xx.
  if (new Date(date).getUTCDate() !== Number(day) || Number(month) > 12 || Number(year) < 100)
    return Number.NaN;
  // 60 is a leap second and becomes the first of the next minute.
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second ?? 0) > 60) return Number.NaN;
  const offset = zoneMs(zone);
  if (offset === undefined) return Number.NaN;
  const clock = (Number(hour) * 60 + Number(minute)) * 60_000 + Number(second ?? 0) * 1000 + ms;
  return date + clock - offset;
}

/**
 * A time that is a text with a zone, or epoch seconds (below 2^31) or milliseconds as a number. Undefined
 * where there is none, NaN where it cannot be read.
 */
export function timeOf(value: unknown): number | undefined {
  if (value === undefined || value === null || value === "") return undefined;
  if (typeof value === "number") return epochMs(value);
  return typeof value === "string" ? parseTime(value.trim(), "invalid") : Number.NaN;
}

/** Epoch seconds or milliseconds, told apart as Traccar does: below 2^31 are seconds. */
export function epochMs(value: number): number {
  return Math.floor(value < 2 ** 31 ? value * 1000 : value);
}

/** Undefined where there is no such zone. */
function zoneMs(zone: string | undefined): number | undefined {
  if (zone === undefined || zone === "Z" || zone === "z") return 0;
  const digits = zone.replace(/[ :]/g, "");
  const [hour, minute] = [Number(digits.slice(1, 3)), Number(digits.slice(3, 5))];
  if (hour > 23 || minute > 59) return undefined;
  const minutes = hour * 60 + minute;
  return (digits[0] === "-" ? -minutes : minutes) * 60_000;
}
