import type { PhotoCursor } from "../store/photo-row.ts";
import type { TrackCursor } from "../store/tracks.ts";
import { ApiError } from "./api-error.ts";

/** A page's place in a track, as text that callers need not understand. */
export function trackCursor({ time, deviceId }: TrackCursor): string {
  return encode(`${time} ${deviceId}`);
}

/** Throws `ApiError` `cursor-invalid`. */
export function parseTrackCursor(cursor: string | undefined): TrackCursor | undefined {
  if (cursor === undefined) return undefined;
  const [, time, deviceId] = /^(\d{1,14}) ([\da-f-]{36})$/.exec(decode(cursor)) ?? [];
  if (
    time === undefined ||
    deviceId === undefined ||
    !/^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/.test(deviceId)
  ) {
    throw invalid();
  }
  return { time: Number(time), deviceId };
}

/** A page's place in a list that is ordered by name. */
export function nameCursor(name: string): string {
  return encode(`n ${name}`);
}

/** Throws `ApiError` `cursor-invalid`. */
export function parseNameCursor(cursor: string | undefined): string | undefined {
  if (cursor === undefined) return undefined;
  const text = decode(cursor);
  if (!text.startsWith("n ") || text.includes("\0")) throw invalid();
  return text.slice(2);
}

/** A page's place in a list of photos. */
export function photoCursor({ createdAt, id }: PhotoCursor): string {
  return encode(`p ${createdAt} ${id}`);
}

/** Throws `ApiError` `cursor-invalid`. */
export function parsePhotoCursor(cursor: string | undefined): PhotoCursor | undefined {
  if (cursor === undefined) return undefined;
  const place = /^p (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) ([\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12})$/;
  const [, createdAt, id] = place.exec(decode(cursor)) ?? [];
  if (createdAt === undefined || id === undefined || Number.isNaN(Date.parse(createdAt))) throw invalid();
  return { createdAt, id };
}

/** RFC 8288: the same request for the page that follows. */
export function nextLink(query: object, cursor: string): string {
  const given = Object.entries(query).map(([name, value]): [string, string] => [name, String(value)]);
  return `<?${new URLSearchParams({ ...Object.fromEntries(given), cursor })}>; rel="next"`;
}

function encode(text: string): string {
  return Buffer.from(text).toString("base64url");
}

function decode(cursor: string): string {
  return Buffer.from(cursor, "base64url").toString();
}

function invalid(): ApiError {
  return new ApiError("cursor-invalid", "The cursor is not one that this route gave.");
}
