import { createReadStream, statSync } from "node:fs";
import { basename, extname } from "node:path";
import { stripVTControlCharacters, styleText } from "node:util";
import { fixJson, iso } from "../api/render.ts";
import { originOf } from "../config/address.ts";
import type { Config } from "../config/config.ts";
import { withoutCoordinates } from "../tracking/decoders/movebank-csv.ts";
import { isRejection, type ReportedFix } from "../tracking/fix.ts";
import { FileError, type ImportFormat, type ImportRow, readRows } from "./import-rows.ts";
import { type ApiAddress, Upload, UploadError } from "./import-upload.ts";
import { Progress } from "./progress.ts";
import { internalKey } from "./station.ts";

export interface ImportOptions {
  /** Key of the device; of a GPX file the file's name unless given. */
  readonly device?: string | undefined;
  /** Name of the subject that the device was on. */
  readonly subject?: string | undefined;
  /** Absent: the file's ending says it. */
  readonly format?: ImportFormat | undefined;
  /** The summary as JSON, with every refused line. */
  readonly json?: boolean | undefined;
}

/** Where the summary goes, and where progress and what is wrong. */
export interface ImportStreams {
  readonly out: NodeJS.WritableStream;
  readonly err: NodeJS.WritableStream & { readonly isTTY?: boolean };
}

const rowsPerBatch = 2_000;
const bytesPerBatch = 4 * 1024 * 1024;
const batchesInFlight = 3;
/** Lines that are kept with their reason; of more than these only the number is known. */
const refusalsKept = 100_000;
const refusalsShown = 20;

/** `pugmark import`: reads a file into this machine's station. Gives the exit code. */
export async function importCommand(config: Config, file: string, options: ImportOptions): Promise<number> {
  const baseUrl = originOf({ host: config.HOST, port: config.API_PORT });
  const key = config.PUGMARK_API_KEYS ? internalKey(config) : undefined;
  return importFile(file, options, { baseUrl, key }, { out: process.stdout, err: process.stderr });
}

/**
 * Reads a track file of any size and sends it to an API server, batch by batch. Gives the exit code: 0 when
 * every row is stored (now or before) or has no coordinates, which is normal in such files; 1 when a row was
 * refused, or when the import broke off, after which the same command may be run again; 2 when the file cannot
 * be read as what it should be.
 */
export async function importFile(
  file: string,
  options: ImportOptions,
  address: ApiAddress,
  { out, err }: ImportStreams,
): Promise<number> {
  const fail = (line: string, code: number) => {
    err.write(`${styleText("red", "pugmark:", { stream: err })} ${plain(line)}\n`);
    return code;
  };
  const format = options.format ?? formatOf(file);
  if (!format) return fail(`${file}: neither .csv nor .gpx; say --format movebank or --format gpx`, 2);
  const size = sizeOf(file);
  if (size === undefined) return fail(`${file}: there is no such file, or it cannot be read`, 2);

  const device = options.device ?? (format === "gpx" ? basename(file, extname(file)) : undefined);
  const stream = createReadStream(file, { highWaterMark: 256 * 1024 });
  const progress = new Progress(err, size);
  const run = new Import(new Upload(address));
  try {
    const rows = readRows(stream, { format, device, subject: options.subject });
    await run.all(rows, () => progress.update(stream.bytesRead, run.read));
  } catch (error) {
    progress.end();
    const isOurs = error instanceof FileError || error instanceof UploadError;
    if (!isOurs) throw error;
    if (run.read === 0 && error instanceof FileError) return fail(`${file}: ${error.message}`, 2);
    print(run, file, format, options, out);
    return fail(`${file}: not all of it was read: ${error.message}; what is stored stays, run it again`, 1);
  } finally {
    stream.destroy();
  }
  progress.end();
  print(run, file, format, options, out);
  return run.refused > 0 ? 1 : 0;
}

interface Refusal {
  readonly line: number;
  readonly code: string;
  readonly detail: string;
}

/** When a device was on a subject, as far as the file goes. */
interface Seen {
  readonly device: string;
  readonly subject: string;
  readonly species: string | undefined;
  firstAt: number;
  lastAt: number;
}

/** Positions as JSON text, and the line that each is from. */
interface Batch {
  readonly items: string[];
  readonly lines: number[];
}

/** One run over a file: what was sent and what became of it. */
class Import {
  read = 0;
  stored = 0;
  duplicates = 0;
  outliers = 0;
  withoutCoordinates = 0;
  refused = 0;
  readonly refusals: Refusal[] = [];
  readonly refusedBy = new Map<string, number>();
  readonly #upload: Upload;
  readonly #seen = new Map<string, Seen>();

  constructor(upload: Upload) {
    this.#upload = upload;
  }

  /** Sends every row, and then says whose each stretch of a device's fixes is. */
  async all(rows: AsyncIterable<ImportRow>, onBatch: () => void): Promise<void> {
    const batches = this.#batches(rows);
    // Several take turns at one generator; the first that fails closes it for all.
    const sender = async () => {
      for await (const batch of batches) {
        await this.#send(batch);
        onBatch();
      }
    };
    const senders = await Promise.allSettled(Array.from({ length: batchesInFlight }, sender));
    for (const settled of senders) if (settled.status === "rejected") throw settled.reason;
    await this.#stateDeployments();
  }

