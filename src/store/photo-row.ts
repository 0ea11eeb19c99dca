import type { MediaType } from "../photos/image-metadata.ts";

/** What is known of a photo. Times are RFC 3339 UTC. */
export interface Photo {
  readonly id: string;
  readonly subject_id: string;
  /** Of the file, in hexadecimal. */
  readonly sha256: string;
  readonly media_type: MediaType;
  readonly bytes: number;
  readonly taken_at: string | null;
  readonly caption: string | null;
  readonly created_at: string;
}

/** A place in a list of photos; the time down to the microsecond. */
export interface PhotoCursor {
  readonly createdAt: string;
  readonly id: string;
}

/** A time as text, RFC 3339 in UTC, to milliseconds or microseconds. */
export const utc = (column: string, digits: "MS" | "US") =>
  `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.${digits}"Z"')`;
/** Of `public.photos p`, as a `Photo`. */
export const photoColumns = `p.id, p.subject_id, p.sha256, p.media_type, p.bytes, ${utc("p.taken_at", "MS")} as taken_at, p.caption,
  ${utc("p.created_at", "MS")} as created_at`;
