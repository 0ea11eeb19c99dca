import { checkFix, plausibleOr, type Rejection, type ReportedFix, reject } from "../fix.ts";
import { epochMs, parseTime, timeOf } from "../time.ts";
import { decimal } from "./decimal.ts";
import { firstOf, isObject, restOf } from "./json-object.ts";

/** Parameters of a query or form; a name that was repeated has its values as an array. */
export type Parameters = Readonly<Record<string, string | readonly string[] | undefined>>;

/** A report without coordinates (a heartbeat, or cell and Wi-Fi readings alone): heard, nothing to store. */
export const nothingToStore = "nothing-to-store";

/** A report as it came: its query, and its body as a form's fields or as JSON. */
export interface OsmandReport {
  readonly query: Parameters;
  readonly form?: Parameters | undefined;
  /** Traccar Client 9 and newer; whatever the body is, `undefined` where it is no JSON. */
  readonly json?: unknown;
}

/** Reads a report in any of its forms; the query wins over the form. As `decodeOsmand` and `decodeTraccarJson`. */
export function decodeOsmandReport(
  { query, form, json }: OsmandReport,
  nowMs: number,
): ReportedFix | Rejection | typeof nothingToStore {
  return json === undefined ? decodeOsmand({ ...form, ...query }, nowMs) : decodeTraccarJson(json, nowMs);
}

/** The fields of a form or a query; a name that is repeated keeps all its values. */
export function parametersOf(encoded: string | URLSearchParams): Parameters {
  const fields: Record<string, string | string[]> = Object.create(null);
  for (const [name, value] of new URLSearchParams(encoded)) {
    const before = fields[name];
    fields[name] = before === undefined ? value : [before, value].flat();
  }
  return fields;
}

const mpsPerKnot = 1852 / 3600;
const known: ReadonlySet<string> = new Set([
  ...["id", "deviceid", "timestamp", "lat", "lon", "location", "altitude", "accuracy"],
  ...["speed", "speed_mps", "bearing", "heading", "batt", "valid"],
  // The station's key, which must not end up among the data.
  "key",
]);

/**
 * The OsmAnd protocol as Traccar Client up to 8, OsmAnd and GPSLogger speak it, https://www.traccar.org/osmand/
 * `speed` is in knots (`speed_mps` in m/s is ours), `batt` in percent, `timestamp` in epoch seconds,
 * milliseconds, RFC 3339, or `yyyy-MM-dd HH:mm:ss`, which is taken as UTC; without one the time of receipt
 * counts. `valid=false` makes an outlier. Other names become attributes: numbers, booleans or text.
 * Trimmings that are impossible count as not given; coordinates and times that are, refuse the report.
 */
export function decodeOsmand(
  parameters: Parameters,
  nowMs: number,
): ReportedFix | Rejection | typeof nothingToStore {
  const device = one(parameters, "id") ?? one(parameters, "deviceid");
  if (device === undefined) return reject("device-missing", "the parameter id is missing");
  const [lat, lon] = coordinatesOf(parameters);
  if (lat === undefined && lon === undefined) return nothingToStore;

  const knots = decimal(one(parameters, "speed"));
  const batt = decimal(one(parameters, "batt"));
  const heading = one(parameters, "bearing") ?? one(parameters, "heading");
  return checkFix(
    {
      device,
      time: timestampOf(one(parameters, "timestamp"), nowMs),
      lat: decimal(lat),
      lon: decimal(lon),
      altitudeM: plausibleOr("altitudeM", decimal(one(parameters, "altitude"))),
      accuracyM: plausibleOr("accuracyM", decimal(one(parameters, "accuracy"))),
      speedMps: plausibleOr(
        "speedMps",
        decimal(one(parameters, "speed_mps")) ?? (knots === undefined ? undefined : knots * mpsPerKnot),
      ),
      headingDeg: plausibleOr("headingDeg", decimal(heading)),
      battery: plausibleOr("battery", batt === undefined ? undefined : batt / 100),
      outlier: /^(false|0)$/i.test(one(parameters, "valid") ?? "") ? "reported as not valid" : undefined,
      attributes: attributesOf(parameters),
    },
    nowMs,
  );
}

