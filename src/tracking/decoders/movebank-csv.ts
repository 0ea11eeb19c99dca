import { checkFix, plausibleOr, type Rejection, type ReportedFix } from "../fix.ts";
import { parseTime } from "../time.ts";
import { decimal } from "./decimal.ts";

/** A row of a sensor, or a GPS attempt without a fix: a normal part of such files. */
export const withoutCoordinates = "without-coordinates";

export interface MovebankOptions {
  /** Key to use in place of the tag's identifier. */
  readonly device?: string | undefined;
  /** Name to use in place of the individual's identifier. */
  readonly subject?: string | undefined;
}

/** Turns a row of the file into a fix. */
export type MovebankRow = (
  cells: readonly string[],
  nowMs: number,
) => ReportedFix | Rejection | typeof withoutCoordinates;

const names = {
  time: "timestamp",
  lat: "location-lat",
  lon: "location-long",
  tag: "tag-local-identifier",
  individual: "individual-local-identifier",
  taxon: "individual-taxon-canonical-name",
  speed: "ground-speed",
  heading: "heading",
  heightAboveSea: "height-above-msl",
  heightAboveEllipsoid: "height-above-ellipsoid",
  error: "location-error-numerical",
  visible: "visible",
} as const;
const marks = ["manually-marked-outlier", "import-marked-outlier", "algorithm-marked-outlier"] as const;
/** Not worth repeating in the attributes of each fix. */
const dropped: ReadonlySet<string> = new Set<string>([
  ...Object.values(names).filter((name) => name !== names.heightAboveEllipsoid),
  ...marks,
  ...["study-name", "study-id", "study-timezone", "study-local-timestamp", "tag-id", "individual-id"],
]);

/**
 * Reads the header of a Movebank event file and gives the reader of its rows; the names of the columns may have
 * hyphens (the web site), underscores (the REST API) or dots (R). Undefined where it is no such file: it needs
 * `timestamp`, `location-lat`, `location-long` and an identifier of tag or individual, unless `options` has one.
 *
 * The tag is the device, the individual the subject, times are UTC, `NA` and the empty cell are unknown.
 * Rows that are not visible or are marked as outliers are fixes with the reason in `outlier`. Impossible
 * trimmings count as not given; cells without a meaning here become attributes.
 */
export function movebankRows(
  header: readonly string[],
  options: MovebankOptions = {},
): MovebankRow | undefined {
  const columns = header.map((name) => name.trim().toLowerCase().replace(/[._]/g, "-"));
  const at = new Map(columns.map((name, index) => [name, index]));
  const needed = [names.time, names.lat, names.lon];
  const isNamed = at.has(names.tag) || at.has(names.individual) || options.device !== undefined;
  if (!needed.every((name) => at.has(name)) || !isNamed) return undefined;

  const rest = columns.map((name, index) => ({ name, index })).filter(({ name }) => !dropped.has(name));
  const cell = (cells: readonly string[], name: string) => {
    const index = at.get(name);
    return index === undefined ? undefined : known(cells[index]);
  };
  return (cells, nowMs) => {
    const lat = cell(cells, names.lat);
    const lon = cell(cells, names.lon);
    if (lat === undefined && lon === undefined) return withoutCoordinates;
    const individual = cell(cells, names.individual);
    const time = cell(cells, names.time);
    const height = cell(cells, names.heightAboveSea) ?? cell(cells, names.heightAboveEllipsoid);
    return checkFix(
      {
        device: options.device ?? cell(cells, names.tag) ?? individual,
        subject: options.subject ?? individual,
        species: cell(cells, names.taxon),
        time: time === undefined ? undefined : parseTime(time, "utc"),
        lat: decimal(lat),
        lon: decimal(lon),
        altitudeM: plausibleOr("altitudeM", decimal(height)),
        accuracyM: plausibleOr("accuracyM", decimal(cell(cells, names.error))),
        speedMps: plausibleOr("speedMps", decimal(cell(cells, names.speed))),
        headingDeg: plausibleOr("headingDeg", decimal(cell(cells, names.heading))),
        outlier: outlierOf((name) => cell(cells, name)),
        attributes: attributesOf(cells, rest),
      },
      nowMs,
    );
  };
}

function outlierOf(cell: (name: string) => string | undefined): string | undefined {
  const mark = marks.find((name) => cell(name)?.toLowerCase() === "true");
  return mark ?? (cell(names.visible)?.toLowerCase() === "false" ? "not visible" : undefined);
}

function attributesOf(
  cells: readonly string[],
  columns: readonly { readonly name: string; readonly index: number }[],
): Record<string, string | number> | undefined {
  let attributes: Record<string, string | number> | undefined;
  for (const { name, index } of columns) {
    const text = known(cells[index]);
    if (text === undefined) continue;
    const number = decimal(text);
    attributes ??= {};
    // Identifiers are texts, however numeric they look: some are past 2^53.
    attributes[name] = name.endsWith("-id") || number === undefined || Number.isNaN(number) ? text : number;
  }
  return attributes;
}

function known(text: string | undefined): string | undefined {
  const trimmed = text?.trim();
  return trimmed === undefined || trimmed === "" || trimmed === "NA" ? undefined : trimmed;
}
