import { accessSync, constants, statSync } from "node:fs";
import { delimiter, isAbsolute, join, resolve } from "node:path";

/**
 * The command to spawn for a service that is handed a socket: systemd's protocol wants the process's own pid in
 * `LISTEN_PID`, and nobody knows it before the fork, so a shell fills it in and becomes the program (about 1 ms).
 * Not where the environment has names that a shell would drop.
 */
export function withListenPid(
  command: readonly [string, ...string[]],
  env: Readonly<Record<string, string>>,
): readonly [string, ...string[]] {
  if (!Object.keys(env).every((name) => /^[A-Za-z_]\w*$/.test(name))) return command;
  return ["/bin/sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh", ...command];
}

/**
 * Throws `NotRunnable`, in words, where a program cannot be run. The system's own error is the same for a folder and a
 * program that are not there, and names the program for both; with a shell in between it would say nothing.
 */
export function assertRunnable(program: string, cwd: string, path: string | undefined): void {
  if (!statSync(cwd, { throwIfNoEntry: false })?.isDirectory())
    throw new NotRunnable(`its working directory ${cwd} is no folder; cwd says which`);
  const places = program.includes("/")
    ? [isAbsolute(program) ? program : resolve(cwd, program)]
    : (path ?? "/usr/bin:/bin").split(delimiter).map((folder) => join(resolve(cwd, folder), program));
  if (places.some(isProgram)) return;
  const isThere = places.some((place) => statSync(place, { throwIfNoEntry: false })?.isFile());
  if (isThere) throw new NotRunnable(`${program} may not be executed by this user (chmod +x?)`);
  const where = program.includes("/") ? "" : " in any folder of PATH";
  throw new NotRunnable(`there is no program ${program}${where}`);
}

/** There is no such program or folder, or no right to run it. */
export class NotRunnable extends Error {}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
