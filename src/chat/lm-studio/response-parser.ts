/** Who is told of an answer as it comes. */
export interface ResponseListener {
  readonly onHead: (status: number, headers: ReadonlyMap<string, string>) => void;
  /** A part of the body. The bytes are the listener's only until it returns. */
  readonly onBody: (bytes: Buffer) => void;
}

/** Bytes of a head, or of what follows the last chunk; other servers allow 8 to 16 KiB. */
const headBytesMax = 64 * 1024;
const lineFeed = 10;
const carriageReturn = 13;
const semicolon = 59;
const headEnd = "\r\n\r\n";
/** Nothing that a model says is longer than 2^40 bytes. */
const lengthDigitsMax = 12;
const chunkDigitsMax = 10;

/**
 * Reads the answer to one POST (RFC 9112) from bytes that may be cut anywhere. Strict where two readers could see two
 * different answers: lengths, line ends, folded headers.
 */
export class ResponseParser {
  readonly #listener: ResponseListener;
  #state: "head" | "length" | "until-close" | ChunkState | "over" = "head";
  /** Of the head, where it came in several reads. */
  #held: Buffer | undefined;
  /** Of the body or of the chunk that are still to come. */
  #left = 0;
  #digits = 0;
  /** Of the line after the last chunk that is being read, and of all of them. */
  #lineBytes = 0;
  #trailerBytes = 0;
  #keepsAlive = false;

  constructor(listener: ResponseListener) {
    this.#listener = listener;
  }

  /** The answer is whole. */
  get isOver(): boolean {
    return this.#state === "over";
  }

  /** Once it is over: the connection can take another request. */
  get keepsAlive(): boolean {
    return this.#keepsAlive;
  }

