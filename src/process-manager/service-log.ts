import type { Readable } from "node:stream";
import { Feed, type Subscription } from "./feed.ts";
import { LineGate } from "./line-gate.ts";
import { LogFile, type RotationPolicy } from "./log-file.ts";

/** A line of a service's output. */
export interface LogLine {
  readonly service: string;
  /** Null for lines read back from the file, which does not say; for the manager's own lines too. */
  readonly stream: "stdout" | "stderr" | null;
  /** ISO time of arrival; null for lines read back from the file. */
  readonly at: string | null;
  readonly line: string;
  /** Only on the notice that stands for this many lines, which came too fast for this reader. */
  readonly dropped?: number;
}

/** The output of one service: into its file, whole, and line by line to whoever follows it live. */
export class ServiceLog {
  readonly #service: string;
  readonly #file: LogFile;
  readonly #feed = new Feed<LogLine>();
  #bytesTotal = 0;

  constructor(service: string, path: string, rotation: RotationPolicy) {
    this.#service = service;
    this.#file = new LogFile(path, rotation);
  }

  /** Bytes of output taken so far. */
  get bytesTotal(): number {
    return this.#bytesTotal;
  }

  /**
   * Takes all that a stream of a process brings; resolves when it has ended and its last line is taken. `onLines` sees
   * the lines too, a block at a time, which it must not keep.
   */
  attach(
    stream: "stdout" | "stderr",
    source: Readable,
    onLines: (lines: Buffer) => void = () => undefined,
  ): Promise<void> {
    const gate = new LineGate();
    source.on("data", (chunk: Buffer) => {
      const lines = gate.push(chunk);
      if (lines) {
        this.#take(stream, lines, source);
        onLines(lines);
      }
      if (this.#file.isFull && !source.isPaused()) {
        // The child then waits in write(): slower, but with every line, and our memory bounded.
        source.pause();
        void this.#file.flushed().then(() => source.resume());
      }
    });
    return new Promise((resolve) => {
      source.on("error", () => undefined); // a pipe that breaks also closes
      source.on("close", () => {
        const rest = gate.flush();
        if (rest) {
          this.#take(stream, rest, source);
          onLines(rest);
        }
        resolve();
      });
    });
  }

  /** Adds a line of the manager's own. */
  write(line: string): void {
    this.#file.append(Buffer.from(`${line}\n`), this);
    this.#feed.publish({ service: this.#service, stream: null, at: new Date().toISOString(), line });
  }

  /** Lines from now on go to this subscription too. */
  follow(subscription: Subscription<LogLine>): void {
    this.#feed.join(subscription);
  }

  /** The last lines in the file, none of which a subscription made in the same turn will bring again. */
  async tail(lines: number): Promise<LogLine[]> {
    const found = await this.#file.tail(lines);
    return found.map((line) => ({ service: this.#service, stream: null, at: null, line }));
  }

  async close(): Promise<void> {
    this.#feed.close();
    await this.#file.close();
  }

  #take(stream: "stdout" | "stderr", block: Buffer, source: object): void {
    this.#bytesTotal += block.length;
    this.#file.append(block, source);
    if (!this.#feed.hasSubscribers) return; // then nobody pays for cutting it into lines
    const at = new Date().toISOString();
    const lines = block.toString("utf8").split("\n");
    if (lines.at(-1) === "") lines.pop();
    for (const line of lines) this.#feed.publish({ service: this.#service, stream, at, line });
  }
}
