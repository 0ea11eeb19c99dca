const newline = 0x0a;

/** A line longer than this passes in pieces: the memory for an unfinished one is bounded. */
const lineBytesMax = 64 * 1024;

/**
 * Lets whole lines through and keeps the unfinished one back, so that two streams which share a file never write
 * into each other's lines. Bytes are passed on as they are, none added and none lost.
 */
export class LineGate {
  #kept: Buffer[] = [];
  #keptBytes = 0;

  /** The whole lines that this chunk completes, or null when it completes none. */
  push(chunk: Buffer): Buffer | null {
    const end = chunk.lastIndexOf(newline) + 1;
    if (end === 0) return this.#keep(chunk);
    const lines = chunk.subarray(0, end);
    const whole = this.#kept.length > 0 ? Buffer.concat([...this.#kept, lines]) : lines;
    this.#kept = [];
    this.#keptBytes = 0;
    if (end < chunk.length) this.#keep(chunk.subarray(end));
    return whole;
  }

  /** The last, unfinished line; null when there is none. */
  flush(): Buffer | null {
    const rest = this.#kept.length > 0 ? Buffer.concat(this.#kept) : null;
    this.#kept = [];
    this.#keptBytes = 0;
    return rest;
  }

  #keep(piece: Buffer): Buffer | null {
    this.#kept.push(piece);
    this.#keptBytes += piece.length;
    return this.#keptBytes > lineBytesMax ? this.flush() : null;
  }
}
