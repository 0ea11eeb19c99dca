import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { messageOf } from "./process-manager-error.ts";

const newline = 0x0a;
const tailBytesMax = 1024 * 1024;

/** When a log turns to a new file, and how many there are. */
export interface RotationPolicy {
  /** Default 10 MiB. */
  readonly maxBytes: number;
  /** Old ones, kept beside the current one. Default 5. */
  readonly files: number;
}

export const defaultRotation: RotationPolicy = { maxBytes: 10 * 1024 * 1024, files: 5 };

/** Where bytes come from. Two blocks of one source may make up a line; those of two never do. */
export interface LogSource {
  /** Told when these bytes are in the file, or lost: their memory is free again. */
  release?(bytes: Buffer): void;
}

interface Block {
  readonly bytes: Buffer;
  readonly source: LogSource;
}

type Work = Block | { readonly task: () => Promise<void> };

/** The end that a line is given which its own process left open. */
const lineEnd: Block = { bytes: Buffer.from("\n"), source: {} };

/**
 * A file that is appended to in order and turned by size: `x.log`, then `x.log.1` …, cut only between lines. Blocks
 * wait in their source's memory while the disk is busy, and it is the source that bounds it. What a full disk will
 * not take is lost and counted, and a line in the log says so once there is room again.
 */
export class LogFile {
  readonly path: string;
  readonly #rotation: RotationPolicy;
  #file: FileHandle | null = null;
  #size = 0;
  #waiting: Work[] = [];
  #pumping: Promise<void> | null = null;
  #lostBytes = 0;
  #lostWhy = "";
  #lastSource: LogSource | null = null;
  /** Whether what was taken last, and what is in the file by now, end in the middle of a line. */
  #isLineOpen = false;
  #isFileLineOpen = false;

  constructor(path: string, rotation: RotationPolicy = defaultRotation) {
    this.path = path;
    this.#rotation = rotation;
  }

  /** Takes a block of whole lines, or a piece of a very long one, in order; it stays as it is until released. */
  append(bytes: Buffer, source: LogSource): void {
    if (bytes.length === 0) return;
    // A process that ended in the middle of a line must not have the next one's first line glued to it.
    if (this.#isLineOpen && source !== this.#lastSource) this.#push(lineEnd);
    this.#lastSource = source;
    this.#isLineOpen = bytes.at(-1) !== newline;
    this.#push(this.#continued(bytes, source) ?? { bytes, source });
  }

  /** Resolves when all that was appended so far is in the file, or lost to an error of the disk. */
  flushed(): Promise<void> {
    return new Promise((resolve) => this.#push({ task: async () => resolve() }));
  }

  /** The last lines as of now: what is appended later is not in them. Looks back 1 MiB into two files at most. */
  tail(lines: number): Promise<string[]> {
    return new Promise((resolve, reject) =>
      this.#push({ task: async () => await this.#readTail(lines).then(resolve, reject) }),
    );
  }

  async close(): Promise<void> {
    await this.#pumping;
    await this.#file?.close();
    this.#file = null;
  }

  /** A flood brings neighbours in memory: they are written as one. */
  #continued(bytes: Buffer, source: LogSource): Block | null {
    const last = this.#waiting.at(-1);
    if (!last || "task" in last || last.source !== source) return null;
    const { buffer, byteOffset, length } = last.bytes;
    if (buffer !== bytes.buffer || byteOffset + length !== bytes.byteOffset) return null;
    this.#waiting.pop();
    return { bytes: Buffer.from(buffer, byteOffset, length + bytes.length), source };
  }

  #push(work: Work): void {
    this.#waiting.push(work);
    this.#pumping ??= this.#pump();
  }

