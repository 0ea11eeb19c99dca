export interface Point {
  /** Degrees, WGS 84. */
  readonly lat: number;
  readonly lon: number;
}

/** IUGG mean radius, metres. */
export const earthRadiusM = 6_371_008.8;

const radians = Math.PI / 180;

/** Metres between two points along the great circle: haversine on a sphere, good to 0.5 %. */
export function distanceM(a: Point, b: Point): number {
  const sinLat = Math.sin(((b.lat - a.lat) * radians) / 2);
  const sinLon = Math.sin(((b.lon - a.lon) * radians) / 2);
  const h = sinLat * sinLat + Math.cos(a.lat * radians) * Math.cos(b.lat * radians) * sinLon * sinLon;
  // Rounding can lift h above 1 for antipodes.
  return 2 * earthRadiusM * Math.asin(Math.min(1, Math.sqrt(h)));
}

/** Degrees clockwise from north, 0 to below 360, in which the great circle from `a` to `b` sets out. */
export function bearingDeg(a: Point, b: Point): number {
  const lon = (b.lon - a.lon) * radians;
  const y = Math.sin(lon) * Math.cos(b.lat * radians);
  const x =
    Math.cos(a.lat * radians) * Math.sin(b.lat * radians) -
    Math.sin(a.lat * radians) * Math.cos(b.lat * radians) * Math.cos(lon);
  return (Math.atan2(y, x) / radians + 360) % 360;
}
