import { ChildOutput } from "./child-output.ts";
import type { LogFile, LogPolicy, LogSource } from "./log-file.ts";
import type { LogLine, LogRange, LogReader } from "./log-reader.ts";
import type { PipePool } from "./output-pipe.ts";

/** One stream of a process. */
export interface OutputSource extends LogSource {
  readonly stream: "stdout" | "stderr";
}

const ownSource: LogSource = { stream: null };

/** The output of one service: into its file, whole, and from there to whoever reads or follows it. */
export class ServiceLog {
  readonly #service: string;
  readonly #file: LogFile;
  readonly #pipes: PipePool;
  #bytesTotal = 0;

  constructor(service: string, file: LogFile, pipes: PipePool) {
    this.#service = service;
    this.#file = file;
    this.#pipes = pipes;
  }

  /** When the log turns, from now on. */
  set policy(policy: LogPolicy) {
    this.#file.policy = policy;
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
    this.#file.append(block, source);
  }

  /** Resolves when all that was taken so far is in the file, or lost to an error of the disk. */
  async written(): Promise<void> {
    await this.#file.inOrder(async () => undefined);
  }

  /** Adds a line of the manager's own. */
  write(line: string): void {
    this.#file.append(Buffer.from(`${line}\n`), ownSource);
  }

  /** A reader whose past is what was printed until now, and whose new lines are all after it. */
  async open(range: LogRange): Promise<LogReader> {
    return await this.#file.inOrder(async () => {
      const { LogReader } = await import("./log-reader.ts"); // not every manager is ever read from
      return await LogReader.open(this.#service, this.#file.path, range);
    });
  }

  /** The last lines that were printed until now. */
  async tail(lines: number): Promise<LogLine[]> {
    const reader = await this.open({ tailLines: lines });
    const found: LogLine[] = [];
    for (let batch = await reader.nextPast(true); batch; batch = await reader.nextPast(true))
      found.push(...batch);
    await reader.close();
    return found;
  }

  /** Grows whenever there is something new to read. */
  get growth(): number {
    return this.#file.growth;
  }

  get isClosed(): boolean {
    return this.#file.isClosed;
  }

  /** Calls the listener whenever `growth` has grown. Returns what ends that. */
  onGrowth(listener: () => void): () => void {
    return this.#file.onGrowth(listener);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}
