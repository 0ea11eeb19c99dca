import { statSync } from "node:fs";
import { basename, dirname, extname, join, resolve } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { stripVTControlCharacters, styleText } from "node:util";
import { originOf } from "../config/address.ts";
import type { Config } from "../config/config.ts";
import { BatchClient, BatchClientError, type ChatAddress, type RemoteBatch } from "./batch-client.ts";
import { BatchInputError, type InputOptions, prepareInput } from "./batch-input.ts";
import { batchLine, lookAt, paceOf } from "./batch-progress.ts";
import { exitInterrupted, untilInterrupted } from "./leaving.ts";
import { internalKey } from "./station.ts";
import { printTable } from "./table.ts";
import { isFileOrFree, isStandardOutput, removeFile, whyUnwritable } from "./whole-file.ts";

export interface BatchOptions extends InputOptions {
  /** Where the answers go, `-` for standard output. Default: beside the input, as `NAME.answers.jsonl`. */
  readonly output?: string | undefined;
  /** How long it may take, such as `24h`. */
  readonly window?: string | undefined;
  /** A batch to watch, in place of one from a file. */
  readonly resume?: string | undefined;
  /** A new batch, even where the same questions were asked before. */
  readonly again?: boolean | undefined;
  /** Each change as a line of JSON. */
  readonly json?: boolean | undefined;
}

export interface BatchStreams {
  readonly out: NodeJS.WritableStream;
  readonly err: NodeJS.WritableStream & { readonly isTTY?: boolean };
}

const pollMs = 500;
const hashName = "pugmark_sha256";
/** Batches whose answers are there or are coming. */
const good = new Set(["validating", "in_progress", "finalizing", "completed"]);
const problemsShown = 20;

/** `pugmark batch`: has this machine's station answer a file. Gives the exit code. */
export async function batchCommand(
  config: Config,
  file: string | undefined,
  options: BatchOptions,
): Promise<number> {
  const streams = { out: process.stdout, err: process.stderr };
  return batch(file, options, addressOf(config), streams, untilInterrupted());
}

/**
 * Has a chat server answer the lines of a file, watches it do so and writes the answers. The same questions
 * again find the batch they are in, under way or done. Gives the exit code: 0 where every line is answered; 1
 * where some were refused, the batch ended early or the station went away; 2 where the input is no
 * good; 130 where `signal` was aborted: a batch that is there goes on without its watcher.
 */
export async function batch(
  file: string | undefined,
  options: BatchOptions,
  address: ChatAddress,
  streams: BatchStreams,
  signal: AbortSignal,
): Promise<number> {
  const client = new BatchClient(address, signal);
  const fail = failer(streams.err);
  let ended: RemoteBatch | undefined;
  let id = options.resume;
  const name = file ?? id;
  if (name === undefined) return fail("a file is needed, or --resume with the id of a batch", 2);
  if (id === undefined && !isFile(name)) {
    return fail(`${name}: there is no such file, or it cannot be read`, 2);
  }
  const outputs = outputsFor(name, options.output);
  const unfit = whyUnfit(outputs, file, options);
  if (unfit !== undefined) return fail(unfit, 2);
  try {
    id ??= (await begin(client, name, options, streams.err, signal)).id;
    ended = await watch(client, id, options, streams, signal);
    if (ended.status === "failed") return fail(problemsOf(ended).join("\n"), 2);
    return await fetchAnswers(client, ended, outputs, options, streams);
  } catch (error) {
    if (signal.aborted) {
      streams.err.write(`${farewell(id, ended !== undefined)}\n`);
      return exitInterrupted;
    }
    if (error instanceof BatchInputError) return fail(`${file}: ${error.message}`, 2);
    // A disk that is full, or gone, after what may have been hours.
    if (ended && error instanceof Error && "syscall" in error) {
      const where = `${outputs.answers} or ${outputs.errors}`;
      return fail(`${where} cannot be written (${error.message}); ${howToFetch(ended.id)}`, 1);
    }
    if (!(error instanceof BatchClientError)) throw error;
    if (id === undefined) return fail(error.message, error.status === 400 || error.status === 413 ? 2 : 1);
    return fail(error.status === 404 ? error.message : `${error.message}; ${howToGoOn(id)}`, 1);
  }
}

/** `pugmark batch list`. */
export async function listCommand(config: Config, json: boolean): Promise<number> {
  return command(config, async (client) => {
    const batches = await client.list();
    if (json) console.log(JSON.stringify(batches, null, 2));
    else printTable(["batch", "status", "lines", "answered", "refused", "since"], batches.map(rowOf));
  });
}