  async #pump(): Promise<void> {
    // Let the rest of this turn's chunks come in: one write for many.
    await new Promise(setImmediate);
    while (this.#waiting.length > 0) {
      const batch = this.#waiting;
      this.#waiting = [];
      let blocks: Block[] = [];
      for (const work of batch) {
        if ("bytes" in work) {
          blocks.push(work);
          continue;
        }
        await this.#store(blocks);
        blocks = [];
        await work.task();
      }
      await this.#store(blocks);
    }
    // In the same turn as the last look: work that is pushed from now on starts another pump.
    this.#pumping = null;
  }

  async #store(blocks: readonly Block[]): Promise<void> {
    if (blocks.length === 0) return;
    let missingBytes = totalBytes(blocks);
    try {
      await this.#openFile();
      await this.#sayWhatWasLost();
      for (let rest = blocks; rest.length > 0; ) {
        const room = this.#roomFor(rest);
        if (room === 0) await this.#rotate();
        const { bytesWritten } = await this.#write(takeBytes(rest, room));
        missingBytes -= bytesWritten;
        rest = dropBytes(rest, bytesWritten);
      }
    } catch (error) {
      this.#lostBytes += missingBytes;
      this.#lostWhy = messageOf(error);
    } finally {
      for (const { bytes, source } of blocks) source.release?.(bytes);
    }
  }

  /** How many of the bytes go into the current file; 0 when it is to be turned first. */
  #roomFor(blocks: readonly Block[]): number {
    let fitting = 0;
    let isLineOpen = this.#isFileLineOpen;
    for (const { bytes } of blocks) {
      const size = this.#size + fitting;
      const room = this.#rotation.maxBytes - size;
      if (bytes.length > room) {
        const whole = room > 0 ? bytes.lastIndexOf(newline, room - 1) + 1 : 0;
        if (whole > 0 || (size > 0 && !isLineOpen)) return fitting + whole;
        // One line longer than a file may be: it stays whole all the same.
        const end = bytes.indexOf(newline) + 1;
        if (end > 0) return fitting + end;
      }
      fitting += bytes.length;
      isLineOpen = bytes.at(-1) !== newline;
    }
    return fitting;
  }

  async #write(blocks: readonly Block[]): Promise<{ bytesWritten: number }> {
    if (!this.#file || blocks.length === 0) return { bytesWritten: 0 };
    const { bytesWritten } = await this.#file.writev(blocks.map(({ bytes }) => bytes));
    this.#size += bytesWritten;
    this.#isFileLineOpen = takeBytes(blocks, bytesWritten).at(-1)?.bytes.at(-1) !== newline;
    return { bytesWritten };
  }

  async #sayWhatWasLost(): Promise<void> {
    if (this.#lostBytes === 0) return;
    const notice = `[process-manager] ${this.#lostBytes} bytes of this log were lost: ${this.#lostWhy}\n`;
    if (this.#isFileLineOpen) await this.#write([lineEnd]);
    await this.#write([{ bytes: Buffer.from(notice), source: {} }]);
    this.#lostBytes = 0;
  }

  async #openFile(): Promise<void> {
    if (this.#file && (await this.#file.stat()).nlink > 0) return;
    await this.#file?.close(); // somebody deleted it: what we write would be nowhere
    this.#file = null;
    this.#isFileLineOpen = false;
    await mkdir(dirname(this.path), { recursive: true, mode: 0o700 });
    const file = await open(this.path, "a+", 0o600);
    const { size } = await file.stat();
    const last = Buffer.alloc(1);
    if (size > 0) await file.read(last, 0, 1, size - 1);
    this.#file = file;
    this.#size = size;
    // An earlier manager was killed in the middle of a line.
    if (size > 0 && last[0] !== newline) await this.#write([lineEnd]);
  }

  async #rotate(): Promise<void> {
    await this.#file?.close();
    this.#file = null;
    const { files } = this.#rotation;
    for (let index = files; index >= 1; index -= 1) {
      const older = index === 1 ? this.path : `${this.path}.${index - 1}`;
      await rename(older, `${this.path}.${index}`).catch(() => undefined); // there are fewer so far
    }
    if (files < 1) await rm(this.path, { force: true });
    await this.#openFile();
  }

  async #readTail(lines: number): Promise<string[]> {
    const found = await lastLines(this.path);
    if (found.length < lines) found.unshift(...(await lastLines(`${this.path}.1`)));
    return lines > 0 ? found.slice(-lines) : [];
  }
}

function totalBytes(blocks: readonly Block[]): number {
  return blocks.reduce((sum, { bytes }) => sum + bytes.length, 0);
}

/** The blocks' first bytes, so many of them. */
function takeBytes(blocks: readonly Block[], count: number): Block[] {
  let rest = count;
  return blocks.flatMap((block) => {
    const bytes = block.bytes.subarray(0, rest);
    rest -= bytes.length;
    return bytes.length > 0 ? [{ ...block, bytes }] : [];
  });
}

/** The blocks without so many of their first bytes. */
function dropBytes(blocks: readonly Block[], count: number): Block[] {
  let rest = count;
  return blocks.flatMap((block) => {
    const bytes = block.bytes.subarray(rest);
    rest -= Math.min(rest, block.bytes.length);
    return bytes.length > 0 ? [{ ...block, bytes }] : [];
  });
}

async function lastLines(path: string): Promise<string[]> {
  const file = await open(path, "r").catch(() => null);
  if (!file) return [];
  try {
    const { size } = await file.stat();
    const start = Math.max(0, size - tailBytesMax);
    const bytes = Buffer.alloc(size - start);
    const { bytesRead } = await file.read(bytes, 0, bytes.length, start);
    const lines = bytes.toString("utf8", 0, bytesRead).split("\n");
    if (lines.at(-1) === "") lines.pop();
    return start > 0 ? lines.slice(1) : lines;
  } finally {
    await file.close();
  }
}
