import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { userInfo } from "node:os";
import { delimiter, dirname, join, resolve } from "node:path";
import { type LoadedConfig, projectRoot } from "../config/config.ts";
import { type Variable, type VariableName, variables } from "../config/variables.ts";
import { type Exported, mark, type Surroundings } from "../export/exported.ts";
import { validateDefinitions } from "../process-manager/validate-definitions.ts";
import { fail } from "./failure.ts";
import { stationDefinitions } from "./station.ts";

/** What the definitions can be exported to. */
export type ExportTarget = "systemd" | "compose" | "kubernetes";

interface ExportOptions {
  /** For systemd: for the user's own manager, not the system's. */
  readonly user?: boolean;
  /** For systemd: a unit for each service, in place of the manager. */
  readonly each?: boolean;
  /** Folder to write to; made where absent. Without it, standard output. */
  readonly output?: string;
}

/**
 * `pugmark export`: the station's definitions as another supervisor's files. What could not be carried over is
 * listed on standard error. Writes no secret.
 */
export async function exportCommand(
  loaded: LoadedConfig,
  target: ExportTarget,
  options: ExportOptions,
  environment: NodeJS.ProcessEnv,
): Promise<number> {
  if (target !== "systemd" && (options.user || options.each))
    return fail(["--user and --each are for systemd alone"], 2);
  const exported = await exportTo(target, loaded, options, environment);
  const folder = options.output === undefined ? null : resolve(options.output);
  if (folder === null) process.stdout.write(asOneText(exported));
  else {
    const foreign = exported.files.map(({ name }) => join(folder, name)).filter(isForeign);
    if (foreign.length > 0)
      return fail(
        foreign.map((path) => `${path} is somebody else's: move it, or use another folder`),
        1,
      );
    writeAll(exported, folder);
  }
  for (const line of exported.left) console.error(`not carried over: ${line}`);
  return 0;
}

async function exportTo(
  target: ExportTarget,
  loaded: LoadedConfig,
  { user, each }: ExportOptions,
  environment: NodeJS.ProcessEnv,
): Promise<Exported> {
  const definitions = stationDefinitions(loaded.config);
  await validateDefinitions(definitions);
  const around: Surroundings = {
    project: "pugmark",
    node: process.execPath,
    nodeVersion: process.versions.node,
    root: projectRoot,
    home: loaded.config.PUGMARK_HOME,
    path: lastingPath(environment.PATH),
    timeZone: Intl.DateTimeFormat().resolvedOptions().timeZone,
  };
  if (target === "compose") {
    const { composeProject } = await import("../export/compose.ts");
    return composeProject(definitions, around);
  }
  if (target === "kubernetes") {
    const { kubernetesManifests } = await import("../export/kubernetes.ts");
    return kubernetesManifests(definitions, around);
  }
  const scope = user ? "user" : "system";
  if (each) {
    const { serviceUnits } = await import("../export/systemd-services.ts");
    return serviceUnits(definitions, around, scope);
  }
  const { managerUnit } = await import("../export/systemd-manager.ts");
  return managerUnit(definitions, around, {
    scope,
    command: [process.execPath, join(projectRoot, "src", "cli", "main.ts"), "up"],
    env: environmentOf(loaded, environment),
    user: userInfo().username,
  });
}

/** `.env` is read again by the manager itself; only what this shell alone knows has to go along. */
function environmentOf(
  { config, sources }: LoadedConfig,
  environment: NodeJS.ProcessEnv,
): Record<string, string> {
  const names = (Object.entries(variables) as [VariableName, Variable<unknown>][])
    .filter(([name, { internal }]) => sources[name] === "environment" && !internal)
    .map(([name]) => name);
  return {
    ...Object.fromEntries(names.map((name) => [name, environment[name] ?? ""])),
    PUGMARK_HOME: config.PUGMARK_HOME,
  };
}

/** Without the folders that npm puts before it for the time of a script. */
function lastingPath(path = "/usr/local/bin:/usr/bin:/bin"): string {
  const folders = path.split(delimiter).filter((folder) => folder && !folder.includes("node_modules"));
  return [...new Set([dirname(process.execPath), ...folders])].join(delimiter);
}

/** Several files one after the other, each under its name. */
function asOneText({ files }: Exported): string {
  if (files.length === 1) return files[0]?.text ?? "";
  return files.map(({ name, text }) => `# ==> ${name} <==\n${text}`).join("\n");
}

/** A file that is there and was not written by an export: people's own, which nobody gets back. */
function isForeign(path: string): boolean {
  return existsSync(path) && !readFileSync(path, "utf8").startsWith(mark);
}

function writeAll({ files }: Exported, folder: string): void {
  mkdirSync(folder, { recursive: true });
  for (const { name, text } of files) {
    writeFileSync(join(folder, name), text);
    console.error(`wrote ${join(folder, name)}`);
  }
}