/**
 * The JSON that Traccar Client 9 and newer posts: `{device_id, location: {timestamp, coords: {…}, battery,
 * activity, …}}`, in m/s and levels of 0 to 1, with -1 for "unknown"; also with the coordinates directly under
 * `location`, and battery and activity beside it. Heartbeats come without coordinates.
 */
export function decodeTraccarJson(
  body: unknown,
  nowMs: number,
): ReportedFix | Rejection | typeof nothingToStore {
  if (!isObject(body)) return reject("item-invalid", "the body is not an object");
  const device = firstOf(body, ["device_id", "deviceId", "id"]);
  if (device === undefined) return reject("device-missing", "device_id is missing");
  const location = body.location ?? {};
  if (!isObject(location)) return reject("item-invalid", "location is not an object");
  const coords = location.coords ?? location;
  if (!isObject(coords)) return reject("item-invalid", "coords is not an object");
  const lat = firstOf(coords, ["latitude"]);
  const lon = firstOf(coords, ["longitude"]);
  if (lat === undefined && lon === undefined) return nothingToStore;

  const battery = firstOf(location, ["battery"]) ?? body.battery;
  const activity = firstOf(location, ["activity"]) ?? body.activity;
  return checkFix(
    {
      device,
      time: timeOf(firstOf(location, ["timestamp"]) ?? firstOf(body, ["timestamp"])) ?? nowMs,
      lat,
      lon,
      altitudeM: plausibleOr("altitudeM", coords.altitude),
      accuracyM: plausibleOr("accuracyM", coords.accuracy),
      speedMps: plausibleOr("speedMps", coords.speed),
      headingDeg: plausibleOr("headingDeg", coords.heading),
      battery: plausibleOr("battery", isObject(battery) ? battery.level : battery),
      attributes: {
        ...restOf(location, locationNames),
        ...(isObject(battery) && typeof battery.is_charging === "boolean"
          ? { charge: battery.is_charging }
          : {}),
        ...(isObject(activity) && activity.type !== undefined ? { activity: activity.type } : {}),
        ...(isObject(location.extras) ? location.extras : {}),
      },
    },
    nowMs,
  );
}

const locationNames: ReadonlySet<string> = new Set([
  ...["timestamp", "coords", "battery", "activity", "extras", "uuid"],
  ...["latitude", "longitude", "altitude", "accuracy", "speed", "heading"],
]);

function coordinatesOf(parameters: Parameters): readonly [string | undefined, string | undefined] {
  const lat = one(parameters, "lat");
  const lon = one(parameters, "lon");
  if (lat !== undefined || lon !== undefined) return [lat, lon];
  const location = one(parameters, "location");
  if (location === undefined) return [undefined, undefined];
  const [first, second, ...more] = location.split(",");
  // Not two numbers: refused by the check, rather than half of it taken.
  return more.length === 0 ? [first, second] : [location, location];
}

function timestampOf(text: string | undefined, nowMs: number): number {
  if (text === undefined) return nowMs;
  const number = decimal(text);
  if (number !== undefined && !Number.isNaN(number)) return epochMs(number);
  // An unescaped + of a zone arrives as a space.
  return parseTime(text.replace(/ (\d\d:?\d\d)$/, tellZone), "utc");
}

function tellZone(match: string, zone: string, offset: number): string {
  return offset > 11 ? `+${zone}` : match;
}

function attributesOf(parameters: Parameters): Record<string, unknown> | undefined {
  let attributes: Record<string, unknown> | undefined;
  for (const name in parameters) {
    if (known.has(name)) continue;
    const value = parameters[name];
    attributes ??= {};
    attributes[name] = typeof value === "string" ? attributeOf(value) : value;
  }
  return attributes;
}

/** A number only where its text is that number, so that an identifier keeps its zeros in front. */
function attributeOf(text: string): string | number | boolean {
  if (text === "true" || text === "false") return text === "true";
  const number = Number(text);
  return Number.isFinite(number) && String(number) === text ? number : text;
}

/** The one value of a parameter; empty counts as absent, and of several the first is meant. */
function one(parameters: Parameters, name: string): string | undefined {
  const value = parameters[name];
  const text = typeof value === "string" ? value : value?.[0];
  return text?.trim() || undefined;
}
