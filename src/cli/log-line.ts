import { styleText } from "node:util";

const levels: Readonly<Record<string, Parameters<typeof styleText>[0]>> = {
  warn: "yellow",
  error: "red",
  fatal: "red",
};
/** Fields that every line has, or that the line's words are made of. */
const familiar = new Set(["level", "time", "service", "msg", "err", "reqId"]);

/**
 * A JSON log line in words: message, then the other fields. A line that is none is given back as it is.
 * The file keeps the whole line; this is for eyes.
 */
export function readableLine(line: string): string {
  if (!line.startsWith("{")) return line;
  let entry: Record<string, unknown>;
  try {
    entry = JSON.parse(line);
  } catch {
    return line;
  }
  const { level, msg, err } = entry;
  if (typeof msg !== "string") return line;
  const fields = Object.entries(entry)
    .filter(([key]) => !familiar.has(key))
    .map(([key, value]) => `${key}=${typeof value === "object" ? JSON.stringify(value) : value}`);
  const cause = err && typeof err === "object" && "message" in err ? [`(${err.message})`] : [];
  const text = [msg, ...cause].join(" ");
  const style = levels[String(level)];
  return [style ? styleText(style, text) : text, ...fields.map((field) => styleText("dim", field))].join(" ");
}
