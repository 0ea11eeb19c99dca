import { LogIndexReader, type LogStream, type Stretch } from "./log-index.ts";
import {
  closePart,
  listParts,
  type OpenPart,
  openNewer,
  openOlder,
  openPart,
  type PartEntry,
} from "./log-parts.ts";

const newline = 0x0a;

/** Bytes read at once; a line that is longer comes in pieces. */
const chunkBytes = 64 * 1024;
/** A last line without an end is taken as it is when nothing came for this long. */
const settledMs = 100;

/** A line of a service's output. */
export interface LogLine {
  readonly service: string;
  /** Null for the manager's own lines, and where the index of the log does not say. */
  readonly stream: LogStream | null;
  /** ISO time of arrival; null where the index does not say. */
  readonly at: string | null;
  readonly line: string;
  /** Only on the notice that stands for so many bytes, which came too fast to be followed. */
  readonly droppedBytes?: number;
}

/** Where to begin and to end. Without any of it: from the first line there is. */
export interface LogRange {
  /** Only the last lines. */
  readonly tailLines?: number;
  /** Milliseconds since the epoch. Lines whose time is not known count as coming with the last one before them. */
  readonly sinceMs?: number;
  readonly untilMs?: number;
}

/**
 * Reads a log from its files, through however many there are, also while it grows and is turned. Needs no manager, costs
 * whoever writes nothing, and holds one chunk in memory whatever the size of the log.
 */
export class LogReader {
  readonly service: string;
  readonly #path: string;
  readonly #range: LogRange;
  readonly #chunk = Buffer.alloc(chunkBytes);
  #part: OpenPart | null;
  #index: LogIndexReader | null;
  /** The first byte of the part that was not handed out yet. */
  #offset: number;
  /** Bytes that were there when the reader was opened and are still to come. */
  #pastBytes = 0;
  #lastAtMs: number;
  /** A last line without an end: where it ends by now, and since when. */
  #open: { readonly end: number; readonly since: number } | null = null;
  #isAtEnd = true;
  #isOver = false;

  private constructor(service: string, path: string, range: LogRange, place: Place) {
    this.service = service;
    this.#path = path;
    this.#range = range;
    this.#part = place.part;
    this.#offset = place.offset;
    this.#index = indexOf(place.part);
    this.#lastAtMs = range.sinceMs ?? 0;
  }

  /** Finds the place to begin at. */
  static async open(service: string, path: string, range: LogRange = {}): Promise<LogReader> {
    const { tailLines, sinceMs } = range;
    const place =
      tailLines !== undefined
        ? await placeOfLast(path, tailLines)
        : await placeSince(path, sinceMs ?? Number.NEGATIVE_INFINITY);
    const reader = new LogReader(service, path, range, place);
    reader.#pastBytes = await reader.behindBytes();
    return reader;
  }

  /** The next lines of those that were there when the reader was opened; null when there are no more. */
  async nextPast(settled: boolean): Promise<LogLine[] | null> {
    return this.#pastBytes > 0 ? await this.next(settled) : null;
  }

