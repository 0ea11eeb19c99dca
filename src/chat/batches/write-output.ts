import type { FastifyBaseLogger } from "fastify";
import { uuidv7 } from "../../http/uuid.ts";
import { type EndedLine, endedLines } from "../../store/batch-lines.ts";
import { type Batch, endBatch, lockEnding } from "../../store/batches.ts";
import { StoreError } from "../../store/errors.ts";
import { FileWriter } from "../../store/files.ts";
import { type Client, type Pool, transaction } from "../../store/pool.ts";

/**
 * Writes the result files of a batch that has run, was cancelled or has expired, and ends it: answers in the
 * one, refusals and lines that were never run in the other. All in one transaction: a server that dies
 * here leaves a batch that is yet to be ended, and one that the database does not take is put into `except`, which
 * are left for later. Gives false where there is none.
 */
export async function writeOutput(
  pool: Pool,
  now: Date,
  except: string[],
  log: FastifyBaseLogger,
): Promise<boolean> {
  let ending: Batch | undefined;
  try {
    return await transaction(pool, async (client) => {
      ending = await lockEnding(client, now, except);
      if (ending) await endWithFiles(client, ending, now);
      return ending !== undefined;
    });
  } catch (error) {
    if (!ending || error instanceof StoreError) throw error;
    log.error({ err: error, batchId: ending.id }, "results of a batch cannot be written; it is tried again");
    except.push(ending.id);
    return true;
  }
}

async function endWithFiles(client: Client, batch: Batch, now: Date): Promise<void> {
  const status = endingOf[batch.status] ?? "expired";
  const output = new ResultFile(client, batch, "output", now);
  const errors = new ResultFile(client, batch, "error", now);
  for await (const lines of endedLines(client, batch.id)) {
    for (const line of lines) {
      const isGood = line.answer !== undefined && line.answer.statusCode < 300;
      await (isGood ? output : errors).write(resultJson(line, status));
    }
  }
  const outputFileId = await output.finish();
  const errorFileId = await errors.finish();
  await endBatch(client, { id: batch.id, status, outputFileId, errorFileId, now });
}

const endingOf: Readonly<Record<string, "completed" | "cancelled">> = {
  finalizing: "completed",
  cancelling: "cancelled",
};

/** A file that comes to be with its first line: an empty one has no id. */
class ResultFile {
  readonly #client: Client;
  readonly #batch: Batch;
  readonly #kind: "output" | "error";
  readonly #now: Date;
  #writer: FileWriter | undefined;

  constructor(client: Client, batch: Batch, kind: "output" | "error", now: Date) {
    this.#client = client;
    this.#batch = batch;
    this.#kind = kind;
    this.#now = now;
  }

  async write(line: string): Promise<void> {
    this.#writer ??= await FileWriter.open(this.#client, this.#batch.caller, this.#now);
    await this.#writer.write(Buffer.from(`${line}\n`));
  }

  async finish(): Promise<string | undefined> {
    const { id, output_expires_after_s: seconds } = this.#batch;
    const file = await this.#writer?.finish({
      filename: `${id}_${this.#kind}.jsonl`,
      purpose: "batch_output",
      expiresAt: seconds === null ? undefined : new Date(this.#now.getTime() + seconds * 1000),
    });
    return file?.id;
  }
}

const neverRun = {
  cancelled: { code: "batch_cancelled", message: "The batch was cancelled before this line was answered." },
  expired: { code: "batch_expired", message: "The batch's time was over before this line was answered." },
  // Cannot be: a batch is only completed when every line is.
  completed: { code: "batch_incomplete", message: "This line was not answered." },
};

/** A line of a result file. The answer is JSON already. */
function resultJson({ customId, answer }: EndedLine, status: keyof typeof neverRun): string {
  const id = `batch_req_${(answer?.requestId ?? uuidv7()).replaceAll("-", "")}`;
  const head = JSON.stringify({ id, custom_id: customId }).slice(0, -1);
  if (!answer) return `${head},"response":null,"error":${JSON.stringify(neverRun[status])}}`;
  const { statusCode, requestId, response } = answer;
  return `${head},"response":{"status_code":${statusCode},"request_id":${JSON.stringify(requestId)},"body":${response}},"error":null}`;
}
