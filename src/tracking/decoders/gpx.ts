import { SaxesParser, type SaxesTagPlain } from "saxes";
import { checkFix, isRejection, plausibleOr, type Rejection, type ReportedFix } from "../fix.ts";
import { parseTime } from "../time.ts";
import { decimal } from "./decimal.ts";

export interface GpxPoint {
  /** Line of the file on which the point ends, from 1. */
  readonly line: number;
  readonly result: ReportedFix | Rejection;
}

const textMax = 4096;

/**
 * Reads the track points of a GPX 1.0 or 1.1 file that is handed over piece by piece. Times without a zone are
 * UTC, as GPX has it; `speed` (m/s) and `course` count wherever they stand in the point (GPX 1.0, Garmin's
 * extensions), other values of the point become attributes. A point without a time is refused: it is a place,
 * not a fix. Waypoints and routes are no track and only counted.
 *
 * Each segment is named by the time of its first fix, so that segments of two files never are the same and a
 * file read again names them as before.
 */
export class GpxDecoder {
  /** Waypoints and route points, which were left out. */
  ignored = 0;
  readonly #parser = new SaxesParser();
  readonly #device: string;
  readonly #subject: string | undefined;
  readonly #nowMs: number;
  #points: GpxPoint[] = [];
  #isGpx = false;
  #segment: string | undefined;
  #point: { lat: unknown; lon: unknown; values: Map<string, string> } | undefined;
  #text = "";

  constructor(options: {
    readonly device: string;
    readonly subject?: string | undefined;
    readonly nowMs: number;
  }) {
    this.#device = options.device;
    this.#subject = options.subject;
    this.#nowMs = options.nowMs;
    this.#parser.on("opentag", (tag) => this.#open(tag));
    this.#parser.on("text", (text) => {
      if (this.#point && this.#text.length < textMax) this.#text += text;
    });
    this.#parser.on("closetag", (tag) => this.#close(localName(tag.name)));
  }

  /** The points that this piece completes. Throws an `Error` with line and column where it is not XML, or not GPX. */
  push(piece: string): GpxPoint[] {
    this.#parser.write(piece);
    const points = this.#points;
    this.#points = [];
    return points;
  }

  /** To be called at the end of the file. Throws an `Error` where that comes too early. */
  end(): void {
    this.#parser.close();
  }

  #open(tag: SaxesTagPlain): void {
    const name = localName(tag.name);
    if (!this.#isGpx && name !== "gpx") throw new Error("this is not a GPX file: its root is not <gpx>");
    this.#isGpx = true;
    this.#text = "";
    if (name === "wpt" || name === "rtept") this.ignored += 1;
    if (name === "trkseg") this.#segment = undefined;
    if (name === "trkpt") {
      this.#point = {
        lat: decimal(tag.attributes.lat?.trim()),
        lon: decimal(tag.attributes.lon?.trim()),
        values: new Map(),
      };
    }
  }

  #close(name: string): void {
    if (name === "trkpt") this.#finish();
    const text = this.#text.trim();
    if (this.#point && text !== "") this.#point.values.set(name, text);
    this.#text = "";
  }

  #finish(): void {
    if (!this.#point) return;
    const { lat, lon, values } = this.#point;
    this.#point = undefined;
    const time = values.get("time");
    const timeMs = time === undefined ? undefined : parseTime(time, "utc");
    const segment = this.#segment ?? isoOf(timeMs);
    const result = checkFix(
      {
        device: this.#device,
        subject: this.#subject,
        time: timeMs,
        lat,
        lon,
        segment,
        altitudeM: plausibleOr("altitudeM", decimal(values.get("ele"))),
        speedMps: plausibleOr("speedMps", decimal(values.get("speed"))),
        headingDeg: plausibleOr("headingDeg", decimal(values.get("course"))),
        attributes: attributesOf(values),
      },
      this.#nowMs,
    );
    if (!isRejection(result)) this.#segment = segment;
    this.#points.push({ line: this.#parser.line, result });
  }
}

const meant: ReadonlySet<string> = new Set(["time", "ele", "speed", "course"]);

function attributesOf(values: ReadonlyMap<string, string>): Record<string, string | number> {
  const rest = [...values].filter(([name]) => !meant.has(name));
  return Object.fromEntries(
    rest.map(([name, text]) => {
      const number = decimal(text);
      return [name, number !== undefined && !Number.isNaN(number) ? number : text];
    }),
  );
}

function isoOf(timeMs: number | undefined): string | undefined {
  return timeMs === undefined || Number.isNaN(timeMs) ? undefined : new Date(timeMs).toISOString();
}

function localName(name: string): string {
  return name.slice(name.indexOf(":") + 1);
}
