import { Readable } from "node:stream";
import type { FastifyReply } from "fastify";
import { type Static, Type } from "typebox";
import type { App } from "../../http/app.ts";
import { EdgeError } from "../../http/problem.ts";
import {
  bytesOfCaller,
  deleteFile,
  FileWriter,
  findFile,
  listFiles,
  readFile,
  type StoredFile,
  sweepFiles,
} from "../../store/files.ts";
import type { RouteParts } from "../app.ts";
import { ChatError } from "../chat-error.ts";
import { receiveUpload } from "../upload.ts";
import { listPage } from "./list-page.ts";
import { openAiFailures } from "./openai-errors.ts";

/** OpenAI's limit for the input of a batch. */
const fileBytesMax = 200 * 1024 * 1024;
const callerBytesMax = 8 * 1024 * 1024 * 1024;
/** What OpenAI's clients may say that a file is for. */
const purposes = ["assistants", "batch", "evals", "fine-tune", "user_data", "vision"];
const expiresAfterMinS = 3_600;
const expiresAfterMaxS = 2_592_000;

const File = Type.Object({
  id: Type.String(),
  object: Type.Literal("file"),
  bytes: Type.Integer(),
  created_at: Type.Integer({ description: "Seconds since 1970" }),
  expires_at: Type.Optional(Type.Integer()),
  filename: Type.String(),
  purpose: Type.String({ description: "`batch_output` for what a batch has made" }),
  status: Type.Literal("processed"),
});

const FileList = Type.Object({
  object: Type.Literal("list"),
  data: Type.Array(File),
  first_id: Type.Union([Type.String(), Type.Null()]),
  last_id: Type.Union([Type.String(), Type.Null()]),
  has_more: Type.Boolean(),
});

const UploadForm = Type.Object({
  file: Type.Unsafe<unknown>({ type: "string", contentMediaType: "application/octet-stream" }),
  purpose: Type.Enum(purposes),
  "expires_after[anchor]": Type.Optional(Type.Literal("created_at")),
  "expires_after[seconds]": Type.Optional(
    Type.Integer({ minimum: expiresAfterMinS, maximum: expiresAfterMaxS }),
  ),
});

/** Ids as we make them, and whatever else a client may ask for, short of what a database takes badly. */
const Id = Type.Object({ id: Type.String({ pattern: "^[\\w-]{1,128}$" }) });

const Paging = Type.Object({
  purpose: Type.Optional(Type.String({ pattern: "^[\\w-]{1,64}$" })),
  limit: Type.Integer({ minimum: 1, maximum: 10_000, default: 10_000 }),
  order: Type.Enum(["asc", "desc"], { default: "desc", description: "By age" }),
  after: Type.Optional(
    Type.String({ pattern: "^[\\w-]{1,128}$", description: "`last_id` of the page before" }),
  ),
});

