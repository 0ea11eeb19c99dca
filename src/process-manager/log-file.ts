import { type FileHandle, mkdir, open } from "node:fs/promises";
import { dirname } from "node:path";
import type { LogFolder } from "./log-folder.ts";
import { indexPath, LogIndexWriter, type LogStream } from "./log-index.ts";
import { messageOf } from "./process-manager-error.ts";

const newline = 0x0a;
/** What comes from one source within this time is noted as one. */
const mergeMs = 10;

/** When a log turns to a new file, and how many there are. */
export interface LogPolicy {
  /** Default 10 MiB. */
  readonly fileMaxBytes: number;
  /** Old ones, kept beside the current one. Default 5. */
  readonly files: number;
  /** The first line after this begins a new file. Without it, age does not matter. */
  readonly fileMaxAgeMs?: number;
}

export const defaultLogPolicy: LogPolicy = { fileMaxBytes: 10 * 1024 * 1024, files: 5 };

/** Where bytes come from. Two blocks of one source may make up a line; those of two never do. */
export interface LogSource {
  /** Null for the manager's own. */
  readonly stream: LogStream | null;
  /** Told when these bytes are in the file, or lost: their memory is free again. */
  release?(bytes: Buffer): void;
}

interface Block {
  readonly bytes: Buffer;
  readonly source: LogSource;
  /** When it came, in milliseconds since the epoch. */
  readonly at: number;
}

type Work = Block | { readonly task: () => Promise<void> };

const ownSource: LogSource = { stream: null };

/**
 * A file that is appended to in order and turned by size and age: `x.log`, then `x.log.1` …, cut only between lines. Blocks
 * wait in their source's memory while the disk is busy, and it is the source that bounds it. What a full disk will
 * not take is lost and counted, and a line in the log says so once there is room again.
 */
export class LogFile {
  readonly path: string;
  /** May be changed at any time. */
  policy: LogPolicy;
  readonly #folder: LogFolder;
  #file: FileHandle | null = null;
  #index: LogIndexWriter | null = null;
  #size = 0;
  /** When its first byte came, in milliseconds since the epoch. */
  #startedAt = 0;
  #waiting: Work[] = [];
  #pumping: Promise<void> | null = null;
  #lostBytes = 0;
  #lostWhy = "";
  #lastSource: LogSource | null = null;
  /** Whether what was taken last, and what is in the file by now, end in the middle of a line. */
  #isLineOpen = false;
  #isFileLineOpen = false;
  #growth = 0;
  readonly #growthListeners = new Set<() => void>();
  #isClosed = false;

  constructor(path: string, policy: LogPolicy, folder: LogFolder) {
    this.path = path;
    this.policy = policy;
    this.#folder = folder;
  }

