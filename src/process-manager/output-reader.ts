import type { OutputSource, ServiceLog } from "./service-log.ts";

const newline = 0x0a;

/** A line longer than this passes in pieces: the memory for an unfinished one is bounded. */
const lineBytesMax = 64 * 1024;
/** As much as a pipe holds, and so the most that one read brings. */
const readBytesMax = 64 * 1024;
/** Memory of a stream that prints a line now and then, and of one in full flood; twice that at most. */
const quietBytes = 8 * 1024;
const floodBytes = 256 * 1024;

/** Who is handed blocks of whole lines; `ServiceLog` is one. */
export type BlockTaker = Pick<ServiceLog, "append">;

/** Memory that one stretch of output is read into, and written to the file from. */
interface Arena {
  readonly memory: Buffer;
  /** Bytes that the file was given and has not written yet. */
  unwritten: number;
}

/**
 * Cuts what one stream of a process brings between lines, and hands it to the log without a copy: bytes are read
 * into one of two arenas while those in the other are written. When both wait for the disk, so does the stream.
 * Whole lines pass at once, the unfinished one is kept back, so that two streams which share a file never write into
 * each other's lines. Bytes are passed on as they are, none added and none lost.
 */
export class OutputReader implements OutputSource {
  readonly stream: "stdout" | "stderr";
  readonly #log: BlockTaker;
  readonly #resume: () => void;
  #arena = newArena(quietBytes);
  #spare: Arena | null = null;
  /** In the arena: up to where it is filled, and up to where the log has been given it. */
  #filled = 0;
  #given = 0;
  /** The arena that must be written before the stream may go on. */
  #awaited: Arena | null = null;

  /** `resume` is called when there is room again after `took` said that there is none. */
  constructor(stream: "stdout" | "stderr", log: BlockTaker, resume: () => void) {
    this.stream = stream;
    this.#log = log;
    this.#resume = resume;
  }

  /** Whether the stream waits for the disk. */
  get isPaused(): boolean {
    return this.#awaited !== null;
  }

  /** Where the next bytes go. While paused, it is not to be filled before `resume` is called. */
  room(): Buffer {
    const { memory } = this.#awaited ?? this.#arena;
    return memory.subarray(this.#awaited ? this.#filled - this.#given : this.#filled);
  }

  /** So many bytes were read into the room. False: no more until `resume` is called. */
  took(length: number): boolean {
    const { memory } = this.#arena;
    const wasFull = this.#filled + length === memory.length;
    const end = this.#filled + memory.subarray(this.#filled, this.#filled + length).lastIndexOf(newline) + 1;
    const hasLine = end > this.#filled;
    this.#filled += length;
    if (hasLine) this.#give(end);
    else if (this.#filled - this.#given > lineBytesMax) this.#give(this.#filled);
    const roomMin = memory.length === floodBytes ? readBytesMax : quietBytes / 4;
    return memory.length - this.#filled >= roomMin || this.#turn(wasFull, length);
  }

  /** The stream has ended: its last, unfinished line goes too. */
  flush(): void {
    if (this.#filled > this.#given) this.#give(this.#filled);
  }

  /** The log has written, or lost, these bytes that it was given. */
  release(bytes: Buffer): void {
    for (const arena of [this.#arena, this.#spare])
      if (arena?.memory.buffer === bytes.buffer) arena.unwritten -= bytes.length;
    if (this.#awaited?.unwritten !== 0) return;
    this.#moveTo(this.#awaited);
    this.#awaited = null;
    this.#resume();
  }

  #give(end: number): void {
    const bytes = this.#arena.memory.subarray(this.#given, end);
    this.#arena.unwritten += bytes.length;
    this.#given = end;
    this.#log.append(bytes, this);
  }

  /** Goes on in the other arena; false when that must be written first. */
  #turn(wasFull: boolean, lastLength: number): boolean {
    const isFast = wasFull || lastLength > quietBytes / 2 || this.#filled - this.#given > quietBytes / 2;
    const size = isFast ? floodBytes : quietBytes;
    if (this.#spare?.memory.length !== size) this.#spare = newArena(size);
    if (this.#spare.unwritten > 0) {
      this.#awaited = this.#spare;
      return false;
    }
    this.#moveTo(this.#spare);
    return true;
  }

  /** The unfinished line comes along. */
  #moveTo(next: Arena): void {
    this.#arena.memory.copy(next.memory, 0, this.#given, this.#filled);
    this.#filled -= this.#given;
    this.#given = 0;
    this.#spare = this.#arena;
    this.#arena = next;
  }
}

function newArena(bytes: number): Arena {
  return { memory: Buffer.allocUnsafeSlow(bytes), unwritten: 0 };
}