  /** Reads on. Where a body is chunked, its chunks are moved together within `bytes`. Throws at what is no HTTP answer. */
  push(bytes: Buffer): void {
    let rest = bytes;
    while (this.#state === "head") {
      const after = this.#head(rest);
      if (!after) return;
      rest = after;
    }
    if (rest.length === 0) return;
    if (this.#state === "length") this.#counted(rest);
    else if (this.#state === "until-close") this.#listener.onBody(rest);
    else if (this.#state === "over") throw malformed("more than one answer");
    else this.#chunked(rest);
  }

  /** The other side has closed the connection: true where that is how this answer ends. */
  closed(): boolean {
    if (this.#state !== "until-close") return false;
    this.#state = "over";
    return true;
  }

  /** What follows the head, or nothing where that is not whole yet. */
  #head(bytes: Buffer): Buffer | undefined {
    const all = this.#held ? Buffer.concat([this.#held, bytes]) : bytes;
    const end = all.indexOf(headEnd);
    if (end > headBytesMax || (end < 0 && all.length > headBytesMax))
      throw malformed("its head does not end");
    if (end < 0) {
      this.#held = this.#held ? all : Buffer.from(all);
      return undefined;
    }
    this.#held = undefined;
    this.#begin(all.toString("latin1", 0, end));
    return all.subarray(end + headEnd.length);
  }

  #begin(head: string): void {
    const lines = head.split("\r\n");
    const [, minor, digits] = /^HTTP\/1\.([01]) (\d{3})(?: |$)/.exec(lines[0] as string) ?? [];
    if (digits === undefined) throw malformed("its first line is none");
    const status = Number(digits);
    // Such as "100 Continue": the answer itself is still to come.
    if (status < 200 && status !== 101) return;
    const headers = new Map<string, string>();
    for (let index = 1; index < lines.length; index += 1) addHeader(headers, lines[index] as string);
    const connection = headers.get("connection")?.toLowerCase() ?? "";
    this.#keepsAlive = minor === "1" ? !/\bclose\b/.test(connection) : /\bkeep-alive\b/.test(connection);
    this.#state = this.#framing(status, headers);
    this.#listener.onHead(status, headers);
  }

  #framing(status: number, headers: ReadonlyMap<string, string>): "length" | "until-close" | "size" | "over" {
    const coding = headers.get("transfer-encoding");
    const length = headers.get("content-length");
    if (status === 204 || status === 304) return "over";
    if (coding !== undefined) {
      if (coding.toLowerCase() !== "chunked" || length !== undefined)
        throw malformed("its length is not clear");
      return "size";
    }
    if (length === undefined) {
      this.#keepsAlive = false;
      return "until-close";
    }
    if (!/^\d+$/.test(length) || length.length > lengthDigitsMax) throw malformed("its length is none");
    this.#left = Number(length);
    return this.#left === 0 ? "over" : "length";
  }

  #counted(bytes: Buffer): void {
    if (bytes.length > this.#left) throw malformed("it is longer than it says");
    this.#left -= bytes.length;
    if (this.#left === 0) this.#state = "over";
    this.#listener.onBody(bytes);
  }

  #chunked(bytes: Buffer): void {
    let kept = 0;
    for (let at = 0; at < bytes.length; ) {
      if (this.#state === "data") {
        const taken = Math.min(this.#left, bytes.length - at);
        if (kept !== at) bytes.copyWithin(kept, at, at + taken);
        kept += taken;
        at += taken;
        this.#left -= taken;
        if (this.#left === 0) this.#state = "data-end";
      } else if (this.#state === "over") throw malformed("more than one answer");
      else this.#framingByte(bytes[at++] as number);
    }
    if (kept > 0) this.#listener.onBody(bytes.subarray(0, kept));
  }

  /** A byte of what stands around the chunks: `size[;extension]CRLF data CRLF … 0CRLF [trailers] CRLF`. */
  #framingByte(byte: number): void {
    switch (this.#state as ChunkState) {
      case "size": {
        const digit = hexOf(byte);
        if (digit >= 0 && this.#digits < chunkDigitsMax) {
          this.#left = this.#left * 16 + digit;
          this.#digits += 1;
        } else if (this.#digits > 0 && byte === carriageReturn) this.#state = "size-end";
        else if (this.#digits > 0 && (byte === semicolon || byte === 32)) this.#state = "extension";
        else throw malformed("a chunk has no length");
        return;
      }
      case "extension":
        if (++this.#lineBytes > headBytesMax || byte === lineFeed) throw malformed("a chunk has no length");
        if (byte === carriageReturn) this.#state = "size-end";
        return;
      case "size-end":
        if (byte !== lineFeed) throw malformed("a line does not end");
        this.#state = this.#left > 0 ? "data" : "trailer";
        this.#digits = 0;
        this.#lineBytes = 0;
        return;
      case "data-end":
        if (byte !== carriageReturn) throw malformed("a chunk is longer than it says");
        this.#state = "data-end-line";
        return;
      case "data-end-line":
        if (byte !== lineFeed) throw malformed("a line does not end");
        this.#state = "size";
        return;
      case "trailer-end":
        if (byte !== lineFeed) throw malformed("a line does not end");
        this.#state = this.#lineBytes === 0 ? "over" : "trailer";
        this.#lineBytes = 0;
        return;
      case "trailer":
        if (++this.#trailerBytes > headBytesMax) throw malformed("it does not end");
        if (byte === carriageReturn) this.#state = "trailer-end";
        else this.#lineBytes += 1;
        return;
      case "data":
    }
  }
}

type ChunkState =
  | "size"
  | "extension"
  | "size-end"
  | "data"
  | "data-end"
  | "data-end-line"
  | "trailer"
  | "trailer-end";

/** What is sent twice counts together, as a list; two different lengths are then no number any more. */
function addHeader(headers: Map<string, string>, line: string): void {
  const colon = line.indexOf(":");
  const name = line.slice(0, Math.max(0, colon)).toLowerCase();
  // A line that goes on with the one before begins with white space, which no name has.
  if (!/^[!#$%&'*+.^_`|~\w-]+$/.test(name)) throw malformed("its headers are none");
  const value = line.slice(colon + 1).trim();
  const before = headers.get(name);
  headers.set(name, before === undefined ? value : `${before}, ${value}`);
}

function hexOf(byte: number): number {
  if (byte >= 48 && byte <= 57) return byte - 48;
  const lower = byte | 32;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}

function malformed(why: string): Error {
  return new Error(`not an HTTP answer: ${why}`);
}
