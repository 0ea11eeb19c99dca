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
const chatEndpoint = "/v1/chat/completions";

/** A question, and instructions where the endpoint takes any, as its body has them. */
const bodies: Readonly<Record<string, (prompt: string, system: string | undefined) => object>> = {
  [chatEndpoint]: (prompt, system) => ({ messages: told(system, [{ role: "user", content: prompt }]) }),
  "/v1/completions": (prompt) => ({ prompt }),
  "/v1/embeddings": (prompt) => ({ input: prompt }),
  "/v1/responses": (prompt, system) => ({ instructions: system, input: prompt }),
};
const withoutInstructions = new Set(["/v1/completions", "/v1/embeddings"]);

/**
 * Makes OpenAI's batch lines of a file, whose first line says what it has: such lines already, objects with a
 * `prompt`, or one question a line. Empty lines ask nothing. Throws `BatchInputError`.
 */
export async function prepareInput(
  file: string,
  options: InputOptions,
  signal: AbortSignal,
): Promise<BatchInput> {
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
      endpoint ??= (form === "openai" && urlOf(value)) || chatEndpoint;
      if (lines === 0) checkOptions(form, endpoint, options);
      const line = `${lineOf(form, text, value, number, endpoint, options)}\n`;
      lines += 1;
      hash.update(line);
      yield line;
    }
  }

  try {
    await pipeline(converted, createWriteStream(path), { signal });
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

/** Throws for an option that could mean nothing to any line. */
function checkOptions(form: Form, endpoint: string, { model, system }: InputOptions): void {
  if (form === "openai") {
    if (model === undefined && system === undefined) return;
    throw new BatchInputError("its lines are whole requests: --model and --system belong into each body");
  }
  if (!bodies[endpoint]) {
    throw new BatchInputError(`--endpoint ${endpoint} is none of ${Object.keys(bodies).join(", ")}`);
  }
  if (system !== undefined && withoutInstructions.has(endpoint)) {
    throw new BatchInputError(`${endpoint} takes no --system: leave it out, or write it into the questions`);
  }
}

function lineOf(
  form: Form,
  text: string,
  value: unknown,
  number: number,
  endpoint: string,
  { model, system }: InputOptions,
): string {
  // What is wrong in them the server says, line by line.
  if (form === "openai") return text;
  const question = form === "text" ? { prompt: text.trim() } : value;
  if (!isObject(question)) {
    throw new BatchInputError(`line ${number} is not a JSON object, as those before are`);
  }
  const { id, custom_id, prompt, messages, system: ownSystem, ...parameters } = question;
  const asked = askedOf({ prompt, messages, ownSystem, system }, endpoint);
  if (typeof asked === "string") throw new BatchInputError(`line ${number} ${asked}`);
  const name = custom_id ?? id;
  const customId = typeof name === "string" || typeof name === "number" ? String(name) : `line-${number}`;
  const body = { ...(model === undefined ? {} : { model }), ...asked, ...parameters };
  if (endpoint === "/v1/embeddings" && !("model" in body)) {
    throw new BatchInputError(`line ${number} names no model, and none embeds by default: add --model`);
  }
  return JSON.stringify({ custom_id: customId, method: "POST", url: endpoint, body });
}

interface Question {
  readonly prompt: unknown;
  readonly messages: unknown;
  readonly ownSystem: unknown;
  /** For lines without instructions of their own. */
  readonly system: string | undefined;
}

/** What the endpoint is asked, or what is wrong with the line. */
function askedOf({ prompt, messages, ownSystem, system }: Question, endpoint: string): object | string {
  const own = ownSystem ?? undefined;
  if (own !== undefined && typeof own !== "string") return "has a system that is no text";
  if (own !== undefined && withoutInstructions.has(endpoint)) {
    return `has a system text, which ${endpoint} does not take: write it into the prompt`;
  }
  if (!Array.isArray(messages)) {
    return typeof prompt === "string"
      ? (bodies[endpoint]?.(prompt, own ?? system) ?? {})
      : "has neither a prompt nor messages";
  }
  if ((prompt ?? undefined) !== undefined) return "has both a prompt and messages";
  if (endpoint !== chatEndpoint) return `has messages, which ${endpoint} does not take: it needs a prompt`;
  const isTold = messages.some((message) => isObject(message) && instructing.has(message.role));
  if (isTold && own !== undefined) return "has a system text beside the one in its messages";
  return { messages: isTold ? messages : told(own ?? system, messages) };
}

const instructing = new Set<unknown>(["system", "developer"]);

function told(system: string | undefined, messages: readonly unknown[]): readonly unknown[] {
  return system === undefined ? messages : [{ role: "system", content: system }, ...messages];
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
