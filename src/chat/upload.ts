import type { IncomingHttpHeaders } from "node:http";
import type { Readable } from "node:stream";
import { Busboy, type BusboyFileStream, type BusboyHeaders } from "@fastify/busboy";
import { EdgeError } from "../http/problem.ts";

export interface Upload {
  readonly filename: string;
  /** The other parts of the form, which may come after the file. */
  readonly fields: ReadonlyMap<string, string>;
}

const fieldsMax = 16;
const fieldBytesMax = 1024;
const filenameCharsMax = 255;

/**
 * Reads a form with one file, `multipart/form-data`, whose pieces go to `take` as they come: the next is read
 * when that has resolved. Throws `EdgeError` `request-invalid` or `body-too-large`, and what `take` throws.
 * Whatever happens, the rest of the body is read and dropped: closed on, a sender would not see the answer.
 */
export async function receiveUpload(
  body: Readable,
  headers: IncomingHttpHeaders,
  { bytesMax, take }: { readonly bytesMax: number; readonly take: (piece: Uint8Array) => Promise<void> },
): Promise<Upload> {
  const form = formReader(headers, bytesMax);
  const { promise: whole, resolve, reject } = Promise.withResolvers<void>();
  const fields = new Map<string, string>();
  let filename: string | undefined;
  let taken: Promise<void> | undefined;

  form.on("file", (name, stream, given) => {
    // A form that ends in the middle of a part that nobody takes fails there, too.
    stream.on("error", () => {});
    if (name !== "file") return void stream.resume();
    filename = plainName(given);
    stream.once("limit", () => reject(tooLarge(bytesMax)));
    taken = takeAll(stream, take);
    taken.catch(reject);
  });
  form.on("field", (name, value) => void fields.set(name, value));
  form.on("finish", resolve);
  form.on("error", () => reject(invalid("The form is not whole.")));
  body.once("error", reject);
  body.once("close", () => {
    if (!body.readableEnded) reject(invalid("The upload broke off."));
  });
  try {
    body.pipe(form);
    await whole;
    await taken;
  } catch (error) {
    body.unpipe(form);
    throw error;
  } finally {
    body.resume();
  }
  if (filename === undefined) throw invalid("The form has no part `file` with a file name.");
  return { filename, fields };
}

function formReader(headers: IncomingHttpHeaders, bytesMax: number) {
  try {
    return new Busboy({
      headers: headers as BusboyHeaders,
      limits: { files: 1, fileSize: bytesMax, fields: fieldsMax, fieldSize: fieldBytesMax, headerPairs: 32 },
    });
  } catch {
    throw invalid("The body is not a form: `multipart/form-data` with a boundary is needed.");
  }
}

async function takeAll(stream: BusboyFileStream, take: (piece: Uint8Array) => Promise<void>): Promise<void> {
  for await (const piece of stream) await take(piece);
}

/** Names are shown, and no more than that: none is a path here, or steers a terminal. */
function plainName(name: string): string {
  return (
    name
      .replace(/\p{Cc}/gu, "")
      .toWellFormed()
      .slice(0, filenameCharsMax) || "file"
  );
}

function invalid(detail: string): EdgeError {
  return new EdgeError("request-invalid", detail);
}

function tooLarge(bytesMax: number): EdgeError {
  return new EdgeError("body-too-large", `A file may have ${bytesMax.toLocaleString("en")} bytes.`);
}
