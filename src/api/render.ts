import type { Fix } from "../tracking/fix.ts";

/** Further columns of a fix, such as the subject: name and value. */
type Extra = Readonly<Record<string, string | null>>;

/** A fix in the native form, as JSON text; what is not known is left out. */
export function fixJson(fix: Fix, extra?: Extra): string {
  return (
    `{${extra ? members(extra) : ""}"device":${JSON.stringify(fix.device)},"time":"${iso(fix.time)}",` +
    `"lat":${fix.lat},"lon":${fix.lon}${trimmings(fix)}}`
  );
}

/** A fix as a GeoJSON Feature with a Point and everything known about it as properties. */
export function fixFeature(fix: Fix, extra?: Extra): string {
  const altitude = fix.altitudeM === undefined ? "" : `,${fix.altitudeM}`;
  return (
    `{"type":"Feature","geometry":{"type":"Point","coordinates":[${fix.lon},${fix.lat}${altitude}]},` +
    `"properties":{${extra ? members(extra) : ""}"device":${JSON.stringify(fix.device)},` +
    `"time":"${iso(fix.time)}"${trimmings(fix)}}}`
  );
}

/** A page as JSON text, from its items as JSON text. */
export function pageJson(items: readonly string[], nextCursor: string | undefined): string {
  return `{"data":[${items.join(",")}],"next_cursor":${JSON.stringify(nextCursor ?? null)}}`;
}

/** A FeatureCollection as text, from its features as text. */
export function featureCollection(features: readonly string[]): string {
  return `{"type":"FeatureCollection","features":[${features.join(",\n")}]}\n`;
}

const csvColumns = ["device", "time", "lat", "lon", "altitude_m", "accuracy_m", "speed_mps", "heading_deg"];
const csvMore = ["battery", "outlier", "segment", "attributes"];

/** The header of a CSV of fixes, RFC 4180. */
export function csvHeader(extra: readonly string[] = []): string {
  return `${[...extra, ...csvColumns, ...csvMore].join(",")}\r\n`;
}

/** A fix as a line of CSV, under `csvHeader`. */
export function fixCsv(fix: Fix, extra: readonly (string | null)[] = []): string {
  const cells = [
    ...extra.map((value) => csvText(value ?? undefined)),
    csvText(fix.device),
    iso(fix.time),
    fix.lat,
    fix.lon,
    fix.altitudeM ?? "",
    fix.accuracyM ?? "",
    fix.speedMps ?? "",
    fix.headingDeg ?? "",
    fix.battery ?? "",
    csvText(fix.outlier),
    csvText(fix.segment),
    csvText(fix.attributesJson),
  ];
  return `${cells.join(",")}\r\n`;
}

/** RFC 3339 UTC with milliseconds. */
export function iso(ms: number): string {
  return new Date(ms).toISOString();
}

function trimmings(fix: Fix): string {
  let text = "";
  if (fix.altitudeM !== undefined) text += `,"altitude_m":${fix.altitudeM}`;
  if (fix.accuracyM !== undefined) text += `,"accuracy_m":${fix.accuracyM}`;
  if (fix.speedMps !== undefined) text += `,"speed_mps":${fix.speedMps}`;
  if (fix.headingDeg !== undefined) text += `,"heading_deg":${fix.headingDeg}`;
  if (fix.battery !== undefined) text += `,"battery":${fix.battery}`;
  if (fix.outlier !== undefined) text += `,"outlier":${JSON.stringify(fix.outlier)}`;
  if (fix.segment !== undefined) text += `,"segment":${JSON.stringify(fix.segment)}`;
  if (fix.attributesJson !== undefined) text += `,"attributes":${fix.attributesJson}`;
  return text;
}

function members(extra: Extra): string {
  return Object.entries(extra)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `"${name}":${JSON.stringify(value)},`)
    .join("");
}

/** Spreadsheets run a text cell that begins like a formula, so it gets an apostrophe in front. */
function csvText(text: string | undefined): string {
  if (text === undefined) return "";
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
