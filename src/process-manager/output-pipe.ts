import { execFile } from "node:child_process";
import { close, constants, fchmod, open } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const openFile = promisify(open);
const closeFile = promisify(close);
const changeMode = promisify(fchmod);

/** A pipe of the kernel's: what is written to one descriptor is read from the other. Whoever takes it closes both. */
export interface OutputPipe {
  readonly readFd: number;
  readonly writeFd: number;
}

/**
 * Pipes for what children print, some always at hand so that a restart does not wait for one. Node itself gives
 * children socket pairs, which a child cannot open as `/dev/stdout` and which carry a flood at half the speed.
 */
export class PipePool {
  readonly #folder: string;
  readonly #size: number;
  #pipes: OutputPipe[] = [];
  #filling: Promise<void> | null = null;
  #isImpossible = process.platform === "win32";
  #isClosed = false;

  /** The folder is made and removed as needed; a file system that it cannot be in only means socket pairs. */
  constructor(folder: string, size: number) {
    this.#folder = folder;
    this.#size = size;
    this.#fill();
  }

  /** A pipe, or null where there are none. */
  async take(): Promise<OutputPipe | null> {
    while (this.#pipes.length === 0 && !this.#isImpossible && !this.#isClosed) await this.#fill();
    const pipe = this.#pipes.pop() ?? null;
    if (this.#pipes.length < this.#size / 2) void this.#fill();
    return pipe;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#filling;
    await Promise.all(this.#pipes.splice(0).map(closePipe));
  }

  #fill(): Promise<void> {
    if (this.#isImpossible || this.#isClosed) return Promise.resolve();
    this.#filling ??= makePipes(this.#folder, this.#size)
      .then(
        (pipes) => void this.#pipes.push(...pipes),
        () => {
          this.#isImpossible = true;
        },
      )
      .finally(() => {
        this.#filling = null;
      });
    return this.#filling;
  }
}

/** Closes both ends. */
export async function closePipe({ readFd, writeFd }: OutputPipe): Promise<void> {
  await Promise.all([closeFile(readFd), closeFile(writeFd)]);
}

/** Node cannot make pipes, only open them: each has a name for as long as that takes. */
async function makePipes(folder: string, count: number): Promise<OutputPipe[]> {
  const pipes: OutputPipe[] = [];
  try {
    await rm(folder, { recursive: true, force: true }); // of a manager that was killed just here
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const paths = Array.from({ length: count }, (_, index) => join(folder, String(index)));
    await run("mkfifo", ["-m", "600", ...paths]);
    for (const path of paths) pipes.push(await openPipe(path));
    return pipes;
  } catch (error) {
    await Promise.all(pipes.map(closePipe));
    throw error;
  } finally {
    await rm(folder, { recursive: true, force: true }).catch(() => undefined);
  }
}

async function openPipe(path: string): Promise<OutputPipe> {
  // The reading end first, and without waiting for a writer: the writing end then need not wait for a reader.
  const readFd = await openFile(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const writeFd = await openFile(path, constants.O_WRONLY);
    // A child that runs as another user may open its own /dev/stdout; nobody else finds a pipe without a name.
    await changeMode(writeFd, 0o622);
    return { readFd, writeFd };
  } catch (error) {
    await closeFile(readFd);
    throw error;
  }
}
