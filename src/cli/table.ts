import { stripVTControlCharacters, styleText } from "node:util";

/** Prints rows under a heading, columns as wide as their widest cell. Cells may carry colours. */
export function printTable(heading: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = heading.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => stripVTControlCharacters(row[column] ?? "").length)),
  );
  const line = (cells: readonly string[]) =>
    cells
      .map(
        (cell, column) =>
          cell + " ".repeat(Math.max(0, (widths[column] ?? 0) - stripVTControlCharacters(cell).length)),
      )
      .join("  ")
      .trimEnd();
  console.log(styleText("dim", line(heading.map((title) => title.toUpperCase()))));
  for (const row of rows) console.log(line(row));
}
