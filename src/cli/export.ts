import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { userInfo } from "node:os";
import { basename, delimiter, dirname, join, resolve } from "node:path";
import { loadConfig, projectRoot } from "../config/config.ts";
import { type Variable, type VariableName, variables } from "../config/variables.ts";
import { type Exported, mark, type Surroundings } from "../export/exported.ts";
import { validateDefinitions } from "../process-manager/validate-definitions.ts";
import { fail } from "./failure.ts";
import type { Place } from "./place.ts";
import { whatRuns } from "./what-runs.ts";

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
 * `pugmark export`: the definitions of a station or a services file as another supervisor's files. What could not be carried over is
 * listed on standard error. Writes no secret.
 */
export async function exportCommand(
  place: Place,
  target: ExportTarget,
  options: ExportOptions,
  environment: NodeJS.ProcessEnv,
): Promise<number> {
  if (target !== "systemd" && (options.user || options.each))
    return fail(["--user and --each are for systemd alone"], 2);
  const exported = await exportTo(target, place, options, environment);
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
  place: Place,
  { user, each }: ExportOptions,
  environment: NodeJS.ProcessEnv,
): Promise<Exported> {
  const { PUGMARK_HOME: home, file } = place;
  const { definitions } = await (await whatRuns(place, environment)).load();
  await validateDefinitions(definitions);
  const root = file === null ? projectRoot : dirname(file);
  const around: Surroundings = {
    project: file === null ? "pugmark" : projectName(root),
    node: process.execPath,
    nodeVersion: process.versions.node,
    root,
    home,
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
    command: [
      process.execPath,
      join(projectRoot, "bin", "main.mjs"),
      "up",
      ...(file === null ? [] : ["-f", file]),
    ],
    env: { ...(file === null ? settingsOf(environment) : {}), PUGMARK_HOME: home },
    user: userInfo().username,
  });
}

/** The folder's name as units and objects may be called: lower case, digits and dashes. */
function projectName(folder: string): string {
  const name = basename(folder)
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .replaceAll(/^[^a-z]+|-$/g, "");
  return name || "services";
}

/** `.env` is read again by the manager itself; only what this shell alone knows has to go along. */
function settingsOf(environment: NodeJS.ProcessEnv): Record<string, string> {
  const { sources } = loadConfig(environment);
  const names = (Object.entries(variables) as [VariableName, Variable<unknown>][])
    .filter(([name, { internal }]) => sources[name] === "environment" && !internal)
    .map(([name]) => name);
  return Object.fromEntries(names.map((name) => [name, environment[name] ?? ""]));
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
