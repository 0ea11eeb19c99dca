import { ChildOutput } from "./child-output.ts";
import { Feed, type Subscription } from "./feed.ts";
import { LogFile, type LogSource, type RotationPolicy } from "./log-file.ts";
import type { PipePool } from "./output-pipe.ts";

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

/** One stream of a process. */
export interface OutputSource extends LogSource {
  readonly stream: "stdout" | "stderr";
}

const ownSource: LogSource = {};

/** The output of one service: into its file, whole, and line by line to whoever follows it live. */
export class ServiceLog {
  readonly #service: string;
  readonly #file: LogFile;
  readonly #pipes: PipePool;
  readonly #feed = new Feed<LogLine>();
  #bytesTotal = 0;

  constructor(service: string, path: string, rotation: RotationPolicy, pipes: PipePool) {
    this.#service = service;
    this.#file = new LogFile(path, rotation);
    this.#pipes = pipes;
  }

  /** Bytes of output taken so far. */
  get bytesTotal(): number {
    return this.#bytesTotal;
  }

  /** What a process that is about to be spawned prints into. */
  async openOutput(): Promise<ChildOutput> {
    return await ChildOutput.open(this, this.#pipes);
  }

  /** Takes a block of whole lines, or a piece of a very long one; it stays as it is until released. */
  append(block: Buffer, source: OutputSource): void {
    this.#bytesTotal += block.length;
    if (this.#feed.hasSubscribers) this.#publish(source.stream, block.toString("utf8"));
    this.#file.append(block, source);
  }

  /** Adds a line of the manager's own. */
  write(line: string): void {
    this.#file.append(Buffer.from(`${line}\n`), ownSource);
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

  #publish(stream: "stdout" | "stderr", text: string): void {
    const at = new Date().toISOString();
    const lines = text.split("\n");
    if (lines.at(-1) === "") lines.pop();
    for (const line of lines) this.#feed.publish({ service: this.#service, stream, at, line });
  }
}
