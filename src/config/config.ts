import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseEnv } from "node:util";
import { nearest } from "./nearest.ts";
import { type Variable, type VariableName, variables } from "./variables.ts";

type ValueOf<V> = V extends { parse: (text: string) => infer T }
  ? V extends { standard: string }
    ? T
    : T | undefined
  : never;

/** Every setting, parsed, under the name that people set it by. `PUGMARK_HOME` is absolute. */
export type Config = { readonly [K in VariableName]: ValueOf<(typeof variables)[K]> };

export type Source = "environment" | ".env" | "default";

export interface LoadedConfig {
  readonly config: Config;
  readonly sources: Readonly<Record<VariableName, Source>>;
  /** What `.env` says, as it is written there, where the environment says nothing. */
  readonly fromFile: Readonly<Partial<Record<VariableName, string>>>;
}

/** Says every wrong variable at once, a line each; shows no secret. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly code = "config-invalid";
  readonly lines: readonly string[];

  constructor(lines: readonly string[]) {
    super(lines.join("\n"));
    this.lines = lines;
  }
}

/** The folder of the clone: where `.env`, the migrations and the default home are. */
export const projectRoot = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/**
 * Turns the environment and `.env` into settings; the environment wins. An empty value counts as unset.
 * Throws one `ConfigError` that names every variable that is wrong or unknown.
 */
export function loadConfig(
  environment: NodeJS.ProcessEnv = process.env,
  envFile = join(projectRoot, ".env"),
): LoadedConfig {
  const file = readEnvFile(envFile);
  const problems = unknownNames(environment, file);
  const values: Record<string, unknown> = {};
  const sources: Record<string, Source> = {};
  const fromFile: Record<string, string> = {};

  for (const [name, variable] of Object.entries<Variable<unknown>>(variables)) {
    const source: Source = environment[name] ? "environment" : file[name] ? ".env" : "default";
    const text = environment[name] || file[name] || variable.standard;
    sources[name] = source;
    if (source === ".env") fromFile[name] = file[name] ?? "";
    if (text === undefined) continue;
    try {
      values[name] = variable.parse(text);
    } catch (error) {
      const shown = variable.secret ? maskSecret(text) : JSON.stringify(text);
      problems.push(`${name}=${shown} is not allowed: ${error instanceof Error ? error.message : error}`);
    }
  }

  const config = values as unknown as Config;
  problems.push(...contradictions(config));
  if (problems.length > 0) throw new ConfigError(problems);
  const base = sources.PUGMARK_HOME === "environment" ? process.cwd() : projectRoot;
  return {
    config: { ...config, PUGMARK_HOME: resolve(base, config.PUGMARK_HOME) },
    sources: sources as Record<VariableName, Source>,
    fromFile,
  };
}

function readEnvFile(path: string): NodeJS.ProcessEnv {
  if (!existsSync(path)) return {};
  try {
    return parseEnv(readFileSync(path, "utf8").replace(/^\uFEFF/, "")); // some editors begin with that mark
  } catch (error) {
    throw new ConfigError([`${path} cannot be read: ${error instanceof Error ? error.message : error}`]);
  }
}

/** The settings as text, in the order of the table, secrets masked: what `pugmark config` prints. */
export function describeConfig({ config, sources }: LoadedConfig): {
  name: VariableName;
  value: string | null;
  source: Source;
  meaning: string;
}[] {
  return (Object.entries(variables) as [VariableName, Variable<unknown>][])
    .filter(([, variable]) => !variable.internal)
    .map(([name, variable]) => ({
      name,
      value: shownValue(config[name], variable),
      source: sources[name],
      meaning: variable.meaning,
    }));
}

/** Stands for a secret: says that there is one and no part of it. */
function maskSecret(text: string): string {
  return text === "" ? "" : "********";
}

/** True where only programs of this machine can connect. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host.startsWith("127.");
}

function shownValue(value: unknown, variable: Variable<unknown>): string | null {
  if (value === undefined) return null;
  if (variable.secret) return maskSecret("set");
  return Array.isArray(value) ? value.join(",") : String(value);
}

/** A misspelt name would silently mean its default. Only names that are surely meant for us are judged. */
function unknownNames(environment: NodeJS.ProcessEnv, file: NodeJS.ProcessEnv): string[] {
  const known = Object.keys(variables);
  const foreign = /^(NODE_|TZ$|LANG$|LC_)/;
  const wrong = new Set([
    ...Object.keys(environment).filter((name) => name.startsWith("PUGMARK_")),
    ...Object.keys(file).filter((name) => !foreign.test(name)),
  ]);
  return [...wrong]
    .filter((name) => !known.includes(name))
    .map((name) => {
      const near = nearest(name, known);
      return `${name} is not a variable of Pugmark${near ? `; is ${near} meant?` : " (see .env.example)"}`;
    });
}

/** Judges what could be read; a value that could not has its own line. */
function contradictions(config: Partial<Config>): string[] {
  const problems: string[] = [];
  if (config.HOST !== undefined && !isLoopback(config.HOST) && !config.PUGMARK_API_KEYS) {
    problems.push(
      `HOST=${JSON.stringify(config.HOST)} is not allowed: any address but loopback needs PUGMARK_API_KEYS`,
    );
  }
  if (config.SUPABASE_JWT_SECRET && !config.SUPABASE_URL)
    problems.push("SUPABASE_JWT_SECRET is of no use without SUPABASE_URL: tokens of which project?");
  const callers = ["local", "station", ...(config.PUGMARK_API_KEYS ?? []).map(({ name }) => name)];
  for (const name of config.CHAT_TOKENS_PER_DAY?.byCaller.keys() ?? []) {
    if (callers.includes(name)) continue;
    problems.push(`CHAT_TOKENS_PER_DAY names ${name}, and no key of PUGMARK_API_KEYS has that name`);
  }
  const ports = new Map<number, string>();
  for (const name of ["PORT", "API_PORT", "CHAT_PORT", "DATABASE_PORT"] as const) {
    const port = config[name];
    if (port === undefined) continue;
    const other = ports.get(port);
    if (other) problems.push(`${name}=${port} is not allowed: ${other} has that port already`);
    ports.set(port, name);
  }
  return problems;
}
