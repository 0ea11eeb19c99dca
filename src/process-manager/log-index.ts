import { type FileHandle, open } from "node:fs/promises";

export type LogStream = "stdout" | "stderr";

/** A stretch of a log file: bytes of one stream (null: the manager's own) that came at about one time. */
export interface Stretch {
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly offset: number;
  readonly length: number;
  readonly stream: LogStream | null;
}

/** What comes from one stream within this time is one stretch. */
const mergeMs = 10;
const lengthMax = 2 ** 30 - 1;
const entryBytes = 16;
const readEntries = 512;
const streams: readonly (LogStream | null)[] = [null, "stdout", "stderr"];

/** The name of the index that belongs to a file of a log. */
export function indexPath(path: string): string {
  return `${path}.index`;
}

/**
 * `x.log.index`: when the bytes of `x.log` came and from which stream, without a byte of it in the log itself. Entries of
 * 16 bytes, little-endian: time in ms (6), offset (6), length (30 bits), stream (2 bits). An entry is written before its
 * bytes are, so that whoever sees a line can look it up. What a crash tore or lost is only not known.
 */
export class LogIndexWriter {
  readonly #file: FileHandle;
  #count: number;
  #last: Stretch | null = null;
  /** When the first byte came, in milliseconds since the epoch; null where that is not known. */
  readonly startedAt: number | null;

  private constructor(file: FileHandle, count: number, startedAt: number | null) {
    this.#file = file;
    this.#count = count;
    this.startedAt = startedAt;
  }

  /** Goes on with the index of a log that has so many bytes by now. */
  static async open(path: string, logBytes: number): Promise<LogIndexWriter> {
    const file = await open(path, logBytes === 0 ? "w+" : "a+", 0o600);
    if (logBytes === 0) return new LogIndexWriter(file, 0, null);
    // Reopened to be written anywhere, which O_APPEND does not do.
    await file.close();
    const again = await open(path, "r+");
    const { buffer, bytesRead } = await again.read(Buffer.alloc(entryBytes), 0, entryBytes, 0);
    const startedAt = bytesRead === entryBytes ? decode(buffer, 0).at || null : null;
    const index = new LogIndexWriter(again, Math.floor((await again.stat()).size / entryBytes), startedAt);
    await index.#cut(logBytes);
    return index;
  }

  /** These stretches, one after the other, are about to be written from the offset on. */
  async note(offset: number, stretches: readonly Omit<Stretch, "offset">[]): Promise<void> {
    if (this.#last && this.#last.offset + this.#last.length > offset) await this.#cut(offset);
    let first = this.#count;
    const entries: Stretch[] = [];
    let start = offset;
    for (const stretch of stretches) {
      const last = entries.at(-1) ?? this.#last;
      if (last && isContinued(last, stretch, start)) {
        if (entries.length > 0) entries.pop();
        else first -= 1;
        entries.push({ ...last, length: last.length + stretch.length });
      } else entries.push({ ...stretch, offset: start });
      start += stretch.length;
    }
    const bytes = Buffer.alloc(entries.length * entryBytes);
    for (const [index, entry] of entries.entries()) encode(entry, bytes, index * entryBytes);
    await this.#file.write(bytes, 0, bytes.length, first * entryBytes);
    this.#count = first + entries.length;
    this.#last = entries.at(-1) ?? null;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  /** Forgets what lies beyond the end of the log: it was noted, and then the disk would not take it. */
  async #cut(logBytes: number): Promise<void> {
    this.#last = null;
    const bytes = Buffer.alloc(entryBytes);
    for (; this.#count > 0; this.#count -= 1) {
      await this.#file.read(bytes, 0, entryBytes, (this.#count - 1) * entryBytes);
      const { offset, length, ...rest } = decode(bytes, 0);
      if (offset >= logBytes || length === 0) continue;
      this.#last = { ...rest, offset, length: Math.min(length, logBytes - offset) };
      encode(this.#last, bytes, 0);
      await this.#file.write(bytes, 0, entryBytes, (this.#count - 1) * entryBytes);
      break;
    }
    await this.#file.truncate(this.#count * entryBytes);
  }
}

/** Reads an index from the front to the back, also while it grows. */
export class LogIndexReader {
  readonly #file: FileHandle;
  /** Entries before this one end before what was asked for last. */
  #first = 0;

  constructor(file: FileHandle) {
    this.#file = file;
  }

  /** What is known of the bytes from `start` to `end`, in order. Never asked for earlier ones afterwards. */
  async between(start: number, end: number): Promise<Stretch[]> {
    const found: Stretch[] = [];
    for await (const [number, stretch] of this.#entries()) {
      if (stretch.offset >= end) break;
      if (stretch.offset + stretch.length > start) found.push(stretch);
      else this.#first = number + 1;
    }
    return found;
  }

  /** The first stretch that came at or after this time, or null. */
  async firstSince(at: number): Promise<Stretch | null> {
    for await (const [, stretch] of this.#entries()) if (stretch.at >= at) return stretch;
    return null;
  }

  async *#entries(): AsyncGenerator<[number: number, Stretch]> {
    const bytes = Buffer.alloc(readEntries * entryBytes);
    for (let number = this.#first; ; ) {
      const { bytesRead } = await this.#file.read(bytes, 0, bytes.length, number * entryBytes);
      if (bytesRead < entryBytes) return;
      for (let index = 0; (index + 1) * entryBytes <= bytesRead; index += 1, number += 1) {
        const stretch = decode(bytes, index * entryBytes);
        if (stretch.length > 0) yield [number, stretch]; // else torn by a crash
      }
    }
  }
}

function isContinued(last: Stretch, next: Omit<Stretch, "offset">, offset: number): boolean {
  const laterMs = next.at - last.at;
  return (
    last.stream === next.stream &&
    last.offset + last.length === offset &&
    laterMs >= 0 &&
    laterMs < mergeMs &&
    last.length + next.length <= lengthMax
  );
}

function encode({ at, offset, length, stream }: Stretch, bytes: Buffer, position: number): void {
  bytes.writeUIntLE(at, position, 6);
  bytes.writeUIntLE(offset, position + 6, 6);
  bytes.writeUInt32LE(streams.indexOf(stream) * (lengthMax + 1) + length, position + 12);
}

function decode(bytes: Buffer, position: number): Stretch {
  const last = bytes.readUInt32LE(position + 12);
  return {
    at: bytes.readUIntLE(position, 6),
    offset: bytes.readUIntLE(position + 6, 6),
    length: last % (lengthMax + 1),
    stream: streams[Math.floor(last / (lengthMax + 1))] ?? null,
  };
}
