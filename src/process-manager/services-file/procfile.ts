import type { FileText } from "./file-text.ts";

const firstPort = 5_000;
const portsApart = 100;

/**
 * A Procfile as foreman reads it: `name: command line`, each run by the shell with a PORT of its own (5000, 5100 …, or
 * from the PORT of the `.env` beside it on) which nothing else is done with. The `.env` is every service's.
 */
export function readProcfile(text: string, env: NodeJS.Dict<string>): FileText {
  const first = Number(env.PORT ?? firstPort);
  const lineOf = new Map<string, number>();
  const problems: FileText["problems"][number][] = [];
  const services: Record<string, { command: string; env: Record<string, string> }> = {};
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (/^\s*(#|$)/.test(line)) continue;
    const at = { line: index + 1, column: 1 };
    const [, written = "", command = ""] = /^([A-Za-z0-9_-]+):\s*(.+)$/.exec(line) ?? [];
    const name = written.toLowerCase().replaceAll("_", "-");
    if (name === "") problems.push({ at, message: "should be `name: command line`" });
    else if (lineOf.has(name)) problems.push({ at, message: `the name ${name} is there twice` });
    const port = first + portsApart * lineOf.size;
    lineOf.set(name, at.line);
    services[name] = { command, env: { PORT: String(port) } };
  }
  const { PORT: _base, ...shared } = env;
  return {
    value: { services, env: shared },
    problems,
    locate: ([, name]) => ({ line: lineOf.get(String(name)) ?? 1, column: 1 }),
  };
}
