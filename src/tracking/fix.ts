/**
 * One position of one device, WGS 84. Absent means not known; there is no 0 or -1 that stands for "unknown".
 * `(device, time)` is its identity: the same pair sent again is a repeat.
 */
export interface Fix {
  /** What the device calls itself. */
  readonly device: string;
  /** Epoch milliseconds, whole. */
  readonly time: number;
  /** Degrees, -90 to 90. */
  readonly lat: number;
  /** Degrees, -180 to 180. */
  readonly lon: number;
  readonly altitudeM?: number | undefined;
  /** Radius in metres within which the device believes to be. */
  readonly accuracyM?: number | undefined;
  readonly speedMps?: number | undefined;
  /** Degrees clockwise from north, 0 to below 360. */
  readonly headingDeg?: number | undefined;
  /** 0 to 1. */
  readonly battery?: number | undefined;
  /** Why this fix is held to be wrong. */
  readonly outlier?: string | undefined;
  /** Fixes of different segments are not joined by a line. */
  readonly segment?: string | undefined;
  /** Whatever else was reported: a JSON object as text. */
  readonly attributesJson?: string | undefined;
}

/** A fix with what its sender says about whom it is of. */
export interface ReportedFix extends Fix {
  /** Name of the subject that carries the device; counts only where the device is new. */
  readonly subject?: string | undefined;
  readonly species?: string | undefined;
}

/** What a decoder read, in our units and not yet checked. `time` is NaN where a time was given and unreadable. */
export interface RawFix {
  readonly device?: unknown;
  readonly time?: number | undefined;
  readonly lat?: unknown;
  readonly lon?: unknown;
  readonly altitudeM?: unknown;
  readonly accuracyM?: unknown;
  readonly speedMps?: unknown;
  readonly headingDeg?: unknown;
  readonly battery?: unknown;
  readonly outlier?: unknown;
  readonly segment?: unknown;
  readonly attributes?: unknown;
  readonly subject?: unknown;
  readonly species?: unknown;
}

/** Why a fix was not taken. The codes are API. */
export type RejectionCode =
  | "item-invalid"
  | "geometry-unsupported"
  | "device-missing"
  | "time-missing"
  | "time-invalid"
  | "time-too-early"
  | "time-in-future"
  | "coordinates-missing"
  | "latitude-out-of-range"
  | "longitude-out-of-range"
  | "value-invalid"
  | "text-invalid"
  | "text-too-long"
  | "attributes-too-large";

export interface Rejection {
  readonly code: RejectionCode;
  /** For people; shows no more of the value than its name. */
  readonly detail: string;
}

export function isRejection(checked: object): checked is Rejection {
  return "code" in checked;
}

export function reject(code: RejectionCode, detail: string): Rejection {
  return { code, detail };
}

const textMax = 200;
const attributesMax = 8192;
const attributesDepthMax = 8;
const dayMs = 86_400_000;

/** Ranges outside of which a value cannot be meant. */
const plausible = {
  altitudeM: [-12_000, 1_000_000],
  accuracyM: [0, 20_100_000],
  speedMps: [0, 100_000],
  headingDeg: [0, 360],
  battery: [0, 1],
} as const;
export type Measure = keyof typeof plausible;
const measures = Object.keys(plausible) as Measure[];

/**
 * Checks everything that a fix must hold to before it may be stored: a device, a time from 1970 to a day from
 * `nowMs`, coordinates on the globe, no value that is impossible, no text that Postgres refuses (NUL, lone
 * surrogates), attributes of 8,192 characters and 8 levels at most. Never turns one thing into another.
 */
export function checkFix(raw: RawFix, nowMs: number): ReportedFix | Rejection {
  const device =
    typeof raw.device === "number" && Number.isSafeInteger(raw.device) ? `${raw.device}` : raw.device;
  const rejection =
    checkDevice(device) ??
    checkTime(raw.time, nowMs) ??
    checkCoordinates(raw.lat, raw.lon) ??
    checkMeasures(raw) ??
    checkText("subject", raw.subject) ??
    checkText("species", raw.species) ??
    checkText("segment", raw.segment) ??
    checkText("outlier", raw.outlier);
  if (rejection) return rejection;
  const attributes = attributesText(raw.attributes);
  if (typeof attributes === "object") return attributes;
  const heading = numberOf(raw.headingDeg);
  return {
    device: (device as string).trim(),
    time: Math.floor(raw.time as number),
    lat: raw.lat as number,
    lon: raw.lon as number,
    altitudeM: numberOf(raw.altitudeM),
    accuracyM: numberOf(raw.accuracyM),
    speedMps: numberOf(raw.speedMps),
    headingDeg: heading === 360 ? 0 : heading,
    battery: numberOf(raw.battery),
    outlier: textOf(raw.outlier),
    segment: textOf(raw.segment),
    attributesJson: attributes,
    subject: textOf(raw.subject),
    species: textOf(raw.species),
  };
}

