import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, constants, fchmodSync, openSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";

/** A pipe of the kernel's: what is written to one descriptor is read from the other. Whoever takes it closes both. */
export interface OutputPipe {
  readonly readFd: number;
  readonly writeFd: number;
}

/** After a failure there are socket pairs for this long: what failed may be over by then, as a full disk may. */
const pauseAfterFailureMs = 60_000;

/**
 * Pipes for what children print, some always at hand so that a restart does not wait for one. Node itself gives
 * children socket pairs, which a child cannot open as `/dev/stdout` and which carry a flood at half the speed.
 */
export class PipePool {
  readonly #folder: string;
  readonly #size: number;
  readonly #pauseMs: number;
  #pipes: OutputPipe[] = [];
  #filling: Promise<boolean> | null = null;
  #notBefore = process.platform === "win32" ? Number.POSITIVE_INFINITY : 0;
  #isClosed = false;

  /** The folder is made and removed as needed; a file system that it cannot be in only means socket pairs. */
  constructor(folder: string, size: number, pauseMs = pauseAfterFailureMs) {
    this.#folder = folder;
    this.#size = size;
    this.#pauseMs = pauseMs;
    this.#fill();
  }

  /** A pipe, or null where there are none now. */
  async take(): Promise<OutputPipe | null> {
    while (this.#pipes.length === 0 && (await this.#fill())) {
      // Others who waited for the same pipes may have taken them all.
    }
    const pipe = this.#pipes.pop() ?? null;
    if (this.#pipes.length < this.#size / 2) void this.#fill();
    return pipe;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#filling;
    for (const pipe of this.#pipes.splice(0)) closePipe(pipe);
  }

  /** Whether there are new ones. */
  #fill(): Promise<boolean> {
    if (this.#isClosed || performance.now() < this.#notBefore) return Promise.resolve(false);
    this.#filling ??= makePipes(this.#folder, this.#size)
      .then(
        (pipes) => this.#pipes.push(...pipes) > 0,
        () => {
          this.#notBefore = performance.now() + this.#pauseMs;
          return false;
        },
      )
      .finally(() => {
        this.#filling = null;
      });
    return this.#filling;
  }
}

/** Closes both ends. */
export function closePipe({ readFd, writeFd }: OutputPipe): void {
  closeSync(readFd);
  closeSync(writeFd);
}

/** Node cannot make pipes, only open them: each has a name for as long as that takes. */
async function makePipes(folder: string, count: number): Promise<OutputPipe[]> {
  const pipes: OutputPipe[] = [];
  try {
    await rm(folder, { recursive: true, force: true }); // of a manager that was killed just here
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const paths = Array.from({ length: count }, (_, index) => join(folder, String(index)));
    const mkfifo = spawn("mkfifo", ["-m", "600", ...paths], { stdio: "ignore" });
    const [code] = await once(mkfifo, "exit");
    if (code !== 0) throw new Error(`mkfifo exited with code ${code}`);
    // What has no file behind it is opened at once; a trip to the thread pool for each would hold up the first start.
    for (const path of paths) pipes.push(openPipe(path));
    return pipes;
  } catch (error) {
    for (const pipe of pipes) closePipe(pipe);
    throw error;
  } finally {
    await rm(folder, { recursive: true, force: true }).catch(() => undefined);
  }
}

function openPipe(path: string): OutputPipe {
  // The reading end first, and without waiting for a writer: the writing end then need not wait for a reader.
  const readFd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const writeFd = openSync(path, constants.O_WRONLY);
    // A child that runs as another user may open its own /dev/stdout; nobody else finds a pipe without a name.
    fchmodSync(writeFd, 0o622);
    return { readFd, writeFd };
  } catch (error) {
    closeSync(readFd);
    throw error;
  }
}
