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

/** Throws what the system would say of a program that cannot be run: with a shell in between it would not tell us. */
export function assertRunnable(program: string, cwd: string, path: string | undefined): void {
  const places = program.includes("/")
    ? [isAbsolute(program) ? program : resolve(cwd, program)]
    : (path ?? "/usr/bin:/bin").split(delimiter).map((folder) => join(resolve(cwd, folder), program));
  if (!places.some(isProgram)) throw new Error(`spawn ${program} ENOENT`);
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
