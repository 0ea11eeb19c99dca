import { ChatError } from "../chat-error.ts";

export interface ServerSentEvent {
  /** Empty where the event has no name. */
  readonly event: string;
  readonly data: string;
}

/** Bytes of one line at most: far more than any token, far less than would hurt. */
const lineBytesMax = 4 * 1024 * 1024;
const lineFeed = 10;
const carriageReturn = 13;

/**
 * Reads server-sent events from bytes that may be cut anywhere, also inside a character or a line end.
 * Lines end in LF or CRLF. An event counts once its blank line is there; what is left over at the end of a
 * cut stream never does (https://html.spec.whatwg.org/multipage/server-sent-events.html).
 */
export class SseParser {
  /** What came after the last line end; no character is cut by decoding whole lines. */
  #held: Buffer[] = [];
  #heldBytes = 0;
  /** Nothing was read yet: a byte order mark may come first. */
  #isNew = true;
  #event = "";
  #data: string | undefined;

  /** The events that these bytes complete. Throws `ChatError` `upstream-invalid` on a line without end. */
  push(bytes: Buffer): ServerSentEvent[] {
    const events: ServerSentEvent[] = [];
    const lineEnd = bytes.lastIndexOf(lineFeed);
    if (lineEnd >= 0) this.#read(this.#textTo(bytes, lineEnd + 1), events);
    if (lineEnd + 1 < bytes.length) {
      // The bytes are only lent.
      this.#held.push(Buffer.from(bytes.subarray(lineEnd + 1)));
      this.#heldBytes += bytes.length - lineEnd - 1;
    }
    if (this.#heldBytes > lineBytesMax) {
      throw new ChatError("upstream-invalid", "LM Studio sent a line of a stream that does not end.");
    }
    return events;
  }

  #textTo(bytes: Buffer, end: number): string {
    if (this.#held.length === 0) return bytes.toString("utf8", 0, end);
    const text = Buffer.concat([...this.#held, bytes.subarray(0, end)]).toString();
    this.#held = [];
    this.#heldBytes = 0;
    return text;
  }

  #read(text: string, events: ServerSentEvent[]): void {
    let start = this.#isNew && text.startsWith("\ufeff") ? 1 : 0;
    this.#isNew = false;
    while (start < text.length) {
      const lineEnd = text.indexOf("\n", start);
      const end = lineEnd > start && text.charCodeAt(lineEnd - 1) === carriageReturn ? lineEnd - 1 : lineEnd;
      if (end === start) {
        if (this.#data !== undefined) events.push({ event: this.#event, data: this.#data });
        this.#event = "";
        this.#data = undefined;
      } else if (this.#data === undefined && text.startsWith("data: ", start)) {
        this.#data = text.slice(start + 6, end);
      } else this.#field(text.slice(start, end));
      start = lineEnd + 1;
    }
  }

  #field(line: string): void {
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "data") this.#data = this.#data === undefined ? value : `${this.#data}\n${value}`;
    else if (name === "event") this.#event = value;
  }
}
