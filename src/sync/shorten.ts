/** Bytes that one field may take over: a project's request, its disk and whoever reads it there are bounded. */
export const fieldBytesMax = 256 * 1024;

/**
 * A row (JSON object) with every longer field cut. A text keeps its beginning and says how long it was; of any other value, which cannot
 * be cut and stay what it is, an object says the same in its place.
 */
export function shorten(rowJson: string): string {
  if (rowJson.length <= fieldBytesMax / 3) return rowJson;
  const row = JSON.parse(rowJson) as Record<string, unknown>;
  const cut = Object.entries(row).flatMap(([name, value]): [string, unknown][] => {
    const json = JSON.stringify(value);
    const bytes = Buffer.byteLength(json);
    return bytes <= fieldBytesMax ? [] : [[name, shortened(value, bytes)]];
  });
  // Untouched where nothing is cut: reading and writing it again may change how numbers are written.
  return cut.length === 0 ? rowJson : JSON.stringify({ ...row, ...Object.fromEntries(cut) });
}

function shortened(value: unknown, bytes: number): unknown {
  if (typeof value !== "string") return { pugmark_cut: { bytes } };
  const mark = ` […cut by Pugmark's mirror: ${bytes} bytes in all]`;
  // As JSON, a character takes six bytes at most: \u001f.
  const kept = Buffer.from(value.slice(0, fieldBytesMax)).subarray(0, fieldBytesMax / 2);
  // What is left of a character that was cut in two goes as well.
  return `${new TextDecoder().decode(kept, { stream: true })}${mark}`;
}
