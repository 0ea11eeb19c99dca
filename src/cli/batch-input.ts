import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { textLines, unreadable } from "../chat/batches/text-lines.ts";

/** What lines that are not OpenAI's own are made into. */
export interface InputOptions {
  /** Absent: what the file's own lines name, else `/v1/chat/completions`. */
  readonly endpoint?: string | undefined;
  readonly model?: string | undefined;
  readonly system?: string | undefined;
}

/** A file as the chat server takes it. Disposing of it removes the copy. */
export interface BatchInput extends AsyncDisposable {
  readonly path: string;
  readonly endpoint: string;
  readonly lines: number;
  /** The same for the same questions: by it a batch is found again. */
  readonly sha256: string;
}

/** The file cannot be read as questions; the message names the line. */
export class BatchInputError extends Error {
  override readonly name = "BatchInputError";
}

/** OpenAI's lines; objects with a `prompt`; or a question on each line. */
type Form = "openai" | "objects" | "text";

const lineBytesMax = 8 * 1024 * 1024;

/**
 * Makes OpenAI's batch lines of a file, whose first line says what it has: such lines already, objects with a
 * `prompt`, or one question a line. Empty lines ask nothing. Throws `BatchInputError`.
 */
export async function prepareInput(file: string, options: InputOptions): Promise<BatchInput> {
  const folder = await mkdtemp(join(tmpdir(), "pugmark-batch-"));
  const remove = () => rm(folder, { recursive: true, force: true });
  const path = join(folder, "input.jsonl");
  const hash = createHash("sha256");
  let endpoint = options.endpoint;
  let lines = 0;

  async function* converted() {
    let form: Form | undefined;
    let number = 0;
    for await (const text of textLines(createReadStream(file), lineBytesMax)) {
      number += 1;
      if (text === unreadable)
        throw new BatchInputError(`line ${number} is not UTF-8, or has more than 8 MiB`);
      if (text.trim() === "") {
        // Kept, so that the numbers of lines stay those of the file.
        yield "\n";
        continue;
      }
      const value = parsed(text);
      form ??= formOf(value);
      endpoint ??= (form === "openai" && urlOf(value)) || "/v1/chat/completions";
      const line = `${lineOf(form, text, value, number, endpoint, options)}\n`;
      lines += 1;
      hash.update(line);
      yield line;
    }
  }

  try {
    await pipeline(converted, createWriteStream(path));
    if (endpoint === undefined) throw new BatchInputError("the file has no lines");
  } catch (error) {
    await remove();
    throw error;
  }
  hash.update(endpoint);
  return { path, endpoint, lines, sha256: hash.digest("hex"), [Symbol.asyncDispose]: remove };
}

function formOf(value: unknown): Form {
  if (!isObject(value)) return "text";
  return "body" in value ? "openai" : "objects";
}

function lineOf(
  form: Form,
  text: string,
  value: unknown,
  number: number,
  endpoint: string,
  options: InputOptions,
): string {
  // What is wrong in them the server says, line by line.
  if (form === "openai") return text;
  if (form === "text") return questionLine(`line-${number}`, text.trim(), {}, endpoint, options);
  if (!isObject(value)) throw new BatchInputError(`line ${number} is not a JSON object, as those before are`);
  const { id, custom_id, prompt, system, ...parameters } = value;
  if (typeof prompt !== "string" && !Array.isArray(value.messages)) {
    throw new BatchInputError(`line ${number} has neither a prompt nor messages`);
  }
  const name = custom_id ?? id;
  const customId = typeof name === "string" || typeof name === "number" ? String(name) : `line-${number}`;
  const instructions = typeof system === "string" ? system : options.system;
  return questionLine(customId, prompt, parameters, endpoint, { ...options, system: instructions });
}

/** A question as one of OpenAI's lines. */
function questionLine(
  customId: string,
  prompt: unknown,
  parameters: Readonly<Record<string, unknown>>,
  endpoint: string,
  { model, system }: InputOptions,
): string {
  const messages = [
    ...(system === undefined ? [] : [{ role: "system", content: system }]),
    { role: "user", content: prompt },
  ];
  const asked = endpoint === "/v1/chat/completions" ? { messages } : { prompt };
  const body = { ...(model === undefined ? {} : { model }), ...asked, ...parameters };
  return JSON.stringify({ custom_id: customId, method: "POST", url: endpoint, body });
}

function urlOf(value: unknown): string | undefined {
  return isObject(value) && typeof value.url === "string" ? value.url : undefined;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
