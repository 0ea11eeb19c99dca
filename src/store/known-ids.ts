import { v5 as uuidv5 } from "uuid";

/** What all ids below are made in. Never to change: stations of any age have to arrive at the same ids. */
const namespace = "9f0c7b4e-58a1-5d39-8f0e-2d3c1b6a7e54";

/** The id of a device by what it calls itself: stations that meet the same one make the same row of it. */
export function deviceIdOf(key: string): string {
  return uuidv5(`device ${key}`, namespace);
}

/** The id of a subject by the name under which it is first met. */
export function subjectIdOf(name: string): string {
  return uuidv5(`subject ${name}`, namespace);
}

/** The id of a deployment. `startedAt` as Postgres is told it: RFC 3339 UTC, or `-infinity`. */
export function deploymentIdOf(deviceId: string, subjectId: string, startedAt: string): string {
  return uuidv5(`deployment ${deviceId} ${subjectId} ${startedAt}`, namespace);
}

/** The id of a photo by what it shows and its file's SHA-256, in hexadecimal. */
export function photoIdOf(subjectId: string, sha256: string): string {
  return uuidv5(`photo ${subjectId} ${sha256}`, namespace);
}
