/**
 * The `OnCalendar=` expressions that come at the times of a cron expression of five fields, or null where systemd
 * cannot say it (`L`, `W`, `#`, a nickname). Two where cron means either of two days.
 */
export function calendarExpressions(schedule: string): string[] | null {
  const fields = schedule.trim().toUpperCase().split(/\s+/);
  const [minute, hour, day, month, weekday] = fields;
  if (fields.length !== 5 || !minute || !hour || !day || !month || !weekday) return null;
  const minutes = valuesOf(minute, 0, 59);
  const hours = valuesOf(hour, 0, 23);
  const days = valuesOf(day, 1, 31);
  const months = valuesOf(month, 1, 12, monthNames);
  const weekdays = valuesOf(weekday, 0, 7, weekdayNames);
  if (!minutes || !hours || !days || !months || !weekdays) return null;

  const time = `${list(hours, 24)}:${list(minutes, 60)}:00`;
  const onDays = `*-${list(months, 12)}-${list(days, 31)} ${time}`;
  if (isAny(weekday)) return [onDays];
  const names = [...new Set(weekdays.map((value) => weekdayNames[value % 7]))];
  const onWeekdays = `${names.map((name) => `${name?.[0]}${name?.slice(1).toLowerCase()}`).join(",")} *-${list(months, 12)}-* ${time}`;
  // A day of the month and a day of the week: cron takes either, systemd would ask for both.
  return isAny(day) ? [onWeekdays] : [onDays, onWeekdays];
}

/** The cron expression with Sunday as 0 only, as Kubernetes wants it, or null where it has more than plain cron. */
export function plainCron(schedule: string): string | null {
  if (!calendarExpressions(schedule)) return null;
  const fields = schedule.trim().split(/\s+/);
  const weekday = fields[4] ?? "*";
  if (!weekday.includes("7")) return fields.join(" ");
  const values = valuesOf(weekday.toUpperCase(), 0, 7, weekdayNames) ?? [];
  return [...fields.slice(0, 4), [...new Set(values.map((value) => value % 7))].join(",")].join(" ");
}

const weekdayNames = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"] as const;
const monthNames = ["", "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

function isAny(field: string): boolean {
  return field === "*" || field === "?";
}

/** `*`, numbers, names, ranges and steps, spelt out; null for anything else. */
function valuesOf(field: string, min: number, max: number, names: readonly string[] = []): number[] | null {
  const values = new Set<number>();
  for (const part of field.split(",")) {
    const [, from = "", to, step = "1"] = /^(\*|\?|\w+)(?:-(\w+))?(?:\/(\d+))?$/.exec(part) ?? [];
    const first = isAny(from) ? min : numberOf(from, names);
    const last = isAny(from) ? max : to === undefined ? first : numberOf(to, names);
    if (!(first >= min && last <= max && first <= last && Number(step) > 0)) return null;
    for (let value = first; value <= last; value += Number(step)) values.add(value);
  }
  return [...values].sort((a, b) => a - b);
}

function numberOf(text: string, names: readonly string[]): number {
  const named = text === "" ? -1 : names.indexOf(text);
  return named >= 0 ? named : /^\d+$/.test(text) ? Number(text) : Number.NaN;
}

function list(values: readonly number[], count: number): string {
  return values.length === count ? "*" : values.map((value) => String(value).padStart(2, "0")).join(",");
}
