import type { Fix } from "./fix.ts";
import { distanceM } from "./geodesy.ts";

/** The way from one fix to the next. */
export interface Step {
  /** Epoch milliseconds of the two fixes. */
  readonly from: number;
  readonly to: number;
  readonly distanceM: number;
  readonly speedMps: number;
}

/** Degrees. Where `west` is greater than `east` the box spans the antimeridian, as in RFC 7946. */
interface Box {
  readonly west: number;
  readonly south: number;
  readonly east: number;
  readonly north: number;
}

export interface TrackSummary {
  /** Fixes that count. */
  readonly fixes: number;
  /** Fixes that were left out because they are held to be wrong. */
  readonly outliersLeftOut: number;
  /** Epoch milliseconds; null for a track without fixes. */
  readonly firstAt: number | null;
  readonly lastAt: number | null;
  readonly spanS: number;
  /** Along the fixes; the way between two segments does not count. */
  readonly distanceM: number;
  /** Distance by the time that its steps took; null where there is no step. */
  readonly meanSpeedMps: number | null;
  readonly fastest: Step | null;
  readonly box: Box | null;
}

type TrackFix = Pick<Fix, "device" | "time" | "lat" | "lon" | "outlier" | "segment">;

/** Sums up a track that is handed over fix by fix in order of time, whatever its length. */
export class TrackMeter {
  readonly #includeOutliers: boolean;
  readonly #box = new BoxMeter();
  #first: TrackFix | undefined;
  #last: TrackFix | undefined;
  #fixes = 0;
  #outliers = 0;
  #distanceM = 0;
  #steppedMs = 0;
  #fastest: Step | null = null;

  constructor(options: { readonly includeOutliers?: boolean } = {}) {
    this.#includeOutliers = options.includeOutliers ?? false;
  }

  add(fix: TrackFix): void {
    if (fix.outlier !== undefined && !this.#includeOutliers) {
      this.#outliers += 1;
      return;
    }
    if (this.#last && isJoined(this.#last, fix)) this.#step(this.#last, fix);
    this.#first ??= fix;
    this.#last = fix;
    this.#fixes += 1;
    this.#box.add(fix);
  }

  summary(): TrackSummary {
    const firstAt = this.#first?.time ?? null;
    const lastAt = this.#last?.time ?? null;
    return {
      fixes: this.#fixes,
      outliersLeftOut: this.#outliers,
      firstAt,
      lastAt,
      spanS: firstAt === null || lastAt === null ? 0 : (lastAt - firstAt) / 1000,
      distanceM: this.#distanceM,
      meanSpeedMps: this.#steppedMs > 0 ? this.#distanceM / (this.#steppedMs / 1000) : null,
      fastest: this.#fastest,
      box: this.#box.box(),
    };
  }

  #step(a: TrackFix, b: TrackFix): void {
    const metres = distanceM(a, b);
    const ms = b.time - a.time;
    this.#distanceM += metres;
    this.#steppedMs += ms;
    // Two devices on one subject can report at the same instant: a distance, but no speed.
    if (ms <= 0) return;
    const speedMps = metres / (ms / 1000);
    if (this.#fastest === null || speedMps > this.#fastest.speedMps) {
      this.#fastest = { from: a.time, to: b.time, distanceM: metres, speedMps };
    }
  }
}

/** Sums up a whole track, given in order of time. */
export function trackSummary(
  fixes: Iterable<TrackFix>,
  options: { readonly includeOutliers?: boolean } = {},
): TrackSummary {
  const meter = new TrackMeter(options);
  for (const fix of fixes) meter.add(fix);
  return meter.summary();
}

/** A segment belongs to its device; fixes without one are joined, of whatever device. */
function isJoined(a: TrackFix, b: TrackFix): boolean {
  return a.segment === b.segment && (a.segment === undefined || a.device === b.device);
}

/** Measures longitudes in two frames, cut at 180 and at 0 degrees; the narrower box is the true one. */
class BoxMeter {
  #south = Number.POSITIVE_INFINITY;
  #north = Number.NEGATIVE_INFINITY;
  #west = Number.POSITIVE_INFINITY;
  #east = Number.NEGATIVE_INFINITY;
  #west360 = Number.POSITIVE_INFINITY;
  #east360 = Number.NEGATIVE_INFINITY;

  add({ lat, lon }: { lat: number; lon: number }): void {
    const lon360 = lon < 0 ? lon + 360 : lon;
    this.#south = Math.min(this.#south, lat);
    this.#north = Math.max(this.#north, lat);
    this.#west = Math.min(this.#west, lon);
    this.#east = Math.max(this.#east, lon);
    this.#west360 = Math.min(this.#west360, lon360);
    this.#east360 = Math.max(this.#east360, lon360);
  }

  box(): Box | null {
    if (this.#south > this.#north) return null;
    const latitudes = { south: this.#south, north: this.#north };
    const spansAntimeridian = this.#east360 - this.#west360 < this.#east - this.#west;
    return spansAntimeridian
      ? { west: within180(this.#west360), ...latitudes, east: within180(this.#east360) }
      : { west: this.#west, ...latitudes, east: this.#east };
  }
}

function within180(lon360: number): number {
  return lon360 > 180 ? lon360 - 360 : lon360;
}
