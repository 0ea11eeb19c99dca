import { createHash } from "node:crypto";
import { once } from "node:events";
import { closeSync, constants, openSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { join, resolve } from "node:path";

/** Room in `sockaddr_un` is 108 bytes on Linux and 104 on macOS. */
const pathBytesMax = 100;

/**
 * Shows to all who see the folder that this process lives, until disposed of or dead: it listens on the socket
 * `<name>.sock`. The kernel takes that away with the process, however it ends; a process id would be given to
 * another one some day, and means nothing in a container beside this one.
 */
export async function showLife(folder: string, name: string): Promise<AsyncDisposable> {
  const server = createServer((socket) => socket.destroy());
  server.unref();
  // Bound but not listening yet, it would be taken for dead: it gets its name when it answers.
  const unnamed = `${name}.new`;
  {
    using address = addressOf(folder, process.platform === "win32" ? `${name}.sock` : unnamed);
    server.listen(address.path);
    await once(server, "listening");
  }
  if (process.platform !== "win32") await rename(join(folder, unnamed), join(folder, `${name}.sock`));
  return {
    async [Symbol.asyncDispose]() {
      server.close();
      await once(server, "close");
      await forgetLife(folder, name);
    },
  };
}

/** Whether the process that showed life by this name still does. In doubt it does. */
export async function isAlive(folder: string, name: string): Promise<boolean> {
  using address = addressOf(folder, `${name}.sock`);
  const socket = connect(address.path);
  try {
    await once(socket, "connect");
    return true;
  } catch (error) {
    return !["ENOENT", "ECONNREFUSED"].includes(String((error as NodeJS.ErrnoException).code));
  } finally {
    socket.destroy();
  }
}

/** Removes what a dead process left of its sign. */
export async function forgetLife(folder: string, name: string): Promise<void> {
  if (process.platform !== "win32") await rm(join(folder, `${name}.sock`), { force: true });
}

interface Address extends Disposable {
  readonly path: string;
}

/** On Linux a path that is too long for a socket is reached through an open descriptor of its folder. */
function addressOf(folder: string, file: string): Address {
  const path = join(resolve(folder), file);
  const nothing = () => undefined;
  if (process.platform === "win32") {
    const id = createHash("sha256").update(path.toLowerCase()).digest("hex").slice(0, 32);
    return { path: `\\\\.\\pipe\\pugmark-journal-${id}`, [Symbol.dispose]: nothing };
  }
  if (Buffer.byteLength(path) <= pathBytesMax) return { path, [Symbol.dispose]: nothing };
  if (process.platform !== "linux")
    throw new Error(`${path} is too long for a socket: choose a shorter home`);
  const opened = openSync(resolve(folder), constants.O_RDONLY | constants.O_DIRECTORY);
  return { path: `/proc/self/fd/${opened}/${file}`, [Symbol.dispose]: () => closeSync(opened) };
}
