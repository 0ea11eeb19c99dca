import type { ReadStream } from "node:fs";
import { pipeline } from "node:stream";
import { parse } from "csv-parse";
import { GpxDecoder } from "../tracking/decoders/gpx.ts";
import { movebankRows, type withoutCoordinates } from "../tracking/decoders/movebank-csv.ts";
import { type Rejection, type ReportedFix, reject } from "../tracking/fix.ts";

export type ImportFormat = "movebank" | "gpx";

/** A row or point of a file. */
export interface ImportRow {
  /** Line of the file on which it ends, from 1. */
  readonly line: number;
  readonly result: ReportedFix | Rejection | typeof withoutCoordinates;
}

export interface RowOptions {
  readonly format: ImportFormat;
  /** Key in place of the one in the file; GPX names none. */
  readonly device?: string | undefined;
  readonly subject?: string | undefined;
}

/** The file is not of the format, or breaks off in the middle. */
export class FileError extends Error {
  override readonly name = "FileError";
}

/** Reads a file row by row, whatever its size. Throws `FileError`. */
export async function* readRows(file: ReadStream, options: RowOptions): AsyncGenerator<ImportRow> {
  try {
    yield* options.format === "gpx" ? gpxPoints(file, options) : movebankFile(file, options);
  } catch (error) {
    if (error instanceof FileError || !(error instanceof Error)) throw error;
    throw new FileError(error.message, { cause: error });
  }
}

const recordMaxBytes = 1024 * 1024;

async function* movebankFile(file: ReadStream, options: RowOptions): AsyncGenerator<ImportRow> {
  const records = parse({
    bom: true,
    info: true,
    relax_column_count: true,
    skip_empty_lines: true,
    max_record_size: recordMaxBytes,
  });
  // What goes wrong with either shows in the loop below.
  pipeline(file, records, () => {});
  let decode: ReturnType<typeof movebankRows>;
  let columns = 0;
  for await (const { record, info } of records as AsyncIterable<CsvRecord>) {
    if (decode) {
      // A file that was cut off ends in the middle of a row, perhaps of a number: half a latitude is a wrong one.
      const isWhole = record.length >= columns;
      const result = isWhole ? decode(record, Date.now()) : shortRow(record.length, columns);
      yield { line: info.lines, result };
      continue;
    }
    columns = record.length;
    decode = movebankRows(record, options);
    if (!decode) {
      throw new FileError(
        "this is not a Movebank event file: its first line must name timestamp, location-lat, location-long " +
          "and tag-local-identifier or individual-local-identifier",
      );
    }
  }
  if (!decode) throw new FileError("the file is empty");
}

function shortRow(length: number, columns: number): Rejection {
  return reject("item-invalid", `has ${length} of ${columns} columns: the row is cut off`);
}

interface CsvRecord {
  readonly record: string[];
  readonly info: { readonly lines: number };
}

async function* gpxPoints(file: ReadStream, options: RowOptions): AsyncGenerator<ImportRow> {
  const text = new TextDecoder();
  const decoder = new GpxDecoder({
    device: options.device ?? "",
    subject: options.subject,
    nowMs: Date.now(),
  });
  for await (const bytes of file as AsyncIterable<Buffer>) {
    yield* decoder.push(text.decode(bytes, { stream: true }));
  }
  yield* decoder.push(text.decode());
  decoder.end();
}
