import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { messageOf } from "./process-manager-error.ts";

const newline = 0x0a;
const waitingBytesMax = 1024 * 1024;
const tailBytesMax = 1024 * 1024;

/** When a log turns to a new file, and how many there are. */
export interface RotationPolicy {
  /** Default 10 MiB. */
  readonly maxBytes: number;
  /** Old ones, kept beside the current one. Default 5. */
  readonly files: number;
}

export const defaultRotation: RotationPolicy = { maxBytes: 10 * 1024 * 1024, files: 5 };

type Work = { readonly block: Buffer } | { readonly task: () => Promise<void> };

/**
 * A file that is appended to in order and turned by size: `x.log`, then `x.log.1` …, cut only between lines. Blocks
 * wait in memory while the disk is busy; `isFull` then asks whoever writes to pause. What a full disk will
 * not take is lost and counted, and a line in the log says so once there is room again.
 */
export class LogFile {
  readonly path: string;
  readonly #rotation: RotationPolicy;
  #file: FileHandle | null = null;
  #size = 0;
  #waiting: Work[] = [];
  #waitingBytes = 0;
  #pumping: Promise<void> | null = null;
  #lostBytes = 0;
  #lostWhy = "";
  #lastSource: object | null = null;
  /** Whether what was taken last, and what is in the file by now, end in the middle of a line. */
  #isLineOpen = false;
  #isFileLineOpen = false;

  constructor(path: string, rotation: RotationPolicy = defaultRotation) {
    this.path = path;
    this.#rotation = rotation;
  }

  /** Whether more waits for the disk than should. */
  get isFull(): boolean {
    return this.#waitingBytes > waitingBytesMax;
  }

  /** Takes a block of whole lines, or a piece of a very long one, in order. */
  append(block: Buffer, source: object): void {
    if (block.length === 0) return;
    // A process that ended in the middle of a line must not have the next one's first line glued to it.
    if (this.#isLineOpen && source !== this.#lastSource) this.#push({ block: Buffer.from("\n") });
    this.#lastSource = source;
    this.#isLineOpen = block.at(-1) !== newline;
    this.#push({ block });
  }

  /** Resolves when all that was appended so far is in the file, or lost to an error of the disk. */
  flushed(): Promise<void> {
    return new Promise((resolve) => this.#push({ task: async () => resolve() }));
  }

  /** The last lines as of now: what is appended later is not in them. Looks back 1 MiB into two files at most. */
  tail(lines: number): Promise<string[]> {
    return new Promise((resolve, reject) =>
      this.#push({ task: async () => resolve(await this.#readTail(lines)) }, reject),
    );
  }

  async close(): Promise<void> {
    await this.#pumping;
    await this.#file?.close();
    this.#file = null;
  }

  #push(work: Work, onError: (error: unknown) => void = () => undefined): void {
    if ("task" in work) {
      const { task } = work;
      this.#waiting.push({ task: () => task().catch(onError) });
    } else {
      this.#waiting.push(work);
      this.#waitingBytes += work.block.length;
    }
    this.#pumping ??= this.#pump();
  }

  async #pump(): Promise<void> {
    // Let the rest of this turn's chunks come in: one write for many.
    await new Promise(setImmediate);
    while (this.#waiting.length > 0) {
      const batch = this.#waiting;
      this.#waiting = [];
      let blocks: Buffer[] = [];
      for (const work of batch) {
        if ("block" in work) {
          blocks.push(work.block);
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

  async #store(blocks: readonly Buffer[]): Promise<void> {
    if (blocks.length === 0) return;
    const bytes = blocks.length === 1 && blocks[0] ? blocks[0] : Buffer.concat(blocks);
    try {
      await this.#openFile();
      await this.#sayWhatWasLost();
      for (let rest = bytes; rest.length > 0; ) {
        const end = await this.#makeRoom(rest);
        await this.#write(rest.subarray(0, end));
        rest = rest.subarray(end);
      }
    } catch (error) {
      this.#lostBytes += bytes.length;
      this.#lostWhy = messageOf(error);
    } finally {
      this.#waitingBytes -= bytes.length;
    }
  }

  /** How many of the bytes go into the current file, after turning to a new one where that is due. */
  async #makeRoom(bytes: Buffer): Promise<number> {
    const room = this.#rotation.maxBytes - this.#size;
    if (bytes.length <= room) return bytes.length;
    const fitting = room > 0 ? bytes.lastIndexOf(newline, room - 1) + 1 : 0;
    if (fitting > 0) return fitting;
    if (this.#size > 0 && !this.#isFileLineOpen) {
      await this.#rotate();
      return await this.#makeRoom(bytes);
    }
    // One line longer than a file may be: it stays whole all the same.
    const lineEnd = bytes.indexOf(newline) + 1;
    return lineEnd > 0 ? lineEnd : bytes.length;
  }

  async #write(bytes: Buffer): Promise<void> {
    let offset = 0;
    while (this.#file && offset < bytes.length) {
      const { bytesWritten } = await this.#file.write(bytes, offset);
      offset += bytesWritten;
      this.#size += bytesWritten;
    }
    this.#isFileLineOpen = bytes.at(-1) !== newline;
  }

  async #sayWhatWasLost(): Promise<void> {
    if (this.#lostBytes === 0) return;
    const notice = `[process-manager] ${this.#lostBytes} bytes of this log were lost: ${this.#lostWhy}\n`;
    await this.#write(Buffer.from(this.#isFileLineOpen ? `\n${notice}` : notice));
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
    if (size > 0 && last[0] !== newline) await this.#write(Buffer.from("\n"));
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
