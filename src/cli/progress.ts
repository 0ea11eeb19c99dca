const redrawMs = 100;
const width = 24;

/** A bar on a terminal: share of the bytes, rows, rate and time left. Writes nothing where there is no terminal. */
export class Progress {
  readonly #stream: NodeJS.WritableStream & { readonly isTTY?: boolean };
  /** What it counts up to. */
  readonly total: number;
  readonly #clock: () => number;
  readonly #startedAt: number;
  /** What was done before, of which neither rate nor time left is known. */
  #before: { readonly bytes: number; readonly rows: number } = { bytes: 0, rows: 0 };
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

  /** Goes on where an earlier run was left. */
  from(bytes: number, rows: number): void {
    this.#before = { bytes, rows };
  }

  /** Shows how far it is; often called, seldom drawn. */
  update(bytes: number, rows: number): void {
    const now = this.#clock();
    if (!this.#stream.isTTY || now - this.#drawnAt < redrawMs) return;
    this.#drawnAt = now;
    const seconds = (now - this.#startedAt) / 1000;
    this.#stream.write(`\r\u001b[K${progressLine(bytes, this.total, rows, seconds, this.#before)}`);
  }

  /** Takes the bar away. */
  end(): void {
    if (this.#stream.isTTY && this.#drawnAt > Number.NEGATIVE_INFINITY) this.#stream.write("\r\u001b[K");
  }
}

/** The bar as text: `bytes` of `bytesTotal` and `rows`; all of them but those `before` in `seconds`. */
export function progressLine(
  bytes: number,
  bytesTotal: number,
  rows: number,
  seconds: number,
  before = { bytes: 0, rows: 0 },
): string {
  const share = bytesTotal > 0 ? Math.min(1, bytes / bytesTotal) : 1;
  const filled = Math.round(share * width);
  const rate = seconds > 0 ? Math.round((rows - before.rows) / seconds) : 0;
  const gone = bytes - before.bytes;
  const left = gone > 0 ? Math.ceil((seconds / gone) * Math.max(0, bytesTotal - bytes)) : undefined;
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
