import type { JournalLog, Segment } from "./journal.ts";
import { SegmentReader } from "./segment-reader.ts";

/** Lines of one segment, in order. */
export interface Batch {
  readonly segment: Segment;
  readonly lines: readonly string[];
  /** Where in the segment they end. */
  readonly end: number;
  /** Since when what follows them has been waiting, at the earliest. */
  readonly since: number;
}

/** Characters of lines in one batch, unless a single frame has more. */
const batchCharsMax = 1024 * 1024;

/** Reads the lines of those segments that `pick` picks, in order: each once, whatever becomes of them. */
export class JournalReader implements AsyncDisposable {
  readonly #pick: () => Segment | undefined;
  readonly #log: JournalLog;
  #segment: Segment | undefined;
  #reader: SegmentReader | undefined;

  /** `pick` gives the first segment that holds more than what was taken over. */
  constructor(pick: () => Segment | undefined, log: JournalLog) {
    this.#pick = pick;
    this.#log = log;
  }

  /** The next lines, or undefined where there is nothing to read yet. What was given before must be taken over by now. */
  async next(): Promise<Batch | undefined> {
    const segment = this.#pick();
    if (segment !== this.#segment && (segment || this.#segment?.isClosed)) {
      await this.#reader?.[Symbol.asyncDispose]();
      this.#reader = undefined;
      this.#segment = segment;
    }
    if (!segment) return undefined;
    this.#reader ??= await SegmentReader.open(segment.path);
    const { bytes } = segment;
    const now = Date.now();
    const lines: string[] = [];
    for (let chars = 0; chars < batchCharsMax; ) {
      const at = this.#reader.position;
      const piece = await this.#reader.next(bytes);
      if (!piece) break;
      if ("text" in piece) {
        chars += piece.text.length;
        for (const line of piece.text.split("\n")) if (line !== "") lines.push(line);
      } else this.#report(segment, at, piece.damagedBytes, piece.isTail);
    }
    const end = this.#reader.position;
    return { segment, lines, end, since: end === bytes ? now : segment.since };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reader?.[Symbol.asyncDispose]();
    this.#reader = undefined;
  }

  #report(segment: Segment, at: number, bytes: number, isTail: boolean): void {
    const fields = { segment: segment.path, at, bytes };
    // What this process wrote was synced before it is read: there is no interrupted write in it.
    if (isTail && segment.isAdopted) {
      this.#log.warn(fields, "end of a journal cut off: a write that was never finished");
    } else {
      segment.isDamaged = true;
      this.#log.warn(fields, "journal damaged: the file is kept");
    }
  }
}
