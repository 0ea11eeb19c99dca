import { ChatError } from "../chat-error.ts";

export interface ServerSentEvent {
  /** Empty where the event has no name. */
  readonly event: string;
  readonly data: string;
}

/** Characters of one line at most: far more than any token, far less than would hurt. */
const lineMax = 4 * 1024 * 1024;

/**
 * Reads server-sent events from bytes that may be cut anywhere, also inside a character or a line end.
 * Lines end in LF or CRLF. An event counts once its blank line is there; what is left over at the end of a
 * cut stream never does (https://html.spec.whatwg.org/multipage/server-sent-events.html).
 */
export class SseParser {
  readonly #decoder = new TextDecoder();
  #rest = "";
  #event = "";
  #data: string | undefined;

  /** The events that these bytes complete. Throws `ChatError` `upstream-invalid` on a line without end. */
  push(bytes: Uint8Array): ServerSentEvent[] {
    const text = this.#rest + this.#decoder.decode(bytes, { stream: true });
    const events: ServerSentEvent[] = [];
    let start = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", start)) {
      const line = text.slice(start, text[end - 1] === "\r" && end > start ? end - 1 : end);
      start = end + 1;
      if (line === "") {
        if (this.#data !== undefined) events.push({ event: this.#event, data: this.#data });
        this.#event = "";
        this.#data = undefined;
      } else this.#field(line);
    }
    this.#rest = text.slice(start);
    if (this.#rest.length > lineMax) {
      throw new ChatError("upstream-invalid", "LM Studio sent a line of a stream that does not end.");
    }
    return events;
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
