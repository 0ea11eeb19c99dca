import { accessSync, constants, createWriteStream, statSync } from "node:fs";
import { realpath, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { pipeline } from "node:stream/promises";
import { isUnread } from "./leaving.ts";

/**
 * Writes what comes to a path, which then has all of it, or is as it was. `-` is standard output; what is no file, such as
 * `/dev/null` and named pipes, gets it as it comes. Throws what `bytes` throws, and the errors of the file system.
 */
export async function writeWhole(
  bytes: AsyncIterable<Uint8Array>,
  path: string,
  { mode = 0o666 }: { readonly mode?: number } = {},
): Promise<void> {
  if (isStandardOutput(path)) return pipeline(bytes, process.stdout, { end: false }).catch(unlessUnread);
  if (!isFileOrFree(path)) return pipeline(bytes, createWriteStream(path)).catch(unlessUnread);
  // A link stays one: what it leads to is replaced.
  const target = await realpath(path).catch(() => path);
  const part = `${target}.part`;
  try {
    await pipeline(bytes, createWriteStream(part, { mode }));
    await rename(part, target);
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
}

/** Why nothing can be written to a path, and what to do; undefined where it can. */
export function whyUnwritable(path: string): string | undefined {
  if (isStandardOutput(path)) return undefined;
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    return `${path} is a folder: name a file in it`;
  }
  // A file is written beside its place, and then put there.
  const written = isFileOrFree(path) ? `${dirname(path)}/.` : path;
  try {
    accessSync(written, constants.W_OK);
    return undefined;
  } catch {
    return `${path} cannot be written: make the folder, or name another`;
  }
}

/** Removes the file at a path, if it is one. */
export async function removeFile(path: string): Promise<void> {
  if (!isStandardOutput(path) && isFileOrFree(path)) await rm(path, { force: true });
}

/** Also by the name that shells and containers give it, which may not be opened a second time. */
export function isStandardOutput(path: string): boolean {
  return path === "-" || path === "/dev/stdout";
}

/** Whether a file is, or can come to be, at a path: no device, no pipe. */
export function isFileOrFree(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? true;
}

function unlessUnread(error: Error): void {
  if (!isUnread(error)) throw error;
}
