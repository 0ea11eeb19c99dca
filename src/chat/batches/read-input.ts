import type { FastifyBaseLogger } from "fastify";
import { insertLines, type NewLine } from "../../store/batch-lines.ts";
import {
  type Batch,
  type BatchProblem,
  beginBatch,
  claimUnread,
  dropLines,
  failBatch,
  isUnread,
} from "../../store/batches.ts";
import { StoreError } from "../../store/errors.ts";
import { readFile } from "../../store/files.ts";
import { type Client, type Pool, query, transaction } from "../../store/pool.ts";
import { InputCheck } from "./input-check.ts";
import { textLines } from "./text-lines.ts";

/** As much as a request by itself may have. */
const lineBytesMax = 8 * 1024 * 1024;
const problemsMax = 100;
/** Lines, and characters of them, that are stored with one statement. */
const groupLines = 1_000;
const groupChars = 4 * 1024 * 1024;

const unreadInput: BatchProblem = {
  code: "input_unreadable",
  message:
    "The input file could not be read or its lines not be stored; the log of the chat server says why. " +
    "Upload the file again and make a new batch of it.",
  param: "input_file_id",
  line: null,
};

/**
 * Reads the input of a batch that waits for it, and either stores its lines to be run or fails the batch, with
 * what is wrong on which line. All in one transaction: a server that dies here leaves a batch that is yet
 * to be read. Gives false where none waits.
 */
export function readInput(
  pool: Pool,
  defaultModel: string,
  now: Date,
  log: FastifyBaseLogger,
): Promise<boolean> {
  return transaction(pool, async (client) => {
    const batch = await claimUnread(client);
    if (!batch) return false;
    const { id } = batch;
    await query(client, "savepoint unread");
    try {
      await readLines(client, batch, defaultModel, now);
    } catch (error) {
      if (error instanceof StoreError) throw error;
      // To the savepoint and no further: the batch has to stay claimed, or another server would read it meanwhile.
      await query(client, "rollback to savepoint unread");
      log.error({ err: error, batchId: id }, "input of a batch cannot be read");
      await failBatch(client, { id, problems: [unreadInput], now });
    }
    return true;
  });
}

async function readLines(client: Client, batch: Batch, defaultModel: string, now: Date): Promise<void> {
  const { id } = batch;
  const check = new InputCheck(batch.endpoint, defaultModel);
  const problems: BatchProblem[] = [];
  let group: NewLine[] = [];
  let chars = 0;

  for await (const text of textLines(readFile(client, batch.input_file_id), lineBytesMax)) {
    const line = check.take(text);
    if (line === undefined) continue;
    if ("code" in line) problems.push(line);
    else if (problems.length === 0) {
      group.push(line);
      chars += line.body.length;
    }
    if (problems.length === problemsMax || check.isFull) break;
    if (group.length < groupLines && chars < groupChars) continue;
    await insertLines(client, id, group);
    if (!(await isUnread(client, id))) return dropLines(client, id);
    group = [];
    chars = 0;
  }
  const { model, linesTotal } = check;
  if (problems.length === 0 && model === undefined) {
    const message = "The input file has no lines.";
    problems.push({ code: "empty_file", message, param: "input_file_id", line: null });
  }
  if (problems.length > 0 || model === undefined) return failBatch(client, { id, problems, now });
  await insertLines(client, id, group);
  await beginBatch(client, { id, model, linesTotal, now });
}
