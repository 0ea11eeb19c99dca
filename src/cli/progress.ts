const redrawMs = 100;
const width = 24;

/** A bar on a terminal: share of the bytes, rows, rate and time left. Writes nothing where there is no terminal. */
export class Progress {
  readonly #stream: NodeJS.WritableStream & { readonly isTTY?: boolean };
  /** What it counts up to. */
  readonly total: number;
  readonly #clock: () => number;
  readonly #startedAt: number;
  #drawnAt = Number.NEGATIVE_INFINITY;

  constructor(
    stream: NodeJS.WritableStream & { readonly isTTY?: boolean },
    bytesTotal: number,
    clock: () => number = Date.now,
  ) {
    this.#stream = stream;
    this.total = bytesTotal;
    this.#clock = clock;
    this.#startedAt = clock();
  }

  /** Shows how far it is; often called, seldom drawn. */
  update(bytes: number, rows: number): void {
    const now = this.#clock();
    if (!this.#stream.isTTY || now - this.#drawnAt < redrawMs) return;
    this.#drawnAt = now;
    this.#stream.write(`\r\u001b[K${progressLine(bytes, this.total, rows, (now - this.#startedAt) / 1000)}`);
  }

  /** Takes the bar away. */
  end(): void {
    if (this.#stream.isTTY && this.#drawnAt > Number.NEGATIVE_INFINITY) this.#stream.write("\r\u001b[K");
  }
}

/** The bar as text: `bytes` of `bytesTotal` and `rows` in `seconds`. */
export function progressLine(bytes: number, bytesTotal: number, rows: number, seconds: number): string {
  const share = bytesTotal > 0 ? Math.min(1, bytes / bytesTotal) : 1;
  const filled = Math.round(share * width);
  const rate = seconds > 0 ? Math.round(rows / seconds) : 0;
  const left = share > 0 ? Math.ceil((seconds / share) * (1 - share)) : undefined;
  return [
    `${"█".repeat(filled)}${"░".repeat(width - filled)}`,
    `${Math.floor(share * 100)} %`,
    `${rows.toLocaleString("en")} rows`,
    `${rate.toLocaleString("en")}/s`,
    left === undefined ? "" : `${left} s left`,
  ]
    .join("  ")
    .trimEnd();
}