/**
 * Checks a fix that comes as JSON from where it was checked before, and may have been changed since. A fix that passed
 * `checkFix` there passes here.
 */
export function readReportedFix(value: unknown, nowMs: number): ReportedFix | Rejection {
  if (typeof value !== "object" || value === null) return reject("item-invalid", "an item is not an object");
  const { attributesJson, ...raw } = value as RawFix & { readonly attributesJson?: unknown };
  try {
    const attributes = attributesJson === undefined ? undefined : JSON.parse(String(attributesJson));
    return checkFix({ ...raw, attributes }, nowMs);
  } catch {
    return reject("value-invalid", "attributes is not an object");
  }
}

/**
 * The value of a measure, or nothing where it is impossible. For formats in which senders write -1 or rubbish
 * for "unknown": the position is worth more than its trimmings.
 */
export function plausibleOr(measure: Measure, value: unknown): number | undefined {
  const [min, max] = plausible[measure];
  return typeof value === "number" && value >= min && value <= max ? value : undefined;
}

function checkDevice(device: unknown): Rejection | undefined {
  if (device === undefined || device === null || (typeof device === "string" && device.trim() === "")) {
    return reject("device-missing", "no device is named");
  }
  return checkText("device", device);
}

function checkTime(time: number | undefined, nowMs: number): Rejection | undefined {
  if (time === undefined) return reject("time-missing", "no time is given");
  if (!Number.isFinite(time)) return reject("time-invalid", "the time is not an RFC 3339 time");
  if (time < 0) return reject("time-too-early", "the time is before 1970");
  if (time > nowMs + dayMs) return reject("time-in-future", "the time is more than a day in the future");
  return undefined;
}

function checkCoordinates(lat: unknown, lon: unknown): Rejection | undefined {
  if (lat === undefined || lat === null || lon === undefined || lon === null) {
    return reject("coordinates-missing", "latitude or longitude is missing");
  }
  if (typeof lat !== "number" || Number.isNaN(lat))
    return reject("value-invalid", "the latitude is not a number");
  if (typeof lon !== "number" || Number.isNaN(lon))
    return reject("value-invalid", "the longitude is not a number");
  if (lat < -90 || lat > 90) return reject("latitude-out-of-range", "the latitude is not within -90 to 90");
  if (lon < -180 || lon > 180)
    return reject("longitude-out-of-range", "the longitude is not within -180 to 180");
  return undefined;
}

function checkMeasures(raw: RawFix): Rejection | undefined {
  for (const measure of measures) {
    const value = raw[measure];
    if (value === undefined || value === null) continue;
    if (plausibleOr(measure, value) === undefined) {
      const [min, max] = plausible[measure];
      return reject("value-invalid", `${nameOf(measure)} is not a number from ${min} to ${max}`);
    }
  }
  return undefined;
}

/** As the native form has it: altitude_m. */
function nameOf(measure: Measure): string {
  return measure.replace(/[A-Z]/, (letter) => `_${letter.toLowerCase()}`);
}

function checkText(name: string, value: unknown): Rejection | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "string") return reject("value-invalid", `${name} is not a text`);
  if (value.length > textMax) return reject("text-too-long", `${name} is longer than ${textMax} characters`);
  if (/\p{Cc}/u.test(value) || !value.isWellFormed()) {
    return reject("text-invalid", `${name} has control characters or broken Unicode`);
  }
  return undefined;
}

function attributesText(attributes: unknown): string | undefined | Rejection {
  if (attributes === undefined || attributes === null) return undefined;
  if (typeof attributes !== "object" || Array.isArray(attributes)) {
    return reject("value-invalid", "attributes is not an object");
  }
  // Before the text is made: making it would overflow the stack.
  if (isDeeperThan(attributes, attributesDepthMax)) {
    return reject("attributes-too-large", `attributes are nested deeper than ${attributesDepthMax}`);
  }
  const text = JSON.stringify(attributes);
  if (text === "{}") return undefined;
  if (text.length > attributesMax) {
    return reject("attributes-too-large", `attributes are longer than ${attributesMax} characters`);
  }
  // JSON.stringify escapes both; an even number of backslashes before the u is somebody's literal text.
  if (/(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/.test(text)) {
    return reject("text-invalid", "attributes have NUL characters or broken Unicode");
  }
  return text;
}

function isDeeperThan(value: unknown, levels: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  if (levels === 0) return true;
  for (const key in value) {
    if (isDeeperThan((value as Record<string, unknown>)[key], levels - 1)) return true;
  }
  return false;
}

function numberOf(value: unknown): number | undefined {
  return typeof value === "number" ? value : undefined;
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value.trim() || undefined : undefined;
}
