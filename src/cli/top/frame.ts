import { stripVTControlCharacters, styleText } from "node:util";
import { fitLine, fitLinePadded, widthOf, wrap } from "../fit-line.ts";
import { isGood, serviceTable, sizeOf, whyOf } from "../service-table.ts";
import type { TopModel } from "./model.ts";

const hints = "↑↓ select  ⏎ logs  r restart  s stop  S start  / filter  ? help  q quit";
const logHints = "↑↓ PgUp PgDn scroll  g first  G follow  esc back  r restart  q quit";
const help = [
  "↑ ↓, k j         select a service; in a log: scroll",
  "PgUp PgDn        a page at a time; Home and End: the ends",
  "Enter, l         the log of the selected service, full screen; again or Esc: back",
  "g, G             in a log: its first line; its last one, and follow",
  "r                restart the service; without a gap where its socket is held",
  "s, S             stop it; start it",
  "/                show only services with these letters in their names; Esc: all",
  "q, Ctrl+C        leave; the station goes on",
];

const rowsMin = 6;
const columnsMin = 40;

/** The lines of the whole screen for what the model holds. */
export function frameOf(model: TopModel, columns: number, rows: number): string[] {
  if (rows < rowsMin || columns < columnsMin)
    return [fitLine(`pugmark top needs ${columnsMin}×${rowsMin}`, columns)];
  const body =
    model.mode === "help"
      ? ["", ...help.map((line) => `  ${line}`)]
      : model.mode === "logs"
        ? logBody(model, columns, rows - 2)
        : tableBody(model, columns, rows - 2);
  const filled = Array.from({ length: rows - 2 }, (_, row) => fitLine(body[row] ?? "", columns));
  return [title(model, columns), ...filled, foot(model, columns)];
}

/** How many rows of a log a full screen shows, and a page up or down goes. */
export function pageRowsOf(rows: number): number {
  return Math.max(1, rows - 3);
}

function title({ services, isAway }: TopModel, columns: number): string {
  const own = services.filter(({ kind }) => kind !== "external");
  const good = own.filter(isGood).length;
  const sum = (pick: (service: (typeof own)[number]) => number | null) =>
    own.reduce((total, service) => total + (pick(service) ?? 0), 0);
  const cpu = sum(({ cpuPercent }) => cpuPercent).toFixed(1);
  const facts = isAway
    ? "no station"
    : `${good} of ${own.length} ready  cpu ${cpu}%  memory ${sizeOf(sum(({ memoryBytes }) => memoryBytes))}`;
  return styleText("bold", fitLinePadded(`pugmark top  ${facts}`, columns));
}

function foot({ message, filter, isFiltering, mode }: TopModel, columns: number): string {
  if (isFiltering) return fitLine(`/${filter}█`, columns);
  if (message !== "") return fitLine(message, columns);
  if (mode === "logs") return styleText("dim", fitLine(logHints, columns));
  return styleText("dim", fitLine(`${filter === "" ? "" : `[/${filter}]  `}${hints}`, columns));
}

function tableBody(model: TopModel, columns: number, rows: number): string[] {
  const { visible, selected } = model;
  const table = serviceTable(visible, columns - 2);
  // Half for the services, more where the log has nothing to show that needs it.
  const room = Math.max(1, Math.min(visible.length, Math.ceil((rows - 2) * 0.6)));
  const at = selected ? visible.indexOf(selected) : 0;
  const first = Math.min(Math.max(0, at - Math.floor(room / 2)), Math.max(0, visible.length - room));
  const services = table.rows.slice(first, first + room).map((row, index) => {
    if (first + index !== at) return `  ${row}`;
    return styleText("inverse", fitLinePadded(`› ${stripVTControlCharacters(row)}`, columns));
  });
  const log = logLines(model, columns, rows - 2 - services.length);
  return [styleText("dim", `  ${table.heading}`), ...services, rule(model, columns), ...log];
}

function logBody(model: TopModel, columns: number, rows: number): string[] {
  return [rule(model, columns), ...logLines(model, columns, rows - 1)];
}

function rule({ selected, linesBelow }: TopModel, columns: number): string {
  if (!selected) return "─".repeat(columns);
  const where = linesBelow > 0 ? `, ${linesBelow} more below` : "";
  const text = fitLine(`── ${selected.name}${where} ── ${whyOf(selected)} `, columns - 1);
  return styleText("dim", text + "─".repeat(columns - widthOf(text)));
}

/** The last lines that fit, those that are too wide in several. */
function logLines({ lines, linesBelow, selected }: TopModel, columns: number, rows: number): string[] {
  if (selected?.kind === "external") return ["others run it: its log is not here"];
  const shown: string[] = [];
  for (let index = lines.length - 1 - linesBelow; index >= 0 && shown.length < rows; index -= 1)
    shown.unshift(...wrapLine(lines[index] ?? "", columns));
  return shown.slice(Math.max(0, shown.length - rows));
}

/** A line that fits keeps its colours. */
function wrapLine(line: string, columns: number): string[] {
  return widthOf(line) <= columns ? [line] : wrap(line, columns);
}
