import { once } from "node:events";
import { stripVTControlCharacters } from "node:util";

/** Where lines go by while a status stays at the foot: on a terminal. Elsewhere only the lines. */
export interface View extends Disposable {
  /** Shows a line above the foot. */
  readonly print: (line: string) => void;
  /** Resolves when what was printed is on its way: whoever prints a lot waits, and nothing piles up. */
  readonly ready: () => Promise<void>;
  /** Replaces the foot. */
  readonly setFoot: (lines: readonly string[]) => void;
}

const redrawMs = 40;

/** The view that suits the stream. Lines that come faster than a screen can show cost one write a frame. */
export function openView(stream: NodeJS.WriteStream): View {
  neverBlock(stream);
  return stream.isTTY ? new LiveView(stream) : plainView(stream);
}

/**
 * Node writes to terminals synchronously. One that is stopped, by Ctrl+S or a connection that hangs, would stop the
 * manager with all its probes. What is not documented may be missing one day; then it is as without this.
 */
function neverBlock(stream: NodeJS.WriteStream): void {
  const { _handle: handle } = stream as { _handle?: { setBlocking?: (isBlocking: boolean) => void } };
  handle?.setBlocking?.(false);
}

async function drained(stream: NodeJS.WriteStream): Promise<void> {
  if (stream.writableNeedDrain) await once(stream, "drain");
}

function plainView(stream: NodeJS.WriteStream): View {
  return {
    print: (line) => stream.write(`${stripVTControlCharacters(line)}\n`),
    ready: () => drained(stream),
    setFoot: () => {},
    [Symbol.dispose]: () => {},
  };
}

class LiveView implements View {
  readonly #stream: NodeJS.WriteStream;
  #pending: string[] = [];
  #foot: readonly string[] = [];
  #drawn = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
    stream.on("resize", this.#redraw);
  }

  readonly print = (line: string): void => {
    this.#pending.push(line);
    this.#schedule();
  };

  readonly ready = (): Promise<void> => drained(this.#stream);

  readonly setFoot = (lines: readonly string[]): void => {
    this.#foot = lines;
    this.#schedule();
  };

  [Symbol.dispose](): void {
    this.#stream.off("resize", this.#redraw);
    clearTimeout(this.#timer);
    this.#foot = [];
    this.#redraw();
  }

  #schedule(): void {
    this.#timer ??= setTimeout(this.#redrawWhenReady, redrawMs);
  }

  readonly #redrawWhenReady = (): void => {
    if (this.#stream.writableNeedDrain) this.#stream.once("drain", this.#redraw);
    else this.#redraw();
  };

  readonly #redraw = (): void => {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const up = this.#drawn > 0 ? `\r\x1b[${this.#drawn}A` : "\r";
    const foot = this.#foot.map((line) => cut(line, this.#stream.columns || 80));
    const lines = [...this.#pending, ...foot];
    this.#stream.write(`${up}\x1b[J${lines.map((line) => `${line}\n`).join("")}`);
    this.#pending = [];
    this.#drawn = foot.length;
  };
}

/** The foot must not wrap, or the next redraw would begin in the wrong row. */
function cut(line: string, columns: number): string {
  const plain = stripVTControlCharacters(line);
  return plain.length < columns ? line : `${plain.slice(0, Math.max(0, columns - 2))}…`;
}