/** OpenAI's files: the input of batches, and what they answer. To be registered below `/v1`. */
export function fileRoutes(app: App, { pool, clock }: RouteParts): void {
  const now = () => new Date(clock());
  // Whoever waits for the body is its route alone: nothing of 200 MB is gathered here.
  app.addContentTypeParser("multipart/form-data", (_request, payload, done) => done(null, payload));

  app.post(
    "/files",
    {
      // A form is no JSON: what is in it is checked where it is read.
      validatorCompiler: () => () => true,
      schema: {
        tags: ["openai"],
        summary: "Upload a file",
        description: `At most ${fileBytesMax / 1024 / 1024} MiB. The parts may come in any order.`,
        operationId: "createFile",
        consumes: ["multipart/form-data"],
        body: UploadForm,
        response: { 200: File, ...openAiFailures(400, 413, 415, 503) },
      },
    },
    async (request) => {
      const payload: unknown = request.body;
      if (!(payload instanceof Readable)) {
        throw new EdgeError("media-type-unsupported", "Files come as `multipart/form-data`.");
      }
      const { caller } = request;
      await sweepFiles(pool, now());
      if ((await bytesOfCaller(pool, caller)) >= callerBytesMax) throw full();
      const writer = await FileWriter.open(pool, caller, now());
      try {
        const { filename, fields } = await receiveUpload(payload, request.headers, {
          bytesMax: fileBytesMax,
          take: (piece) => writer.write(piece),
        });
        const purpose = purposeOf(fields);
        return fileJson(await writer.finish({ filename, purpose, expiresAt: expiryOf(fields, clock()) }));
      } catch (error) {
        // Where that fails too, the sweep finds it.
        await writer.discard().catch(() => {});
        throw error;
      }
    },
  );

  app.get(
    "/files",
    {
      schema: {
        tags: ["openai"],
        summary: "Your files",
        operationId: "listFiles",
        querystring: Paging,
        response: { 200: FileList, ...openAiFailures(400, 503) },
      },
    },
    async ({ query, caller }) => {
      const { limit, ...filter } = query as Static<typeof Paging> & { order: "asc" | "desc" };
      const rows = await listFiles(pool, { ...filter, caller, limit: limit + 1 }, now());
      return listPage(rows, limit, fileJson);
    },
  );

  app.get(
    "/files/:id",
    {
      schema: {
        tags: ["openai"],
        summary: "One of your files, without its bytes",
        operationId: "getFile",
        params: Id,
        response: { 200: File, ...openAiFailures(400, 404, 503) },
      },
    },
    async ({ params, caller }) => fileJson(await ownFile(params.id, caller)),
  );

  app.get(
    "/files/:id/content",
    {
      schema: {
        tags: ["openai"],
        summary: "The bytes of one of your files",
        operationId: "getFileContent",
        params: Id,
        response: {
          200: {
            description: "The bytes as they came",
            content: { "application/octet-stream": { schema: Type.String() } },
          },
          ...openAiFailures(400, 404, 503),
        },
      },
    },
    async ({ params, caller }, reply) => {
      const file = await ownFile(params.id, caller);
      return (reply as FastifyReply)
        .header("content-length", String(file.bytes))
        .header("content-disposition", `attachment; filename*=UTF-8''${encodeURIComponent(file.filename)}`)
        .type("application/octet-stream")
        .send(Readable.from(readFile(pool, file.id), { objectMode: false }));
    },
  );

  app.delete(
    "/files/:id",
    {
      schema: {
        tags: ["openai"],
        summary: "Delete one of your files",
        description: "Refused while a batch that is under way reads it.",
        operationId: "deleteFile",
        params: Id,
        response: {
          200: Type.Object({
            id: Type.String(),
            object: Type.Literal("file"),
            deleted: Type.Literal(true),
          }),
          ...openAiFailures(400, 404, 409, 503),
        },
      },
    },
    async ({ params: { id }, caller }) => {
      const outcome = await deleteFile(pool, id, caller);
      if (outcome === "unknown") throw unknown(id);
      if (outcome === "in-use") {
        throw new ChatError("file-in-use", "A batch that is under way reads this file; cancel that first.");
      }
      return { id, object: "file" as const, deleted: true as const };
    },
  );

  async function ownFile(id: string, caller: string): Promise<StoredFile> {
    const file = await findFile(pool, { id, caller, now: now() });
    if (!file) throw unknown(id);
    return file;
  }
}

function fileJson(file: StoredFile): Static<typeof File> {
  return {
    id: file.id,
    object: "file",
    bytes: file.bytes,
    created_at: Math.floor(file.created_at.getTime() / 1000),
    ...(file.expires_at ? { expires_at: Math.floor(file.expires_at.getTime() / 1000) } : {}),
    filename: file.filename,
    purpose: file.purpose,
    status: "processed",
  };
}

function purposeOf(fields: ReadonlyMap<string, string>): string {
  const purpose = fields.get("purpose") ?? "";
  if (purposes.includes(purpose)) return purpose;
  throw new EdgeError("request-invalid", `\`purpose\` must be one of ${purposes.join(", ")}.`);
}

function expiryOf(fields: ReadonlyMap<string, string>, nowMs: number): Date | undefined {
  const text = fields.get("expires_after[seconds]");
  if (text === undefined) return undefined;
  const seconds = /^\d{1,8}$/.test(text) ? Number(text) : Number.NaN;
  if (seconds >= expiresAfterMinS && seconds <= expiresAfterMaxS) return new Date(nowMs + seconds * 1000);
  throw new EdgeError(
    "request-invalid",
    `\`expires_after[seconds]\` must be from ${expiresAfterMinS} to ${expiresAfterMaxS}.`,
  );
}

function unknown(id: string): ChatError {
  return new ChatError("file-unknown", `You have no file ${id}.`);
}

function full(): ChatError {
  return new ChatError("files-full", "Your files take 8 GiB, which is all there is; delete some first.");
}