  /** Takes a block of whole lines, or a piece of a very long one, in order; it stays as it is until released. */
  append(bytes: Buffer, source: LogSource): void {
    if (bytes.length === 0) return;
    // A process that ended in the middle of a line must not have the next one's first line glued to it.
    if (this.#isLineOpen && source !== this.#lastSource) this.#push(lineEnd());
    this.#lastSource = source;
    this.#isLineOpen = bytes.at(-1) !== newline;
    this.#push(this.#continued(bytes, source) ?? { bytes, source, at: Date.now() });
  }

  /** Does something when all that was appended so far is in the file, or lost, and before anything else is. */
  inOrder<T>(task: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) =>
      this.#push({ task: async () => await task().then(resolve, reject) }),
    );
  }

  /** Grows with every write, and when the log is closed. */
  get growth(): number {
    return this.#growth;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Calls the listener whenever `growth` has grown. Returns what ends that. */
  onGrowth(listener: () => void): () => void {
    this.#growthListeners.add(listener);
    return () => this.#growthListeners.delete(listener);
  }

  async close(): Promise<void> {
    await this.#pumping;
    await this.#closeFile();
    this.#isClosed = true;
    this.#grow();
  }

  /** A flood brings neighbours in memory: they are written as one. */
  #continued(bytes: Buffer, source: LogSource): Block | null {
    const last = this.#waiting.at(-1);
    if (!last || "task" in last || last.source !== source || Date.now() - last.at >= mergeMs) return null;
    const { buffer, byteOffset, length } = last.bytes;
    if (buffer !== bytes.buffer || byteOffset + length !== bytes.byteOffset) return null;
    this.#waiting.pop();
    return { ...last, bytes: Buffer.from(buffer, byteOffset, length + bytes.length) };
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
        const isDue = this.#isTooOld() || this.#roomFor(rest) === 0;
        // Where it cannot be turned, it grows: better than to lose what is printed.
        const isStuck = isDue && !(await this.#rotate());
        const room = isStuck ? totalBytes(rest) : this.#roomFor(rest);
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

  #isTooOld(): boolean {
    const { fileMaxAgeMs = Number.POSITIVE_INFINITY } = this.policy;
    return this.#size > 0 && !this.#isFileLineOpen && Date.now() - this.#startedAt >= fileMaxAgeMs;
  }

  /** How many of the bytes go into the current file; 0 when it is to be turned first. */
  #roomFor(blocks: readonly Block[]): number {
    let fitting = 0;
    let isLineOpen = this.#isFileLineOpen;
    for (const { bytes } of blocks) {
      const size = this.#size + fitting;
      const room = this.policy.fileMaxBytes - size;
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
    await this.#note(blocks);
    const { bytesWritten } = await this.#file.writev(blocks.map(({ bytes }) => bytes));
    this.#size += bytesWritten;
    this.#isFileLineOpen = takeBytes(blocks, bytesWritten).at(-1)?.bytes.at(-1) !== newline;
    this.#grow();
    return { bytesWritten };
  }

  /** First, so that who sees a line can look up when it came. Without an index that is not known, and no more. */
  async #note(blocks: readonly Block[]): Promise<void> {
    const stretches = blocks.map(({ bytes, source, at }) => ({
      at,
      length: bytes.length,
      stream: source.stream,
    }));
    try {
      await this.#index?.note(this.#size, stretches);
    } catch {
      await this.#index?.close().catch(() => undefined);
      this.#index = null;
    }
  }

  #grow(): void {
    this.#growth += 1;
    for (const listener of this.#growthListeners) listener();
  }

  async #sayWhatWasLost(): Promise<void> {
    if (this.#lostBytes === 0) return;
    const notice = `[process-manager] ${this.#lostBytes} bytes of this log were lost: ${this.#lostWhy}\n`;
    if (this.#isFileLineOpen) await this.#write([lineEnd()]);
    await this.#write([{ bytes: Buffer.from(notice), source: ownSource, at: Date.now() }]);
    this.#lostBytes = 0;
  }

  async #openFile(): Promise<void> {
    if (this.#file && (await this.#file.stat()).nlink > 0) return;
    await this.#closeFile(); // somebody deleted it: what we write would be nowhere
    this.#isFileLineOpen = false;
    await mkdir(dirname(this.path), { recursive: true, mode: 0o700 });
    const file = await open(this.path, "a+", 0o600);
    const { size } = await file.stat();
    const last = Buffer.alloc(1);
    if (size > 0) await file.read(last, 0, 1, size - 1);
    this.#file = file;
    this.#size = size;
    this.#index = await LogIndexWriter.open(indexPath(this.path), size).catch(() => null);
    this.#startedAt = size === 0 ? Date.now() : (this.#index?.startedAt ?? (await file.stat()).birthtimeMs);
    // An earlier manager was killed in the middle of a line.
    if (size > 0 && last[0] !== newline) await this.#write([lineEnd()]);
  }

  async #closeFile(): Promise<void> {
    await this.#index?.close();
    this.#index = null;
    await this.#file?.close();
    this.#file = null;
  }

  /** False when the file is the same as before. */
  async #rotate(): Promise<boolean> {
    await this.#closeFile();
    const isTurned = await this.#folder.turn(this.path, this.policy.files).then(
      () => true,
      () => false,
    );
    await this.#openFile();
    return isTurned;
  }
}

/** The end that a line is given which its own process left open. */
function lineEnd(): Block {
  return { bytes: Buffer.from("\n"), source: ownSource, at: Date.now() };
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
