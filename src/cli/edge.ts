import { existsSync, globSync } from "node:fs";
import { delimiter, join } from "node:path";
import { projectRoot } from "../config/config.ts";

/** What a function may ask for on every project, and finds unset here where nobody has set it. */
const everyProjectTells = [
  "SUPABASE_URL",
  "SUPABASE_ANON_KEY",
  "SUPABASE_SERVICE_ROLE_KEY",
  "SUPABASE_PUBLISHABLE_KEYS",
  "SUPABASE_SECRET_KEYS",
];

const functionsFolder = join(projectRoot, "supabase", "functions");

/** Deno's arguments to serve all functions with nothing allowed beyond what they need. */
export function denoArguments({
  host,
  port,
  told,
}: {
  readonly host: string;
  readonly port: number;
  readonly told: Readonly<Record<string, string>>;
}): string[] {
  const project = told.SUPABASE_URL ? [new URL(told.SUPABASE_URL).host] : [];
  const read = [functionsFolder, join(projectRoot, "src", "tracking")];
  return [
    "run",
    "--quiet",
    "--no-prompt",
    "--no-config",
    "--no-lock",
    `--allow-net=${[`${host}:${port}`, ...project].join(",")}`,
    `--allow-read=${read.join(",")}`,
    `--allow-env=${[...new Set([...everyProjectTells, ...Object.keys(told)])].join(",")}`,
    "--unstable-no-legacy-abort",
    join(functionsFolder, "_serve.ts"),
    host,
    String(port),
  ];
}

/** The Deno that npm brought, else one on the PATH. Not npm's shim, which would stand between it and our signals. */
export function findDeno(path = ""): string | undefined {
  const name = process.platform === "win32" ? "deno.exe" : "deno";
  const modules = join(projectRoot, "node_modules");
  const candidates = [
    join(modules, "deno", name),
    ...globSync(join(modules, "@deno", "*", name)),
    ...path.split(delimiter).map((folder) => join(folder, name)),
  ];
  return candidates.find((candidate) => existsSync(candidate));
}