  get subjects(): string[] {
    return [...new Set([...this.#seen.values()].map(({ subject }) => subject))].sort();
  }

  async *#batches(rows: AsyncIterable<ImportRow>): AsyncGenerator<Batch> {
    let batch: Batch = { items: [], lines: [] };
    let bytes = 0;
    let broken: unknown;
    try {
      for await (const { line, result } of rows) {
        this.read += 1;
        if (result === withoutCoordinates) this.withoutCoordinates += 1;
        else if (isRejection(result)) this.#refuse({ line, code: result.code, detail: result.detail });
        else {
          const item = this.#take(result);
          batch.items.push(item);
          batch.lines.push(line);
          bytes += item.length;
        }
        if (batch.items.length < rowsPerBatch && bytes < bytesPerBatch) continue;
        yield batch;
        batch = { items: [], lines: [] };
        bytes = 0;
      }
    } catch (error) {
      broken = error; // what came before it is good, and goes in first
    }
    if (batch.items.length > 0) yield batch;
    if (broken) throw broken;
  }

  #take(fix: ReportedFix): string {
    const { device, subject, species, time } = fix;
    if (fix.outlier !== undefined) this.outliers += 1;
    if (subject !== undefined) {
      const key = JSON.stringify([device, subject]);
      const seen = this.#seen.get(key) ?? { device, subject, species, firstAt: time, lastAt: time };
      seen.firstAt = Math.min(seen.firstAt, time);
      seen.lastAt = Math.max(seen.lastAt, time);
      this.#seen.set(key, seen);
    }
    return fixJson(fix, { subject: subject ?? null, species: species ?? null });
  }

  async #send({ items, lines }: Batch): Promise<void> {
    const { accepted, duplicates, rejected } = await this.#upload.positions(items);
    this.stored += accepted;
    this.duplicates += duplicates;
    for (const { index, code, detail } of rejected) this.#refuse({ line: lines[index] ?? 0, code, detail });
  }

  #refuse(refusal: Refusal): void {
    this.refused += 1;
    this.refusedBy.set(refusal.code, (this.refusedBy.get(refusal.code) ?? 0) + 1);
    if (this.refusals.length < refusalsKept) this.refusals.push(refusal);
  }

  /** The longest first, so that a short loan of a tag comes out of the long one around it. */
  async #stateDeployments(): Promise<void> {
    const longestFirst = [...this.#seen.values()].sort(
      (a, b) => b.lastAt - b.firstAt - (a.lastAt - a.firstAt),
    );
    for (const { device, subject, species, firstAt, lastAt } of longestFirst) {
      const times = { first_at: iso(firstAt), last_at: iso(lastAt) };
      await this.#upload.deployment({ device, subject, species, ...times });
    }
  }
}

function print(
  run: Import,
  file: string,
  format: ImportFormat,
  options: ImportOptions,
  out: NodeJS.WritableStream,
): void {
  run.refusals.sort((a, b) => a.line - b.line);
  out.write(
    options.json ? `${JSON.stringify(summaryJson(run, file, format), null, 2)}\n` : summaryText(run, file),
  );
}

function summaryJson(run: Import, file: string, format: ImportFormat) {
  return {
    file,
    format,
    read: run.read,
    stored: run.stored,
    duplicates: run.duplicates,
    outliers: run.outliers,
    without_coordinates: run.withoutCoordinates,
    rejected_by_code: Object.fromEntries(run.refusedBy),
    rejected: run.refusals,
    subjects: run.subjects,
  };
}

function summaryText(run: Import, file: string): string {
  const count = (number: number) => number.toLocaleString("en").padStart(12);
  const lines = [
    `${basename(file)}:`,
    `${count(run.read)} rows read`,
    `${count(run.stored)} stored`,
    `${count(run.duplicates)} there already, or repeated in the file`,
    `${count(run.outliers)} marked as outliers: kept, and left out of tracks`,
    `${count(run.withoutCoordinates)} without coordinates`,
    `${count(run.refused)} refused`,
  ];
  for (const { line, code, detail } of run.refusals.slice(0, refusalsShown)) {
    lines.push(`  line ${line}: ${detail} (${code})`);
  }
  if (run.refused > refusalsShown) {
    const counts = [...run.refusedBy].map(([code, number]) => `${code} ${number.toLocaleString("en")}`);
    lines.push(`  … in all: ${counts.join(", ")}; --json lists every line`);
  }
  if (run.subjects.length > 0) lines.push(`of ${run.subjects.slice(0, refusalsShown).join(", ")}`);
  return `${lines.map(plain).join("\n")}\n`;
}

function formatOf(file: string): ImportFormat | undefined {
  const ending = extname(file).toLowerCase();
  if (ending === ".gpx") return "gpx";
  return ending === ".csv" ? "movebank" : undefined;
}

function sizeOf(file: string): number | undefined {
  const stats = statSync(file, { throwIfNoEntry: false });
  return stats?.isFile() ? stats.size : undefined;
}

/** Names come out of the file: none may steer the terminal. */
function plain(text: string): string {
  return stripVTControlCharacters(text).replace(/\p{Cc}/gu, " ");
}
