import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { styleText } from "node:util";
import { originOf } from "../config/address.ts";
import { type Config, projectRoot } from "../config/config.ts";
import { edgeService, functionsPortStandard } from "./edge.ts";
import { fail } from "./failure.ts";
import { up } from "./up.ts";

/**
 * `pugmark functions serve`: runs the functions on this machine, alone, until a signal. Exit code as `pugmark up`. A station
 * serves them beside everything else where `FUNCTIONS_PORT` is set.
 */
export async function serveFunctions(
  config: Config,
  environment: NodeJS.ProcessEnv,
  port: number | undefined,
): Promise<number> {
  const address = { host: config.HOST, port: port ?? config.FUNCTIONS_PORT ?? functionsPortStandard };
  const home = join(config.PUGMARK_HOME, "functions");
  const load = async () => ({
    definitions: [edgeService(config, address)],
    welcome: () => ["", `Functions are at ${originOf(address)}/functions/v1/NAME`, ""],
  });
  return up({ home, load, environment }, { names: [] });
}

/** Which functions go where. */
export interface Deployment {
  /** Folders of `supabase/functions`; all where there are none. */
  readonly names: readonly string[];
  /** Of the project; else the one that SUPABASE_URL says. */
  readonly projectRef?: string | undefined;
}

/**
 * `pugmark functions deploy`: has the Supabase CLI bring functions to the project, after showing how. Gives its exit code; 2
 * where there is nothing to ask it, 127 where it is not installed.
 */
export async function deployFunctions(
  { SUPABASE_URL: url }: Pick<Config, "SUPABASE_URL">,
  environment: NodeJS.ProcessEnv,
  { names, projectRef }: Deployment,
): Promise<number> {
  const ref = projectRef ?? refOf(url);
  if (ref === undefined)
    return fail(["which project? set SUPABASE_URL to https://REF.supabase.co, or add --project-ref REF"], 2);
  const missing = names.find(
    (name) => !existsSync(join(projectRoot, "supabase", "functions", name, "index.ts")),
  );
  if (missing !== undefined) return fail([`there is no function supabase/functions/${missing}`], 2);
  const cli = supabaseCli(environment.PATH);
  if (cli === undefined) {
    const remedy = "`npm install --no-save supabase` brings it, or see https://supabase.com/docs/guides/cli";
    return fail([`the Supabase CLI deploys functions, and it is not installed: ${remedy}`], 127);
  }
  // Packed up by the project, not here, where that would need Docker.
  const args = ["functions", "deploy", ...names, "--use-api", "--project-ref", ref];
  console.error(styleText("dim", `$ supabase ${args.join(" ")}`, { stream: process.stderr }));
  const [program = "", ...first] = cli;
  const child = spawn(program, [...first, ...args], {
    cwd: projectRoot,
    // It does its work with the token of whoever has logged in.
    env: { ...environment, SUPABASE_SERVICE_ROLE: "" },
    stdio: ["inherit", "inherit", "pipe"],
  });
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said = (said + text).slice(-4_000);
    process.stderr.write(text);
  });
  const [code] = (await once(child, "close")) as [number | null];
  if (code === 0) return 0;
  if (/access token not provided|supabase login/i.test(said))
    return fail(
      ["log in first: `npx supabase login`, or SUPABASE_ACCESS_TOKEN in the environment"],
      code ?? 1,
    );
  return fail([`the Supabase CLI has failed (${code ?? "by a signal"}); its words are above`], code ?? 1);
}

/** The name by which Supabase knows a project that it hosts. */
function refOf(url: string | undefined): string | undefined {
  return /^https:\/\/([a-z]{20})\.supabase\.(co|in|net)\/?$/.exec(url ?? "")?.[1];
}

/** How to run the CLI that npm brought, else one on the PATH. */
function supabaseCli(path = ""): string[] | undefined {
  const ours = join(projectRoot, "node_modules", "supabase", "dist", "supabase.js");
  if (existsSync(ours)) return [process.execPath, ours];
  const name = process.platform === "win32" ? "supabase.exe" : "supabase";
  const found = path
    .split(delimiter)
    .filter(Boolean)
    .map((folder) => join(folder, name))
    .find((candidate) => existsSync(candidate));
  return found === undefined ? undefined : [found];
}
