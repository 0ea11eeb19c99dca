import { type Static, type TSchema, Type } from "typebox";
import type { App } from "../../http/app.ts";
import { EdgeError } from "../../http/problem.ts";
import { type Batch, cancelBatch, createBatch, findBatch, listBatches } from "../../store/batches.ts";
import { findFile, type StoredFile } from "../../store/files.ts";
import type { RouteParts } from "../app.ts";
import { batchEndpoints } from "../batches/endpoints.ts";
import { ChatError } from "../chat-error.ts";
import { listPage } from "./list-page.ts";
import { openAiFailures } from "./openai-errors.ts";

/** Batches of one caller that may be under way. */
const underWayMax = 100;
/** A batch may take from a minute to 30 days. */
const windowMaxMs = 30 * 86_400_000;
const unitMs: Readonly<Record<string, number>> = { m: 60_000, h: 3_600_000, d: 86_400_000 };

const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);
const time = nullable(Type.Integer({ description: "Seconds since 1970" }));
const id = Type.String({ pattern: "^[\\w-]{1,128}$" });

const BatchObject = Type.Object({
  id: Type.String(),
  object: Type.Literal("batch"),
  endpoint: Type.String(),
  model: Type.Optional(Type.String({ description: "Of its lines; there once they were read" })),
  errors: nullable(
    Type.Object({
      object: Type.Literal("list"),
      data: Type.Array(
        Type.Object({
          code: Type.String(),
          message: Type.String(),
          param: nullable(Type.String()),
          line: nullable(Type.Integer({ description: "Of the input file, from 1" })),
        }),
      ),
    }),
  ),
  input_file_id: Type.String(),
  completion_window: Type.String(),
  status: Type.String({
    description: "validating, in_progress, finalizing, completed, failed, expired, cancelling or cancelled",
  }),
  output_file_id: nullable(Type.String({ description: "Lines that were answered" })),
  error_file_id: nullable(Type.String({ description: "Lines that were refused, and those never run" })),
  created_at: Type.Integer(),
  in_progress_at: time,
  expires_at: Type.Integer(),
  finalizing_at: time,
  completed_at: time,
  failed_at: time,
  expired_at: time,
  cancelling_at: time,
  cancelled_at: time,
  request_counts: Type.Object({ total: Type.Integer(), completed: Type.Integer(), failed: Type.Integer() }),
  usage: Type.Object({
    input_tokens: Type.Integer(),
    input_tokens_details: Type.Object({ cached_tokens: Type.Integer() }),
    output_tokens: Type.Integer(),
    output_tokens_details: Type.Object({ reasoning_tokens: Type.Integer() }),
    total_tokens: Type.Integer(),
  }),
  metadata: nullable(Type.Record(Type.String(), Type.String())),
});

/** Postgres stores neither U+0000 nor half a surrogate pair. */
const storable = "[^\\u0000\\ud800-\\udfff]";

const NewBatchRequest = Type.Object({
  input_file_id: id,
  endpoint: Type.Enum(Object.keys(batchEndpoints)),
  completion_window: Type.String({
    pattern: "^[1-9]\\d{0,4}[mhd]$",
    description: "How long it may take, such as `24h`: a minute to 30 days",
  }),
  metadata: Type.Optional(
    nullable(
      Type.Record(
        Type.String({ pattern: `^${storable}{1,64}$` }),
        Type.String({ pattern: `^${storable}{0,512}$` }),
        { maxProperties: 16, additionalProperties: false },
      ),
    ),
  ),
  output_expires_after: Type.Optional(
    Type.Object({
      anchor: Type.Literal("created_at"),
      seconds: Type.Integer({ minimum: 3_600, maximum: 2_592_000 }),
    }),
  ),
});

const BatchList = Type.Object({
  object: Type.Literal("list"),
  data: Type.Array(BatchObject),
  first_id: nullable(Type.String()),
  last_id: nullable(Type.String()),
  has_more: Type.Boolean(),
});

const Params = Type.Object({ id });