/** `pugmark batch status`. */
export async function statusCommand(config: Config, id: string, json: boolean): Promise<number> {
  return command(config, async (client) => show(await client.get(id), json));
}

/** `pugmark batch cancel`. */
export async function cancelCommand(config: Config, id: string, json: boolean): Promise<number> {
  return command(config, async (client) => show(await client.cancel(id), json));
}

async function command(config: Config, work: (client: BatchClient) => Promise<void>): Promise<number> {
  try {
    await work(new BatchClient(addressOf(config)));
    return 0;
  } catch (error) {
    if (!(error instanceof BatchClientError)) throw error;
    return failer(process.stderr)(error.message, 1);
  }
}

async function begin(
  client: BatchClient,
  file: string,
  options: BatchOptions,
  err: BatchStreams["err"],
  signal: AbortSignal,
): Promise<RemoteBatch> {
  await using input = await prepareInput(file, options, signal);
  const same = ({ status, metadata }: RemoteBatch) =>
    good.has(status) && metadata?.[hashName] === input.sha256;
  let gone: RemoteBatch | undefined;
  for await (const before of options.again ? [] : client.all()) {
    if (!same(before)) continue;
    if (!(await client.hasFilesOf(before))) {
      gone ??= before;
      continue;
    }
    const state = before.status === "completed" ? "was answered before" : "is being answered already";
    err.write(`${plain(basename(file))} ${state}, as ${before.id}; --again asks anew\n`);
    return before;
  }
  if (gone) err.write(`the answers of ${gone.id} were deleted on the server: asking anew\n`);
  const input_file_id = await client.upload(input.path, basename(file));
  try {
    const created = await client.create({
      input_file_id,
      endpoint: input.endpoint,
      completion_window: options.window ?? "24h",
      metadata: { [hashName]: input.sha256 },
    });
    err.write(`${created.id}: ${input.lines.toLocaleString("en")} lines of ${plain(basename(file))}\n`);
    return created;
  } catch (error) {
    // Nobody else knows of it. Where there is a batch after all, the server keeps what that reads.
    await client.remove(input_file_id);
    throw error;
  }
}

/** Looks until the batch has ended. */
async function watch(
  client: BatchClient,
  id: string,
  { json }: BatchOptions,
  { out, err }: BatchStreams,
  signal: AbortSignal,
): Promise<RemoteBatch> {
  let told = "";
  let seen = await client.get(id);
  let first = lookAt(seen, Date.now());
  try {
    for (;;) {
      const pace = paceOf(first, lookAt(seen, Date.now()));
      // Until its lines are read there is nothing to be quick with.
      if (seen.status === "validating") first = lookAt(seen, Date.now());
      if (json) told = tell(out, told, JSON.stringify(changeOf(seen)), JSON.stringify(paceJson(seen, pace)));
      else if (err.isTTY) err.write(`\r\u001b[K${batchLine(seen, pace)}`);
      else told = tell(err, told, stepOf(seen), batchLine(seen, pace));
      if (!["validating", "in_progress", "finalizing", "cancelling"].includes(seen.status)) return seen;
      await wait(pollMs, undefined, { signal });
      seen = await client.get(id);
    }
  } finally {
    if (err.isTTY && !json) err.write("\r\u001b[K");
  }
}

/** Says what is new, and remembers it. */
function tell(stream: NodeJS.WritableStream, told: string, step: string, line: string): string {
  if (step !== told) stream.write(`${line}\n`);
  return step;
}

/** Without a terminal, a line for each tenth is enough. */
function stepOf({ status, request_counts: { total, completed, failed } }: RemoteBatch): string {
  return `${status} ${total > 0 ? Math.floor((10 * (completed + failed)) / total) : 0}`;
}

function changeOf({ status, request_counts }: RemoteBatch) {
  return { status, request_counts };
}

function paceJson({ id, status, request_counts }: RemoteBatch, { rate, leftS }: ReturnType<typeof paceOf>) {
  return { id, status, ...request_counts, rate: Math.round(rate * 10) / 10, left_s: leftS ?? null };
}

