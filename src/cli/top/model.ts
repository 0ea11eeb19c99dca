import type { MeasuredService } from "../../process-manager/process-usage.ts";

/** What a key means, by Node's name for it or the character that it types. */
export interface Key {
  readonly name: string;
  readonly character: string;
}

/** What the person wants done to the station, or to `top` itself. */
export type Wish =
  | { readonly kind: "start" | "stop" | "restart"; readonly service: string }
  | { readonly kind: "quit" };

/** Lines of the selected service that are kept for scrolling back. */
const linesMax = 5_000;

/** Everything that `top` shows, and what the keys do to it. */
export class TopModel {
  mode: "table" | "logs" | "help" = "table";
  /** The line at the foot: what was done, and what went wrong. */
  message = "";
  isAway = false;
  filter = "";
  isFiltering = false;
  /** Lines of the log below the last one shown; 0 follows. */
  linesBelow = 0;
  lines: string[] = [];
  #services: readonly MeasuredService[] = [];
  #selected = "";

  get services(): readonly MeasuredService[] {
    return this.#services;
  }

  set services(services: readonly MeasuredService[]) {
    this.#services = services;
    this.#keepSelection();
  }

  /** Those that the filter lets through. */
  get visible(): readonly MeasuredService[] {
    return this.#services.filter(({ name }) => name.includes(this.filter));
  }

  get selected(): MeasuredService | undefined {
    return this.visible.find(({ name }) => name === this.#selected);
  }

  /** Adds a line to the log of the selected service. Who has scrolled back goes on seeing the same lines. */
  addLine(line: string): void {
    this.lines.push(line);
    if (this.linesBelow > 0) this.linesBelow += 1;
    // Seldom, and many at a time: each shift of a long list would cost as much.
    if (this.lines.length > linesMax * 1.1) this.lines = this.lines.slice(-linesMax);
    this.linesBelow = Math.min(this.linesBelow, this.lines.length);
  }

  clearLines(): void {
    this.lines = [];
    this.linesBelow = 0;
  }

  /** Does what the key means here, and gives back what is left to do outside. `pageRows`: how far a page goes. */
  press(key: Key, pageRows: number): Wish | undefined {
    this.message = "";
    if (key.name === "ctrl-c") return { kind: "quit" };
    if (this.isFiltering) return this.#editFilter(key);
    if (key.character === "q") return { kind: "quit" };
    if (this.mode === "help") {
      this.mode = "table";
      return undefined;
    }
    if (key.character === "?") this.mode = "help";
    else if (this.mode === "logs") this.#pressInLogs(key, pageRows);
    else this.#pressInTable(key, pageRows);
    return this.#wishOf(key);
  }

  #wishOf({ character }: Key): Wish | undefined {
    const kind = { r: "restart", s: "stop", S: "start" }[character];
    const service = this.selected?.name;
    return kind && service ? ({ kind, service } as Wish) : undefined;
  }

  #pressInTable({ name, character }: Key, pageRows: number): void {
    const steps: Readonly<Record<string, number>> = {
      up: -1,
      k: -1,
      down: 1,
      j: 1,
      pageup: -pageRows,
      pagedown: pageRows,
      home: Number.NEGATIVE_INFINITY,
      end: Number.POSITIVE_INFINITY,
    };
    const step = steps[name];
    if (step !== undefined) this.#move(step);
    else if (name === "return" || character === "l") this.mode = this.selected ? "logs" : "table";
    else if (character === "/") this.isFiltering = true;
    else if (name === "escape") this.#setFilter("");
  }

  #pressInLogs({ name, character }: Key, pageRows: number): void {
    const steps: Readonly<Record<string, number>> = {
      up: 1,
      k: 1,
      down: -1,
      j: -1,
      pageup: pageRows,
      pagedown: -pageRows,
      home: Number.POSITIVE_INFINITY,
      end: Number.NEGATIVE_INFINITY,
    };
    const step = character === "G" ? Number.NEGATIVE_INFINITY : character === "g" ? Infinity : steps[name];
    if (step !== undefined)
      this.linesBelow = Math.min(
        Math.max(0, this.linesBelow + step),
        Math.max(0, this.lines.length - pageRows),
      );
    else if (name === "return" || name === "escape" || character === "l") {
      this.mode = "table";
      this.linesBelow = 0;
    }
  }

  #editFilter({ name, character }: Key): undefined {
    if (name === "return") this.isFiltering = false;
    else if (name === "escape") {
      this.isFiltering = false;
      this.#setFilter("");
    } else if (name === "backspace") this.#setFilter(this.filter.slice(0, -1));
    else if (/^[a-z0-9-]$/i.test(character)) this.#setFilter(this.filter + character.toLowerCase());
  }

  #setFilter(filter: string): void {
    this.filter = filter;
    this.#keepSelection();
  }

  #keepSelection(): void {
    if (!this.selected) this.#selected = this.visible[0]?.name ?? "";
  }

  #move(step: number): void {
    const { visible } = this;
    const index = visible.findIndex(({ name }) => name === this.#selected) + step;
    this.#selected = visible[Math.min(Math.max(0, index), visible.length - 1)]?.name ?? "";
  }
}
