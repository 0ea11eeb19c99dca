import { link, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { messageOf, ProcessManagerError, systemCodeOf } from "./process-manager-error.ts";
import { processIdentity } from "./processes.ts";
import { randomId } from "./random-id.ts";

/** Who holds a home: the content of `manager.json`. */
export interface Holder {
  readonly pid: number;
  /** Tells the process from a later one with the same pid. */
  readonly startTime: string;
  /** Random; every child carries it in its environment as `PROCESS_MANAGER_MARK`. */
  readonly mark: string;
  readonly since: string;
  readonly command: string;
}

/**
 * The right to manage a home, held by one process at a time.
 *
 * `lock/N` is created by link(2), which one of several can do, and N only grows: a holder that died or let
 * go is followed by N + 1, its file never replaced, so nobody can take away a lock that was taken meanwhile. Whoever
 * finds a higher number than its own after creating it has lost.
 */
export class HomeLock {
  readonly holder: Holder;
  /** Marks of holders that died without letting go, whose children may be left. */
  readonly staleMarks: readonly string[];
  readonly #home: string;
  readonly #generation: number;

  private constructor(home: string, generation: number, holder: Holder, staleMarks: readonly string[]) {
    this.#home = home;
    this.#generation = generation;
    this.holder = holder;
    this.staleMarks = staleMarks;
  }

  /** Takes the home, or throws `home-held` naming the pid that has it and since when. */
  static async take(home: string, command: string): Promise<HomeLock> {
    await mkdir(join(home, "lock"), { recursive: true, mode: 0o700 }).catch((error: unknown) => {
      throw unusable(home, error);
    });
    const holder: Holder = {
      pid: process.pid,
      startTime: await processIdentity(process.pid),
      mark: randomId(16),
      since: new Date().toISOString(),
      command,
    };
    for (;;) {
      const generations = await listGenerations(home);
      const last = generations.at(-1) ?? 0;
      const previous = await readHolder(lockPath(home, last));
      if (previous && (await isAlive(previous))) throw held(home, previous);
      if (!(await create(home, last + 1, holder))) continue;
      const now = await listGenerations(home);
      if (now.at(-1) !== last + 1) {
        await rm(lockPath(home, last + 1), { force: true });
        continue;
      }
      const staleMarks = await staleMarksOf(home, generations);
      const lock = new HomeLock(home, last + 1, holder, staleMarks);
      try {
        await replaceFile(join(home, "manager.json"), holder);
      } catch (error) {
        await rm(lockPath(home, last + 1), { force: true }); // nothing was done with it yet
        throw unusable(home, error);
      }
      return lock;
    }
  }

  /** To be called once what the dead holders left behind is gone: forgets them. */
  async forgetStale(): Promise<void> {
    const older = (await listGenerations(this.#home)).filter((generation) => generation < this.#generation);
    for (const generation of older) await rm(lockPath(this.#home, generation), { force: true });
  }

  /** Lets go. The file stays, marked so: the numbers must go on growing. */
  async release(): Promise<void> {
    await rm(join(this.#home, "manager.json"), { force: true });
    await replaceFile(lockPath(this.#home, this.#generation), { released: true });
  }
}

/** Who holds the home now, or null. */
export async function currentHolder(home: string): Promise<Holder | null> {
  const holder = await readHolder(join(home, "manager.json"));
  return holder && (await isAlive(holder)) ? holder : null;
}

function lockPath(home: string, generation: number): string {
  return join(home, "lock", String(generation));
}

async function listGenerations(home: string): Promise<number[]> {
  const names = await readdir(join(home, "lock"));
  const numbers = names.filter((name) => /^\d+$/.test(name)).map(Number);
  return numbers.sort((a, b) => a - b);
}

async function readHolder(path: string): Promise<Holder | null> {
  const value = await readJson(path);
  const { pid, startTime, mark, since = "", command = "" } = value;
  if (!Number.isInteger(pid) || pid === undefined || startTime === undefined || mark === undefined)
    return null;
  return { pid, startTime, mark, since, command };
}

async function readJson(path: string): Promise<Partial<Holder>> {
  try {
    return JSON.parse(await readFile(path, "utf8"));
  } catch {
    return {}; // none, or emptied by a crash of the machine: nobody runs who wrote it
  }
}

async function isAlive({ pid, startTime }: Holder): Promise<boolean> {
  const identity = await processIdentity(pid);
  return identity !== "" && identity === startTime;
}

function held(home: string, { pid, since }: Holder): ProcessManagerError {
  return new ProcessManagerError("home-held", `${home} is managed by pid ${pid} since ${since}`);
}

function unusable(home: string, cause: unknown): ProcessManagerError {
  const isClosed = ["EACCES", "EPERM"].includes(systemCodeOf(cause));
  const advice = isClosed ? "; is it another user's? Each needs a home of their own" : "";
  const message = `${home} cannot be locked: ${messageOf(cause)}${advice}`;
  return new ProcessManagerError("home-unusable", message, { cause });
}

async function create(home: string, generation: number, holder: Holder): Promise<boolean> {
  const temporary = join(home, "lock", `.${holder.mark}`);
  try {
    await writeFile(temporary, JSON.stringify(holder), { mode: 0o600 });
    // Written first and linked then: nobody ever reads half a lock.
    await link(temporary, lockPath(home, generation));
    return true;
  } catch (error) {
    if (systemCodeOf(error) === "EEXIST") return false;
    throw unusable(home, error);
  } finally {
    await rm(temporary, { force: true });
  }
}

async function staleMarksOf(home: string, generations: readonly number[]): Promise<string[]> {
  const holders = await Promise.all(generations.map((generation) => readHolder(lockPath(home, generation))));
  return holders.flatMap((holder) => (holder ? [holder.mark] : []));
}

async function replaceFile(path: string, content: object): Promise<void> {
  const temporary = `${path}.${process.pid}.new`;
  await writeFile(temporary, JSON.stringify(content), { mode: 0o600 });
  await rename(temporary, path);
}