async function fetchAnswers(
  client: BatchClient,
  ended: RemoteBatch,
  { answers, errors }: Outputs,
  { json }: BatchOptions,
  { out, err }: BatchStreams,
): Promise<number> {
  const { output_file_id, error_file_id, request_counts, status, id } = ended;
  for (const [fileId, path] of [
    [output_file_id, answers],
    [error_file_id, errors],
  ] as const) {
    if (fileId) await client.download(fileId, path);
    // What stayed from an earlier run would be taken for this one's.
    else await removeFile(path);
  }
  const files = { output: output_file_id ? answers : null, errors: error_file_id ? errors : null };
  if (json) out.write(`${JSON.stringify({ id, status, ...request_counts, ...files })}\n`);
  else {
    const { total, completed, failed } = request_counts;
    const counts = `${completed.toLocaleString("en")} of ${total.toLocaleString("en")} answered`;
    const lines = [
      `${status === "completed" ? "" : `${status}: `}${counts}${failed > 0 ? `, ${failed.toLocaleString("en")} refused` : ""}`,
      ...(files.output && !isStandardOutput(files.output) ? [`  answers: ${files.output}`] : []),
      ...(files.errors ? [`  the others, with the reason: ${files.errors}`] : []),
    ];
    err.write(`${lines.map(plain).join("\n")}\n`);
  }
  return error_file_id === null && status === "completed" ? 0 : 1;
}

function problemsOf({ errors }: RemoteBatch): string[] {
  const problems = errors?.data ?? [];
  return [
    "no line was asked, for the input is wrong:",
    ...problems
      .slice(0, problemsShown)
      .map(({ line, message }) => `  ${line === null ? "" : `line ${line}: `}${message}`),
    ...(problems.length > problemsShown ? ["  …"] : []),
  ];
}

function show(seen: RemoteBatch, json: boolean): void {
  if (json) console.log(JSON.stringify(seen, null, 2));
  else printTable(["batch", "status", "lines", "answered", "refused", "since"], [rowOf(seen)]);
}

function rowOf({ id, status, request_counts, created_at }: RemoteBatch): string[] {
  const { total, completed, failed } = request_counts;
  const since = new Date(created_at * 1000).toISOString().replace(".000Z", "Z");
  return [id, status, String(total), String(completed), String(failed), since];
}

/** What becomes of a batch that is left, where there is one already. */
function farewell(id: string | undefined, isOver: boolean): string {
  if (id === undefined) return "Stopped; nothing was asked.";
  if (isOver) return `${id} is over; ${howToFetch(id)}`;
  return `${id} goes on. ${howToGoOn(id)}`;
}

function howToFetch(id: string): string {
  return `\`pugmark batch --resume ${id}\` fetches its answers.`;
}

function howToGoOn(id: string): string {
  return `\`pugmark batch --resume ${id}\` watches it, \`pugmark batch cancel ${id}\` ends it.`;
}

/** Where answers go, and lines that were refused. */
interface Outputs {
  readonly answers: string;
  readonly errors: string;
}

/** Named after the input, or a batch's id. What is refused is in a file, also where answers go elsewhere. */
function outputsFor(name: string, output: string | undefined): Outputs {
  const beside = `${withoutEnding(name)}.answers.jsonl`;
  const answers = output ?? beside;
  const isFile = !isStandardOutput(answers) && isFileOrFree(answers);
  return { answers, errors: `${withoutEnding(isFile ? answers : beside)}.errors.jsonl` };
}

function withoutEnding(path: string): string {
  return join(dirname(path), basename(path, extname(path)));
}

/** Why the answers cannot go there: hours later it would be too late to say so. */
function whyUnfit(
  { answers, errors }: Outputs,
  file: string | undefined,
  { json }: BatchOptions,
): string | undefined {
  if (json && isStandardOutput(answers)) return "--json is on standard output already: name a file with -o";
  const overwritten = [answers, errors].find((path) => file !== undefined && resolve(path) === resolve(file));
  if (overwritten !== undefined) return `${overwritten} has the questions: name another file with -o`;
  return whyUnwritable(answers);
}

function addressOf(config: Config): ChatAddress {
  const baseUrl = originOf({ host: config.HOST, port: config.CHAT_PORT });
  return { baseUrl, key: config.PUGMARK_API_KEYS ? internalKey(config) : undefined };
}

function failer(err: NodeJS.WritableStream): (text: string, code: number) => number {
  return (text, code) => {
    for (const line of text.split("\n")) {
      err.write(`${styleText("red", "pugmark:", { stream: err })} ${plain(line)}\n`);
    }
    return code;
  };
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

/** Names come out of files and words from a model: none may steer the terminal. */
function plain(text: string): string {
  return stripVTControlCharacters(text).replace(/\p{Cc}/gu, " ");
}
