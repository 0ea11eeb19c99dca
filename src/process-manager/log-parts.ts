import { type FileHandle, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { indexPath } from "./log-index.ts";
import { systemCodeOf } from "./process-manager-error.ts";

/** One file of a log: `x.log`, or an older one, `x.log.1` …. */
export interface PartEntry {
  readonly path: string;
  /** 0 is the current one, a greater number an older one. */
  readonly age: number;
  /** Tells the file from others whatever it is called by now. */
  readonly inode: bigint;
  readonly size: number;
  readonly changedAtMs: number;
}

/** A part that is open for reading. It stays whole however often the log is turned meanwhile. */
export interface OpenPart {
  readonly inode: bigint;
  readonly file: FileHandle;
  /** Null where there is none. */
  readonly index: FileHandle | null;
}

/** The parts of a log that are there, the newest first. */
export async function listParts(path: string): Promise<PartEntry[]> {
  const prefix = `${basename(path)}.`;
  const names = await readdir(dirname(path)).catch(() => []);
  const ages = names.flatMap((name) => {
    if (name === basename(path)) return [0];
    const rest = name.startsWith(prefix) ? name.slice(prefix.length) : "";
    return /^[1-9]\d*$/.test(rest) ? [Number(rest)] : [];
  });
  const found = new Map<bigint, PartEntry>();
  // From the newest on, since files only ever move to a greater number: one may be seen twice, none is missed.
  for (const age of ages.sort((a, b) => a - b)) {
    const part = join(dirname(path), age === 0 ? basename(path) : `${prefix}${age}`);
    const status = await stat(part, { bigint: true }).catch(() => null);
    if (!status) continue;
    const { ino, size, mtimeMs } = status;
    found.set(ino, { path: part, age, inode: ino, size: Number(size), changedAtMs: Number(mtimeMs) });
  }
  return [...found.values()].sort((a, b) => a.age - b.age);
}

/** Makes room for a new current part: each of the others becomes one older, and so many older ones are kept. */
export async function turnParts(path: string, kept: number): Promise<void> {
  for (const part of (await listParts(path)).reverse()) {
    if (part.age >= kept) await removePart(part.path);
    else await movePart(part.path, `${path}.${part.age + 1}`);
  }
}

/** The part first, then its index: whoever finds an index beside a part finds that part's. */
export async function removePart(path: string): Promise<void> {
  await rm(path, { force: true });
  await rm(indexPath(path), { force: true });
}

async function movePart(from: string, to: string): Promise<void> {
  await rename(from, to);
  await rename(indexPath(from), indexPath(to)).catch(() => undefined); // it has none
}

/** Opens the part that `pick` chooses of those there; null when it chooses none. */
export async function openPart(
  path: string,
  pick: (parts: readonly PartEntry[]) => PartEntry | undefined,
): Promise<OpenPart | null> {
  for (;;) {
    const entry = pick(await listParts(path));
    if (!entry) return null;
    const file = await open(entry.path, "r").catch(unlessGone);
    const index = await open(indexPath(entry.path), "r").catch(() => null);
    // Turned in between, perhaps: a part moves before its index does, so where it still is, the index is its own.
    const now = await stat(entry.path, { bigint: true }).catch(() => null);
    const opened = await file?.stat({ bigint: true });
    if (file && opened?.ino === entry.inode && now?.ino === entry.inode)
      return { inode: entry.inode, file, index };
    await file?.close();
    await index?.close();
  }
}

/** The part that follows this one in time, or null when it is the newest. */
export async function openNewer(path: string, { inode, file }: OpenPart): Promise<OpenPart | null> {
  // Asked again and again by whoever follows: the usual answer is had with one look.
  if ((await stat(path, { bigint: true }).catch(() => null))?.ino === inode) return null;
  for (;;) {
    let isListed = true;
    const newer = await openPart(path, (parts) => {
      const place = parts.findIndex((part) => part.inode === inode);
      isListed = place >= 0;
      // Not there any more: it was the oldest once, and what follows it is the oldest now.
      return isListed ? parts[place - 1] : parts.at(-1);
    });
    if (isListed || (await file.stat()).nlink === 0) return newer;
    if (newer) await closePart(newer); // a folder that is read while its files are renamed may leave one out: look again
  }
}

/** The part before this one, or null when it is the oldest. */
export async function openOlder(path: string, inode: bigint): Promise<OpenPart | null> {
  return await openPart(path, (parts) => {
    const place = parts.findIndex((part) => part.inode === inode);
    return place < 0 ? undefined : parts[place + 1];
  });
}

export async function closePart(part: OpenPart): Promise<void> {
  await Promise.all([part.file.close(), part.index?.close()]);
}

/** It was moved since it was listed: look again. Anything else does not pass by looking again. */
function unlessGone(error: unknown): null {
  if (systemCodeOf(error) === "ENOENT") return null;
  throw error;
}
