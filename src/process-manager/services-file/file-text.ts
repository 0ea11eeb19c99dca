/** Where something stands in a file, both from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

/** What a file says, and where it says it. */
export interface FileText {
  readonly value: unknown;
  /** What makes it unreadable, duplicate keys among it. When there are any, the value means nothing. */
  readonly problems: readonly { readonly at: Position; readonly message: string }[];
  /** Of the value at the path, or of its key; of what it would be in where it is missing. */
  readonly locate: (path: readonly (string | number)[], isKey: boolean) => Position;
}

/** The place of a character, counted from 0. */
export function positionAt(text: string, offset: number): Position {
  const before = text.slice(0, offset);
  return { line: before.split("\n").length, column: offset - before.lastIndexOf("\n") };
}
