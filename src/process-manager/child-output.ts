import type { ChildProcess } from "node:child_process";
import { close } from "node:fs";
import { Socket } from "node:net";
import type { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { closePipe, type OutputPipe, type PipePool } from "./output-pipe.ts";
import { type BlockTaker, OutputReader } from "./output-reader.ts";
import type { ServiceLog } from "./service-log.ts";

const names = ["stdout", "stderr"] as const;

/** What one process prints, from before it is spawned until its last byte is in the log. */
export class ChildOutput {
  #taker: BlockTaker;
  readonly #pipes: readonly (OutputPipe | null)[];
  readonly #readers: OutputReader[] = [];
  readonly #sources: Readable[] = [];
  #ended: Promise<unknown> = Promise.resolve();

  private constructor(log: ServiceLog, pipes: readonly (OutputPipe | null)[]) {
    this.#taker = log;
    this.#pipes = pipes;
  }

  static async open(log: ServiceLog, pool: PipePool): Promise<ChildOutput> {
    return new ChildOutput(log, [await pool.take(), await pool.take()]);
  }

  /** For the spawn: what standard output and standard error are to be. */
  get stdio(): (number | "pipe")[] {
    return this.#pipes.map((pipe) => pipe?.writeFd ?? "pipe");
  }

  /** The process runs: what it prints goes to the log from now on. `onLines` sees each block first, and keeps none. */
  attach(child: ChildProcess, onLines?: (lines: Buffer) => void): void {
    if (onLines) this.#taker = withListener(this.#taker, onLines);
    this.#ended = Promise.all(
      names.map((name, index) => {
        const pipe = this.#pipes[index];
        if (pipe) return this.#readPipe(name, pipe);
        const source = child[name];
        return source && this.#readStream(name, source);
      }),
    );
  }

  /** There is no process after all. */
  discard(): void {
    for (const pipe of this.#pipes) if (pipe) closePipe(pipe);
  }

  /**
   * The process is gone: resolves when all that it printed was taken. Whoever it left behind may hold the pipes open
   * for ever, so that a pipe which brings nothing for this long is waited for no more.
   */
  async drain(graceMs: number): Promise<void> {
    const ended = this.#ended.then(() => true);
    const stop = new AbortController();
    const late = async (): Promise<boolean> =>
      await delay(graceMs, false, { signal: stop.signal }).catch(() => true);
    for (let read = this.#bytesRead(); !(await Promise.race([ended, late()])); read = this.#bytesRead()) {
      await new Promise(setImmediate); // what came while the manager itself was busy is read first
      // On a busy machine the last of it takes its time; a stream that waits for the disk still has some to bring.
      if (this.#bytesRead() === read && !this.#readers.some(({ isPaused }) => isPaused)) break;
    }
    stop.abort();
    for (const source of this.#sources) source.destroy();
    await this.#ended;
  }

  #bytesRead(): number {
    return this.#sources.reduce((sum, source) => sum + (source instanceof Socket ? source.bytesRead : 0), 0);
  }

  #readPipe(name: "stdout" | "stderr", { readFd, writeFd }: OutputPipe): Promise<void> {
    close(writeFd); // the process and its children have theirs: when the last is closed, the output has ended
    const reader = new OutputReader(name, this.#taker, () => socket.resume());
    const onread = { buffer: () => reader.room(), callback: (length: number) => reader.took(length) };
    const socket = new Socket({ fd: readFd, readable: true, writable: false, onread });
    const ended = this.#untilEnd(reader, socket);
    socket.resume();
    return ended;
  }

  /** Where there are no pipes: a copy more, and otherwise the same. */
  #readStream(name: "stdout" | "stderr", source: Readable): Promise<void> {
    let rest: Buffer = Buffer.alloc(0);
    const take = (chunk: Buffer): void => {
      rest = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
      while (rest.length > 0 && !reader.isPaused) {
        const length = rest.copy(reader.room());
        rest = rest.subarray(length);
        reader.took(length);
      }
      if (reader.isPaused) source.pause();
      else source.resume();
    };
    const reader = new OutputReader(name, this.#taker, () => take(Buffer.alloc(0)));
    source.on("data", take);
    return this.#untilEnd(reader, source);
  }

  #untilEnd(reader: OutputReader, source: Readable): Promise<void> {
    this.#readers.push(reader);
    this.#sources.push(source);
    return new Promise((resolve) => {
      source.on("error", () => undefined); // a pipe that breaks also closes
      source.on("close", () => {
        reader.flush();
        resolve();
      });
    });
  }
}

function withListener(taker: BlockTaker, onLines: (lines: Buffer) => void): BlockTaker {
  return {
    append: (bytes, source) => {
      onLines(bytes);
      taker.append(bytes, source);
    },
  };
}