/** OpenAI's batches: many questions at once, when nobody else wants the model. To be registered below `/v1`. */
export function batchRoutes(app: App, { pool, clock, worker }: RouteParts): void {
  app.post(
    "/batches",
    {
      schema: {
        tags: ["openai"],
        summary: "Have the lines of a file answered",
        description:
          "The file is uploaded before, with purpose `batch`: at most 50,000 lines of " +
          '`{"custom_id", "method": "POST", "url", "body"}`. People who ask meanwhile come first.',
        operationId: "createBatch",
        body: NewBatchRequest,
        response: { 200: BatchObject, ...openAiFailures(400, 404, 429, 503) },
      },
    },
    async ({ body, caller }) => {
      const now = new Date(clock());
      const file = await ownFile(body.input_file_id, caller, now);
      if (file.purpose !== "batch") {
        throw new EdgeError(
          "request-invalid",
          `The file's purpose is ${file.purpose}; that of a batch is \`batch\`.`,
        );
      }
      const created = await createBatch(
        pool,
        {
          caller,
          endpoint: body.endpoint,
          inputFileId: file.id,
          completionWindow: body.completion_window,
          metadata: body.metadata ?? undefined,
          outputExpiresAfterS: body.output_expires_after?.seconds,
          createdAt: now,
          expiresAt: new Date(now.getTime() + windowMs(body.completion_window)),
        },
        underWayMax,
      );
      if (!created) {
        // It may have been deleted meanwhile.
        await ownFile(file.id, caller, now);
        throw new ChatError(
          "batches-full",
          `${underWayMax} of your batches are under way, which is all there may be.`,
        );
      }
      worker.wake();
      return batchJson(created);
    },
  );

  app.get(
    "/batches",
    {
      schema: {
        tags: ["openai"],
        summary: "Your batches, newest first",
        operationId: "listBatches",
        querystring: Type.Object({
          limit: Type.Integer({ minimum: 1, maximum: 100, default: 20 }),
          after: Type.Optional(id),
        }),
        response: { 200: BatchList, ...openAiFailures(400, 503) },
      },
    },
    async ({ query: { limit, after }, caller }) => {
      const rows = await listBatches(pool, { caller, after, limit: limit + 1 });
      return listPage(rows, limit, batchJson);
    },
  );

  app.get(
    "/batches/:id",
    {
      schema: {
        tags: ["openai"],
        summary: "How far one of your batches is",
        operationId: "getBatch",
        params: Params,
        response: { 200: BatchObject, ...openAiFailures(400, 404, 503) },
      },
    },
    async ({ params, caller }) => batchJson(await ownBatch(params.id, caller)),
  );

  app.post(
    "/batches/:id/cancel",
    {
      schema: {
        tags: ["openai"],
        summary: "End one of your batches",
        description: "What is answered so far is kept. To cancel one that is cancelled changes nothing.",
        operationId: "cancelBatch",
        params: Params,
        response: { 200: BatchObject, ...openAiFailures(400, 404, 409, 503) },
      },
    },
    async ({ params, caller }) => {
      const cancelled = await cancelBatch(pool, { id: params.id, caller, now: new Date(clock()) });
      if (cancelled) {
        worker.wake();
        return batchJson(cancelled);
      }
      const batch = await ownBatch(params.id, caller);
      if (["cancelling", "cancelled", "finalizing"].includes(batch.status)) return batchJson(batch);
      throw new ChatError("batch-over", `The batch is over: it is ${batch.status}.`);
    },
  );

  async function ownFile(fileId: string, caller: string, now: Date): Promise<StoredFile> {
    const file = await findFile(pool, { id: fileId, caller, now });
    if (!file) throw new ChatError("file-unknown", `You have no file ${fileId}.`);
    return file;
  }

  async function ownBatch(batchId: string, caller: string): Promise<Batch> {
    const batch = await findBatch(pool, batchId, caller);
    if (!batch) throw new ChatError("batch-unknown", `You have no batch ${batchId}.`);
    return batch;
  }
}

/** Milliseconds of `30m`, `24h` or `7d`. Throws `EdgeError` `request-invalid` past 30 days. */
function windowMs(text: string): number {
  const ms = Number.parseInt(text, 10) * (unitMs[text.at(-1) ?? ""] ?? Number.NaN);
  if (ms <= windowMaxMs) return ms;
  throw new EdgeError("request-invalid", "`completion_window` may be up to 30 days.");
}

function batchJson(batch: Batch): Static<typeof BatchObject> {
  const { input_tokens, output_tokens, reasoning_tokens } = batch;
  return {
    id: batch.id,
    object: "batch",
    endpoint: batch.endpoint,
    ...(batch.model === null ? {} : { model: batch.model }),
    errors: batch.errors && { object: "list", data: [...batch.errors] },
    input_file_id: batch.input_file_id,
    completion_window: batch.completion_window,
    status: batch.status,
    output_file_id: batch.output_file_id,
    error_file_id: batch.error_file_id,
    created_at: Math.floor(batch.created_at.getTime() / 1000),
    in_progress_at: seconds(batch.in_progress_at),
    expires_at: Math.floor(batch.expires_at.getTime() / 1000),
    finalizing_at: seconds(batch.finalizing_at),
    completed_at: seconds(batch.completed_at),
    failed_at: seconds(batch.failed_at),
    expired_at: seconds(batch.expired_at),
    cancelling_at: seconds(batch.cancelling_at),
    cancelled_at: seconds(batch.cancelled_at),
    request_counts: {
      total: batch.lines_total,
      completed: batch.lines_completed,
      failed: batch.lines_failed,
    },
    usage: {
      input_tokens,
      input_tokens_details: { cached_tokens: 0 },
      output_tokens,
      output_tokens_details: { reasoning_tokens },
      total_tokens: input_tokens + output_tokens,
    },
    metadata: batch.metadata && { ...batch.metadata },
  };
}

function seconds(at: Date | null): number | null {
  return at && Math.floor(at.getTime() / 1000);
}
