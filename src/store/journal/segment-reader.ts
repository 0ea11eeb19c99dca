import { type FileHandle, open } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { frameHeadBytes, frameMark, parseFrameHead } from "./frame.ts";

/** What comes next in a segment: the lines of a frame, or bytes that are none. */
export type Piece =
  | { readonly text: string }
  | {
      readonly damagedBytes: number;
      /** Nothing whole follows: the write that a crash interrupted, and that nobody was told is done. */
      readonly isTail: boolean;
    };

/** Read at once; a longer frame is read whole. */
const chunkBytes = 256 * 1024;

/** Reads the frames of one segment in order, holding a chunk of it at a time. */
export class SegmentReader implements AsyncDisposable {
  readonly #file: FileHandle;
  #chunk: Buffer = Buffer.alloc(0);
  #chunkAt = 0;
  #position = 0;

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  static async open(path: string): Promise<SegmentReader> {
    return new SegmentReader(await open(path, "r"));
  }

  /** Bytes that have been read. */
  get position(): number {
    return this.#position;
  }

  /** The next piece before the offset `end`, which must not cut a frame; undefined when there is no more. */
  async next(end: number): Promise<Piece | undefined> {
    const begin = this.#position;
    if (begin >= end) return undefined;
    const text = await this.#frameAt(begin, end);
    if (text !== undefined) return { text };
    for (let at = await this.#markAfter(begin, end); at < end; at = await this.#markAfter(at, end)) {
      // Read here to see whether it is whole, and once more as the next piece.
      if ((await this.#frameAt(at, end)) === undefined) continue;
      this.#position = at;
      return { damagedBytes: at - begin, isTail: false };
    }
    this.#position = end;
    return (await this.#isBlank(begin, end)) ? undefined : { damagedBytes: end - begin, isTail: true };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }

  async #frameAt(at: number, end: number): Promise<string | undefined> {
    const head = parseFrameHead(await this.#bytes(at, frameHeadBytes, end));
    if (!head || at + frameHeadBytes + head.bytes > end) return undefined;
    const body = await this.#bytes(at + frameHeadBytes, head.bytes, end);
    if (body.length < head.bytes || crc32(body) !== head.sum) return undefined;
    this.#position = at + frameHeadBytes + head.bytes;
    return body.toString("utf8");
  }

  /** Where the next mark is, from the byte after `at`; `end` where there is none. */
  async #markAfter(at: number, end: number): Promise<number> {
    for (let from = at + 1; from < end; ) {
      const bytes = await this.#bytes(from, chunkBytes, end);
      if (bytes.length === 0) break;
      const index = bytes.indexOf(frameMark);
      if (index >= 0) return from + index;
      from += bytes.length;
    }
    return end;
  }

  /** Room that was never written to. */
  async #isBlank(begin: number, end: number): Promise<boolean> {
    for (let at = begin; at < end; ) {
      const bytes = await this.#bytes(at, chunkBytes, end);
      if (bytes.length === 0) break;
      if (bytes.some((byte) => byte !== 0)) return false;
      at += bytes.length;
    }
    return true;
  }

  /** As many bytes as asked for, or fewer where `end` comes first: what follows that may be half written. */
  async #bytes(at: number, wanted: number, end: number): Promise<Buffer> {
    const length = Math.min(wanted, end - at);
    const from = at - this.#chunkAt;
    if (from >= 0 && from + length <= this.#chunk.length) return this.#chunk.subarray(from, from + length);
    const chunk = Buffer.allocUnsafe(Math.min(Math.max(length, chunkBytes), end - at));
    let filled = 0;
    while (filled < length) {
      const { bytesRead } = await this.#file.read(chunk, filled, chunk.length - filled, at + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    this.#chunk = chunk.subarray(0, filled);
    this.#chunkAt = at;
    return this.#chunk.subarray(0, length);
  }
}
