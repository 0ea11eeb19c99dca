import { closeSync, constants, openSync } from "node:fs";
import { join, resolve } from "node:path";
import { ProcessManagerError } from "./process-manager-error.ts";

/** Room in `sockaddr_un` is 108 bytes on Linux and 104 on macOS. */
const pathBytesMax = 100;

/** The path of a home's control socket; a named pipe on Windows. */
export function controlSocketPath(home: string): string {
  if (process.platform !== "win32") return join(resolve(home), "control.sock");
  const { createHash } = process.getBuiltinModule("node:crypto");
  const id = createHash("sha256").update(resolve(home).toLowerCase()).digest("hex").slice(0, 16);
  return `\\\\.\\pipe\\process-manager-${id}`;
}

/** A path to bind or connect to, and what keeps it valid. */
export interface SocketAddress extends Disposable {
  readonly path: string;
}

/**
 * The address of the control socket, however long the home's path is: on Linux a long one is reached through an
 * open descriptor of its folder. Elsewhere a long path throws `home-unusable`. Dispose after bind or connect.
 */
export function openSocketAddress(home: string): SocketAddress {
  const path = controlSocketPath(home);
  if (Buffer.byteLength(path) <= pathBytesMax || process.platform === "win32")
    return { path, [Symbol.dispose]: () => undefined };
  if (process.platform !== "linux")
    throw new ProcessManagerError("home-unusable", `${path} is too long for a socket: choose a shorter home`);
  const folder = openSync(resolve(home), constants.O_RDONLY | constants.O_DIRECTORY);
  return { path: `/proc/self/fd/${folder}/control.sock`, [Symbol.dispose]: () => closeSync(folder) };
}