  /**
   * The next lines, or null when there are none by now. A last line without an end is one of them only when it is
   * `settled`, or has been as it is for a while: nobody is just writing the rest of it.
   */
  async next(settled = false): Promise<LogLine[] | null> {
    for (;;) {
      if (this.#isOver) return null;
      if (this.#part === null) await this.#enter(await openPart(this.#path, (parts) => parts.at(-1)));
      const { bytes, isLast } = await this.#read();
      this.#isAtEnd = isLast;
      const wholeBytes = bytes.lastIndexOf(newline) + 1;
      const isSettled = !isLast || settled || (wholeBytes === 0 && this.#openHasSettled(bytes.length));
      const takenBytes = wholeBytes === 0 || (isSettled && isLast) ? bytes.length : wholeBytes;
      if (takenBytes === 0 || (wholeBytes === 0 && !isSettled)) return null;
      const lines = await this.#linesOf(bytes.subarray(0, takenBytes));
      if (lines.length > 0) return lines;
    }
  }

  /** Whether the last look reached the end of the log. */
  get isAtEnd(): boolean {
    return this.#isAtEnd;
  }

  /** When to look again although nothing grows: there is a last line that may still be being written. */
  get lookAgainMs(): number | undefined {
    return this.#open ? settledMs : undefined;
  }

  /** How far the end of the log is. */
  async behindBytes(): Promise<number> {
    return await this.#distance(await listParts(this.#path));
  }

  /** Leaves out all but the last chunk, and says so in a line. */
  async skip(): Promise<LogLine> {
    const parts = await listParts(this.#path);
    const [newest] = parts;
    const behind = await this.#distance(parts);
    await this.#enter(await openPart(this.#path, (now) => now.find(({ inode }) => inode === newest?.inode)));
    const size = newest?.size ?? 0;
    this.#offset = Math.max(0, size - chunkBytes);
    if (this.#part && this.#offset > 0)
      this.#offset += (await readAt(this.#part.file, this.#offset, this.#chunk)).indexOf(newline) + 1;
    const droppedBytes = behind - (size - this.#offset);
    const line = `[process-manager] ${droppedBytes} bytes came too fast to be shown; they are in ${this.#path}`;
    return { service: this.service, stream: null, at: new Date().toISOString(), line, droppedBytes };
  }

  async close(): Promise<void> {
    this.#isOver = true;
    await this.#enter(null);
  }

  async #distance(parts: readonly PartEntry[]): Promise<number> {
    const place = parts.findIndex(({ inode }) => inode === this.#part?.inode);
    const own = place < 0 && this.#part ? (await this.#part.file.stat()).size : 0;
    const newer = place < 0 ? parts : parts.slice(0, place + 1);
    return newer.reduce((sum, { size }) => sum + size, own) - this.#offset;
  }

  async #enter(part: OpenPart | null): Promise<void> {
    if (this.#part) await closePart(this.#part);
    this.#part = part;
    this.#offset = 0;
    this.#index = indexOf(part);
  }

  /** The bytes from the offset on, of the next part where this one has no more. */
  async #read(): Promise<{ bytes: Buffer; isLast: boolean }> {
    for (;;) {
      if (!this.#part) return { bytes: Buffer.alloc(0), isLast: true };
      const { file } = this.#part;
      const bytes = await readAt(file, this.#offset, this.#chunk);
      if (bytes.length === chunkBytes) return { bytes, isLast: false };
      const newer = await openNewer(this.#path, this.#part);
      if (!newer) return { bytes, isLast: true };
      // It was turned: what came between our look and that is still to be read, and then no more will come.
      const rest = await readAt(file, this.#offset, this.#chunk);
      if (rest.length > 0) {
        await closePart(newer);
        return { bytes: rest, isLast: false };
      }
      await this.#enter(newer);
    }
  }

  #openHasSettled(length: number): boolean {
    const end = this.#offset + length;
    const now = performance.now();
    if (length === 0) this.#open = null;
    else if (this.#open?.end !== end) this.#open = { end, since: now };
    return this.#open !== null && now - this.#open.since >= settledMs;
  }

  async #linesOf(bytes: Buffer): Promise<LogLine[]> {
    const { service } = this;
    const { sinceMs = 0, untilMs = Number.POSITIVE_INFINITY } = this.#range;
    const start = this.#offset;
    this.#offset += bytes.length;
    this.#open = null;
    this.#pastBytes -= bytes.length;
    const stretches = (await this.#index?.between(start, this.#offset)) ?? [];
    const lines: LogLine[] = [];
    for (const { text, stretch } of piecesOf(bytes, start, stretches)) {
      this.#lastAtMs = stretch?.at ?? this.#lastAtMs;
      if (this.#lastAtMs < sinceMs) continue;
      this.#isOver = this.#lastAtMs > untilMs;
      if (this.#isOver) break;
      const at = stretch ? new Date(stretch.at).toISOString() : null;
      for (const line of text.split("\n")) lines.push({ service, stream: stretch?.stream ?? null, at, line });
    }
    return lines;
  }
}

interface Place {
  readonly part: OpenPart | null;
  readonly offset: number;
}

/** The place of the first line that came since then; where nothing is known, the oldest part written to since then. */
async function placeSince(path: string, sinceMs: number): Promise<Place> {
  const part = await openPart(
    path,
    (parts) => parts.findLast(({ changedAtMs }) => changedAtMs >= sinceMs) ?? parts[0],
  );
  const first = await indexOf(part)?.firstSince(sinceMs);
  return { part, offset: first?.offset ?? 0 };
}

/** The place of the n-th line from the end, however far back that is. */
async function placeOfLast(path: string, lines: number): Promise<Place> {
  let part = await openPart(path, ([newest]) => newest);
  for (let missing = lines; part; ) {
    const { offset, found } = await startOfLast(part, missing);
    if (found >= missing) return { part, offset };
    missing -= found;
    const older = await openOlder(path, part.inode);
    if (!older) return { part, offset: 0 };
    await closePart(part);
    part = older;
  }
  return { part: null, offset: 0 };
}

/** Where the last lines of a part begin, and how many of them there are. */
async function startOfLast({ file }: OpenPart, lines: number): Promise<{ offset: number; found: number }> {
  const { size } = await file.stat();
  if (lines === 0 || size === 0) return { offset: size, found: 0 };
  const chunk = Buffer.alloc(chunkBytes);
  let found = 0;
  for (let end = size - 1; end > 0; ) {
    const start = Math.max(0, end - chunkBytes);
    const bytes = (await readAt(file, start, chunk)).subarray(0, end - start);
    for (let place = bytes.lastIndexOf(newline); place >= 0; ) {
      found += 1;
      if (found === lines) return { offset: start + place + 1, found };
      place = place === 0 ? -1 : bytes.lastIndexOf(newline, place - 1);
    }
    end = start;
  }
  return { offset: 0, found: found + 1 };
}

async function readAt(file: OpenPart["file"], offset: number, chunk: Buffer): Promise<Buffer> {
  const { bytesRead } = await file.read(chunk, 0, chunk.length, offset);
  return chunk.subarray(0, bytesRead);
}

function indexOf(part: OpenPart | null): LogIndexReader | null {
  return part?.index ? new LogIndexReader(part.index) : null;
}

/** The text of whole lines, without the last end, and what is known of them: a line is of the stretch it begins in. */
function* piecesOf(
  bytes: Buffer,
  start: number,
  stretches: readonly Stretch[],
): Generator<{ text: string; stretch: Stretch | null }> {
  for (let place = 0, number = 0; place < bytes.length; ) {
    while (endOf(stretches[number]) <= start + place) number += 1;
    const next = stretches[number];
    const stretch = next && next.offset <= start + place ? next : null;
    const limit = stretch ? endOf(stretch) : (next?.offset ?? Number.POSITIVE_INFINITY);
    const end = lineStart(bytes, Math.min(bytes.length, limit - start));
    const hasEnd = bytes[end - 1] === newline;
    yield { text: bytes.toString("utf8", place, hasEnd ? end - 1 : end), stretch };
    place = end;
  }
}

function endOf(stretch: Stretch | undefined): number {
  return stretch ? stretch.offset + stretch.length : Number.POSITIVE_INFINITY;
}

/** The first beginning of a line at or after the place. */
function lineStart(bytes: Buffer, place: number): number {
  if (place === bytes.length || bytes[place - 1] === newline) return place;
  const end = bytes.indexOf(newline, place);
  return end < 0 ? bytes.length : end + 1;
}
