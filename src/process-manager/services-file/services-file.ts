import { readFile } from "node:fs/promises";
import { basename, dirname, extname, resolve } from "node:path";
import { parseEnv } from "node:util";
import schema from "../../../schema/services.schema.json" with { type: "json" };
import type { Definition } from "../definition.ts";
import { messageOf, ProcessManagerError, systemCodeOf } from "../process-manager-error.ts";
import { findProblems } from "../validate-definitions.ts";
import type { ServiceEntry, ServicesFile } from "./define-services.ts";
import type { FileText } from "./file-text.ts";
import { findMismatches, type Mismatch } from "./schema-check.ts";

/** How a file is called, which tells its format. */
const isModule = /^\.[cm]?[jt]s$/;
const isYaml = /^\.ya?ml$/;

/** What a manager is given of a services file. */
export interface ServicesToRun {
  readonly definitions: readonly Definition[];
  readonly logsMaxBytes?: number;
}

/**
 * The definitions that a services file stands for: TypeScript or JavaScript (the default export), JSON, YAML, or a
 * Procfile. Read anew at each call. Throws one `definition-invalid` with a line for each thing that is wrong:
 * file, line, column (not for a module), field.
 */
export async function readServicesFile(path: string): Promise<ServicesToRun> {
  const file = await readAny(resolve(path), path);
  if (file.problems.length > 0)
    throw invalid(file.problems.map(({ at, message }) => `${path}:${at.line}:${at.column}: ${message}`));
  const say = ({ path: field, message, isKey = false }: Mismatch): string => {
    const at = file.locate?.(field, isKey);
    return `${path}${at ? `:${at.line}:${at.column}` : ""}: ${[field.join("."), message].filter(Boolean).join(" ")}`;
  };
  const mismatches = findMismatches(schema, file.value);
  if (mismatches.length > 0) throw invalid(mismatches.map(say).sort(inOrder));
  const contents = file.value as ServicesFile;
  const missing: Mismatch[] = [];
  const definitions = await definitionsOf(contents, dirname(resolve(path)), missing);
  const problems = (await findProblems(definitions)).map((message) => about(message, contents));
  if (missing.length + problems.length > 0) throw invalid([...missing, ...problems].map(say).sort(inOrder));
  const { logsMaxBytes } = contents;
  return { definitions, ...(logsMaxBytes === undefined ? {} : { logsMaxBytes }) };
}

interface AnyFile extends Pick<FileText, "value" | "problems"> {
  readonly locate?: FileText["locate"];
}

async function readAny(path: string, shown: string): Promise<AnyFile> {
  const ending = extname(path);
  try {
    if (isModule.test(ending)) {
      const { importFresh } = await import("./module-file.ts");
      return { value: await importFresh(path), problems: [] };
    }
    const text = (await readFile(path, "utf8")).replace(/^\uFEFF/, ""); // some editors begin with that mark
    if (basename(path).startsWith("Procfile"))
      return (await import("./procfile.ts")).readProcfile(text, await envBeside(path));
    if (isYaml.test(ending)) return (await import("./yaml-text.ts")).readYaml(text);
    if (ending === ".json") return (await import("./json-text.ts")).readJson(text);
  } catch (error) {
    throw invalid([`${shown} cannot be read: ${messageOf(error)}`], error);
  }
  throw invalid([
    `${shown} is no services file: its name ends in .ts, .js, .mjs, .cjs, .json, .yaml or .yml, or is Procfile`,
  ]);
}

async function envBeside(path: string): Promise<NodeJS.Dict<string>> {
  try {
    return parseEnv(await readFile(resolve(dirname(path), ".env"), "utf8"));
  } catch (error) {
    if (systemCodeOf(error) === "ENOENT") return {};
    throw error;
  }
}

async function definitionsOf(file: ServicesFile, folder: string, missing: Mismatch[]): Promise<Definition[]> {
  const shared = { ...(await readEnvFiles(file.envFiles, folder, [], missing)), ...file.env };
  return await Promise.all(
    Object.entries(file.services).map(async ([name, entry]): Promise<Definition> => {
      if (entry.kind === "external") return { ...entry, name };
      const { envFiles, cwd = ".", ...rest } = entry;
      const own = await readEnvFiles(envFiles, folder, ["services", name], missing);
      return { ...rest, name, cwd: resolve(folder, cwd), env: environmentOf(entry, { ...shared, ...own }) };
    }),
  );
}

/** `PORT` is the port that it listens on, whatever a file for all says of another one's; only its own `env` wins. */
function environmentOf(
  { env, listen }: ServiceEntry,
  others: Readonly<Record<string, string>>,
): Record<string, string> {
  const { PORT, ...rest } = others;
  return { ...rest, ...(PORT === undefined || listen ? {} : { PORT }), ...env };
}

async function readEnvFiles(
  names: readonly string[] = [],
  folder: string,
  owner: readonly string[],
  missing: Mismatch[],
): Promise<Record<string, string>> {
  const all = {};
  for (const [index, name] of names.entries()) {
    const path = resolve(folder, name.replace(/\?$/, ""));
    try {
      const text = (await readFile(path, "utf8")).replace(/^\uFEFF/, "");
      Object.assign(all, parseEnv(text));
      for (const line of linesWithoutVariable(text))
        missing.push({
          path: [...owner, "envFiles", index],
          message: `is wrong in line ${line}: NAME=value is expected`,
        });
    } catch (error) {
      if (systemCodeOf(error) === "ENOENT" && name.endsWith("?")) continue;
      missing.push({ path: [...owner, "envFiles", index], message: `cannot be read: ${messageOf(error)}` });
    }
  }
  return all;
}

/** The numbers of the lines that `parseEnv` would skip without a word; a value in quotes may have several lines. */
function linesWithoutVariable(text: string): number[] {
  const lines = text
    .replace(/=[ \t]*(["'`])[\s\S]*?\1/g, (value) => `=${value.replace(/[^\n]+/g, "#")}`)
    .split("\n");
  return lines.flatMap((line, index) => (/^\s*($|#|(export\s+)?[^\s=]+\s*=)/.test(line) ? [] : [index + 1]));
}

/** What is wrong with a definition begins with its name: then the place is known. */
function about(message: string, { services }: ServicesFile): Mismatch {
  const name = Object.keys(services).find((one) => message.startsWith(`${one} `));
  if (name === undefined) return { path: ["services"], message: `: ${message}`, isKey: true };
  return { path: ["services", name], message: message.slice(name.length + 1), isKey: true };
}

/** By line and column: the numbers in a text. */
function inOrder(a: string, b: string): number {
  return a.localeCompare(b, "en", { numeric: true });
}

function invalid(lines: readonly string[], cause?: unknown): ProcessManagerError {
  return new ProcessManagerError("definition-invalid", [...new Set(lines)].join("\n"), { cause });
}
