import { checkFix, plausibleOr, type Rejection, type ReportedFix, reject } from "../fix.ts";
import { timeOf } from "../time.ts";
import { firstOf, isObject, type JsonObject, restOf } from "./json-object.ts";

const names = {
  device: ["device_id", "device", "id"],
  time: ["timestamp", "time"],
  speedMps: ["speed_mps", "speed"],
  headingDeg: ["heading_deg", "course", "heading", "bearing"],
  accuracyM: ["accuracy_m", "horizontal_accuracy", "accuracy"],
  altitudeM: ["altitude_m", "altitude"],
  battery: ["battery_level", "battery"],
  outlier: ["outlier"],
  segment: ["segment"],
  subject: ["subject"],
  species: ["species"],
} as const;
const known: ReadonlySet<string> = new Set(Object.values(names).flat());

/**
 * A GeoJSON Feature with a Point: longitude, latitude and perhaps metres above sea as coordinates; who, when
 * and the rest as properties, of which those without a meaning here become attributes. Times need a zone, its
 * colon may be missing.
 *
 * Phones write this form with -1 for "unknown", so speed, heading, accuracy, altitude and battery that are
 * impossible count as not given.
 */
export function decodeFeature(feature: JsonObject, nowMs: number): ReportedFix | Rejection {
  const { geometry } = feature;
  const properties = isObject(feature.properties) ? feature.properties : {};
  if (isObject(geometry) && geometry.type !== "Point") {
    return reject("geometry-unsupported", "only features with a Point are positions");
  }
  const coordinates = isObject(geometry) && Array.isArray(geometry.coordinates) ? geometry.coordinates : [];
  return checkFix(
    {
      device: firstOf(properties, names.device),
      time: timeOf(firstOf(properties, names.time)),
      lat: coordinates[1],
      lon: coordinates[0],
      altitudeM: plausibleOr("altitudeM", coordinates[2] ?? firstOf(properties, names.altitudeM)),
      speedMps: plausibleOr("speedMps", firstOf(properties, names.speedMps)),
      headingDeg: plausibleOr("headingDeg", firstOf(properties, names.headingDeg)),
      accuracyM: plausibleOr("accuracyM", firstOf(properties, names.accuracyM)),
      battery: plausibleOr("battery", firstOf(properties, names.battery)),
      outlier: properties.outlier,
      segment: properties.segment,
      subject: properties.subject,
      species: properties.species,
      attributes: restOf(properties, known),
    },
    nowMs,
  );
}
