/** What a terminal shows and says while a program has it to itself. */
export interface ScreenParts {
  readonly input: NodeJS.ReadStream;
  readonly output: NodeJS.WriteStream;
  /** Gives the lines of the next frame, none wider than `columns` and at most `rows` of them. */
  readonly render: (columns: number, rows: number) => readonly string[];
}

const enter = "\x1b[?1049h\x1b[?25l\x1b[?7l"; // the alternate screen, no cursor, no wrapping
const leave = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/** Terminals that know these show all of a frame or nothing; the others ignore them. */
const beginFrame = "\x1b[?2026h";
const endFrame = "\x1b[?2026l";

/** Changes that come closer than this share a frame. */
const frameMs = 30;

/**
 * The whole terminal, from its making until it is disposed of; what was on it before is then there again, however
 * the program ends. A frame is one write, of the lines that have changed.
 */
export class Screen implements Disposable {
  readonly #parts: ScreenParts;
  #shown: readonly string[] = [];
  #timer: NodeJS.Timeout | undefined;
  #isOpen = true;

  constructor(parts: ScreenParts) {
    this.#parts = parts;
    parts.input.setRawMode(true);
    parts.output.write(enter);
    parts.output.on("resize", this.#redrawAll);
    process.on("exit", this.#restore);
  }

  /** Asks for a frame soon. */
  readonly refresh = (): void => {
    if (this.#isOpen) this.#timer ??= setTimeout(this.#draw, frameMs);
  };

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#parts.output.off("resize", this.#redrawAll);
    process.off("exit", this.#restore);
    this.#restore();
  }

  readonly #restore = (): void => {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#parts.input.setRawMode(false);
    this.#parts.output.write(leave);
  };

  readonly #redrawAll = (): void => {
    this.#shown = [];
    this.refresh();
  };

  readonly #draw = (): void => {
    this.#timer = undefined;
    const { output, render } = this.#parts;
    const lines = render(output.columns, output.rows);
    const isFirst = this.#shown.length === 0;
    const count = Math.max(lines.length, this.#shown.length);
    const changed = Array.from({ length: count }, (_, row) => {
      const line = lines[row] ?? "";
      return line === this.#shown[row] ? "" : `\x1b[${row + 1};1H${line}\x1b[K`;
    }).join("");
    this.#shown = lines;
    if (changed !== "") output.write(`${beginFrame}${isFirst ? "\x1b[2J" : ""}${changed}${endFrame}`);
  };
}
