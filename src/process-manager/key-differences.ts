type Texts = Readonly<Record<string, string>>;

/**
 * How two sets of named values differ, in words and in the order of the names: "variable A is new", "variable B changed".
 * The label stands before each name; `gone` says that there is no such value any more. The values are never shown.
 */
export function keyDifferences(before: Texts, after: Texts, label: string, gone: string): string[] {
  return [...new Set([...Object.keys(before), ...Object.keys(after)])].sort().flatMap((name) => {
    if (before[name] === after[name]) return [];
    if (before[name] === undefined) return [`${label}${name} is new`];
    return [`${label}${name} ${after[name] === undefined ? gone : "changed"}`];
  });
}
