/** A file to write; the name has no folder in it. */
export interface ExportedFile {
  readonly name: string;
  readonly text: string;
}

/** What an export comes to. */
export interface Exported {
  readonly files: readonly ExportedFile[];
  /** What the other supervisor has no equal for, a sentence each; it is at the head of the files as well. */
  readonly left: readonly string[];
}

/** Where the definitions come from and where they are to go. */
export interface Surroundings {
  /** Begins the name of every unit and object: `[a-z][a-z0-9-]*`. */
  readonly project: string;
  /** Absolute path of the Node that runs the manager here. */
  readonly node: string;
  /** Its version: `24.21.0`. */
  readonly nodeVersion: string;
  /** Absolute path of the project's folder. */
  readonly root: string;
  /** Absolute path of the manager's home. */
  readonly home: string;
  /** `PATH` for programs that are named without a folder. */
  readonly path: string;
  /** Name of the time zone that schedules are meant in, such as `Europe/Madrid`. */
  readonly timeZone: string;
}

/** The first line of every exported file: only what begins with it may be written over. */
export const mark = "# Written by pugmark export.";

/** The head of an exported file: what it is for, and what is not in it, each line a `#` comment. */
export function head(purpose: readonly string[], left: readonly string[]): string {
  const missing = left.length > 0 ? ["", "Not carried over:", ...left.map((line) => `- ${line}`)] : [];
  const lines = [...purpose, ...missing].flatMap((text) => text.split(/[\r\n]+/));
  return [mark, ...lines.map((line) => `# ${line}`.trimEnd())].join("\n");
}
/** At most `max` characters; a longer name ends in what tells it from others that begin alike. */
export function boundedName(name: string, max: number): string {
  if (name.length <= max) return name;
  let hash = 0;
  for (const character of name) hash = (Math.imul(hash, 31) + character.charCodeAt(0)) >>> 0;
  return `${name.slice(0, max - 8)}-${hash.toString(36).padStart(7, "0")}`;
}
