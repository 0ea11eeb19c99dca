import { checkFix, isRejection, type RawFix, type Rejection, type ReportedFix, reject } from "../fix.ts";
import { timeOf } from "../time.ts";
import { decodeFeature } from "./geojson.ts";
import { firstOf, isObject, type JsonObject, restOf } from "./json-object.ts";

const names = {
  device: ["device", "device_id", "manufacturer_id", "source"],
  time: ["time", "timestamp", "recorded_at"],
  lat: ["lat", "latitude"],
  lon: ["lon", "lng", "longitude"],
  altitudeM: ["altitude_m", "altitude"],
  accuracyM: ["accuracy_m", "accuracy"],
  speedMps: ["speed_mps", "speed"],
  headingDeg: ["heading_deg", "heading", "course", "bearing"],
  battery: ["battery"],
  outlier: ["outlier"],
  segment: ["segment"],
  subject: ["subject", "subject_name"],
  species: ["species"],
  attributes: ["attributes", "additional"],
} as const;
const known: ReadonlySet<string> = new Set([...Object.values(names).flat(), "location"]);

/** What was read of the items of a body, each in its order. */
export interface DecodedItems {
  readonly fixes: readonly ReportedFix[];
  readonly rejected: ({ index: number } & Rejection)[];
}

/** Reads items one by one, so that a bad one does not refuse the others. */
export function decodeItems(items: readonly unknown[], nowMs: number): DecodedItems {
  const fixes: ReportedFix[] = [];
  const rejected: ({ index: number } & Rejection)[] = [];
  for (const [index, item] of items.entries()) {
    const decoded = decodeItem(item, nowMs);
    if (isRejection(decoded)) rejected.push({ index, ...decoded });
    else fixes.push(decoded);
  }
  return { fixes, rejected };
}

/** The items of a body that is one position, an array of them, a Feature or a FeatureCollection; else undefined. */
export function itemsOf(body: unknown): readonly unknown[] | undefined {
  if (Array.isArray(body)) return body;
  if (!isObject(body)) return undefined;
  if (body.type !== "FeatureCollection") return [body];
  return Array.isArray(body.features) ? body.features : undefined;
}

/** One item of `itemsOf`: a GeoJSON Feature, or a position in the native form. */
export function decodeItem(item: unknown, nowMs: number): ReportedFix | Rejection {
  if (!isObject(item)) return reject("item-invalid", "an item is not an object");
  return item.type === "Feature" ? decodeFeature(item, nowMs) : decodePosition(item, nowMs);
}

/**
 * The native form: `{device, time, lat, lon, altitude_m?, accuracy_m?, speed_mps?, heading_deg?, battery?,
 * outlier?, segment?, subject?, species?, attributes?}`, and an EarthRanger or Gundi observation
 * (`{source|manufacturer_id, recorded_at, location: {lat, lon}, subject_name, additional}`). Times are RFC 3339
 * with a zone, or epoch seconds or milliseconds. Names that it does not know are kept as attributes.
 *
 * Programs write this form, so an impossible value refuses the item (`value-invalid`): a bug should show.
 * `null` means not known.
 */
function decodePosition(item: JsonObject, nowMs: number): ReportedFix | Rejection {
  const place = isObject(item.location) ? item.location : item;
  return checkFix(
    {
      device: firstOf(item, names.device),
      time: timeOf(firstOf(item, names.time)),
      lat: firstOf(place, names.lat),
      lon: firstOf(place, names.lon),
      altitudeM: firstOf(item, names.altitudeM),
      accuracyM: firstOf(item, names.accuracyM),
      speedMps: firstOf(item, names.speedMps),
      headingDeg: firstOf(item, names.headingDeg),
      battery: item.battery,
      outlier: outlierOf(item.outlier),
      segment: item.segment,
      subject: firstOf(item, names.subject),
      species: item.species,
      attributes: attributesOf(item),
    } satisfies RawFix,
    nowMs,
  );
}

function outlierOf(value: unknown): unknown {
  if (value === true) return "marked by the sender";
  return value === false ? undefined : value;
}

function attributesOf(item: JsonObject): unknown {
  const given = firstOf(item, names.attributes);
  const rest = restOf(item, known);
  if (given === undefined || rest === undefined) return given ?? rest;
  return isObject(given) ? { ...rest, ...given } : given;
}
