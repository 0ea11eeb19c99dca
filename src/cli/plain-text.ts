import { stripVTControlCharacters } from "node:util";

/** Text without what could steer a terminal: names come from devices, and words from a model. */
export function plain(text: string): string {
  return stripVTControlCharacters(text).replace(/(?![\n\t])\p{Cc}/gu, "");
}

/** The same on one line. */
export function oneLine(text: string): string {
  return plain(text).replace(/\s+/g, " ").trim();
}
