import { existsSync, globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { originOf } from "../config/address.ts";
import { type Config, projectRoot } from "../config/config.ts";
import { variables } from "../config/variables.ts";
import { defineService, type ServiceDefinition } from "../process-manager/definition.ts";
import { ProcessManagerError } from "../process-manager/process-manager-error.ts";

/** The Supabase CLI's own, for `pugmark functions serve`. */
export const functionsPortStandard = 54321;

/** What a function may ask for on every project, and finds unset here where nobody has set it. */
const everyProjectTells = [
  "SUPABASE_URL",
  "SUPABASE_ANON_KEY",
  "SUPABASE_SERVICE_ROLE_KEY",
  "SUPABASE_PUBLISHABLE_KEYS",
  "SUPABASE_SECRET_KEYS",
];

const functionsFolder = join(projectRoot, "supabase", "functions");

/** What functions are told beside the project's address and public key: the file that the Supabase CLI reads, too. */
const secretsFile = join(functionsFolder, ".env");

/**
 * The service that runs the functions of `supabase/functions` under Deno. It may listen, reach the project, read the
 * functions and what they import, and read the variables made for it: none of the station's own, of which it has no secret.
 * Throws `definition-invalid` where there is no Deno.
 */
export function edgeService(
  config: Pick<Config, "PUGMARK_HOME" | "SUPABASE_URL" | "SUPABASE_KEY">,
  { host, port }: { readonly host: string; readonly port: number },
): ServiceDefinition {
  const deno = findDeno();
  if (deno === undefined) {
    throw new ProcessManagerError(
      "definition-invalid",
      "functions run under Deno, and there is none: `npm install --no-save deno` brings it",
    );
  }
  const told = toldToFunctions(config);
  const base = originOf({ host, port });
  return defineService({
    name: "edge",
    description: "edge functions",
    command: [deno, ...denoArguments({ host, port, told })],
    cwd: projectRoot,
    env: {
      ...withoutSecrets,
      ...told,
      DENO_DIR: join(config.PUGMARK_HOME, "deno"),
      DENO_NO_UPDATE_CHECK: "1",
      NO_COLOR: "1",
    },
    listen: { host, port },
    portHint: "FUNCTIONS_PORT",
    readiness: { kind: "http", url: `${base}/livez`, periodMs: 5_000, timeoutMs: 3_000 },
    liveness: { kind: "http", url: `${base}/livez`, periodMs: 1_000, timeoutMs: 1_000, failureThreshold: 3 },
    // Not the secrets: they are read for the definition, and a restart would go on with those of before.
    watch: {
      paths: [functionsFolder, join(projectRoot, "src", "tracking")],
      ignore: ["**/*.test.ts", "**/.env"],
    },
    memoryMaxMiB: 512,
  });
}

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
  const reached = [originOf({ host, port }), told.SUPABASE_URL].filter((url) => url !== undefined);
  const read = [functionsFolder, join(projectRoot, "src", "tracking")];
  return [
    "run",
    "--quiet",
    "--no-prompt",
    "--no-config",
    "--no-lock",
    `--allow-net=${reached.map((url) => new URL(url).host).join(",")}`,
    `--allow-read=${read.join(",")}`,
    `--allow-env=${[...new Set([...everyProjectTells, ...Object.keys(told)])].join(",")}`,
    "--unstable-no-legacy-abort",
    join(functionsFolder, "_serve.ts"),
    host,
    String(port),
  ];
}

/** The Deno that npm brought; not npm's shim, which would stand between it and our signals. */
export function findDeno(): string | undefined {
  const name = process.platform === "win32" ? "deno.exe" : "deno";
  const modules = join(projectRoot, "node_modules");
  const candidates = [join(modules, "deno", name), ...globSync(join(modules, "@deno", "*", name))];
  return candidates.find((candidate) => existsSync(candidate));
}

/** The service-role key is not among it: whoever wants functions to have one writes it into their file. */
function toldToFunctions({
  SUPABASE_URL: url,
  SUPABASE_KEY: key,
}: Pick<Config, "SUPABASE_URL" | "SUPABASE_KEY">): Record<string, string> {
  const written = existsSync(secretsFile) ? parseEnv(readFileSync(secretsFile, "utf8")) : {};
  const keys = key && { SUPABASE_ANON_KEY: key, SUPABASE_PUBLISHABLE_KEYS: JSON.stringify({ default: key }) };
  return { ...(url ? { SUPABASE_URL: url } : {}), ...keys, ...(written as Record<string, string>) };
}

/** Hides what the manager's own environment may have of it. */
const withoutSecrets = Object.fromEntries(
  Object.entries(variables).flatMap(([name, variable]) => ("secret" in variable ? [[name, ""]] : [])),
);
