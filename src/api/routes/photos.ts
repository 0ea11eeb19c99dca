import type { FastifyReply } from "fastify";
import { type TSchema, Type } from "typebox";
import type { App } from "../../http/app.ts";
import { problems } from "../../http/problem.ts";
import { type CleanPicture, NotAPicture, withoutMetadata } from "../../photos/image-metadata.ts";
import type { Photo as StoredPhoto } from "../../store/photo-row.ts";
import { type PhotoStore, photoBytesMax } from "../../store/photos.ts";
import type { Pool } from "../../store/pool.ts";
import { ApiError } from "../api-error.ts";
import { parsePhotoCursor, photoCursor } from "../cursor.ts";
import { Cursor, forms, Limit, limitStandard, NextCursor, ref, Time } from "../schemas.ts";
import { timeOf } from "../time-range.ts";
import { SubjectId, subjectOf } from "./subjects.ts";

export interface PhotoParts {
  readonly pool: Pool;
  readonly photos: PhotoStore;
}

const orNull = (schema: TSchema) => Type.Union([schema, Type.Null()]);

export const Photo = Type.Object(
  {
    id: Type.String({ format: "uuid" }),
    subject_id: Type.String({ format: "uuid" }),
    media_type: Type.String({ examples: ["image/jpeg"] }),
    bytes: Type.Integer({ description: "of the file as it is kept" }),
    sha256: Type.String({ description: "of the file as it is kept, in hexadecimal" }),
    taken_at: orNull(Time("when it was taken, as whoever added it said")),
    caption: orNull(Type.String()),
    created_at: Time("when it was added"),
  },
  {
    $id: "Photo",
    examples: [
      {
        id: "0c0ff6cb-7e0d-5a7b-9b7b-2a6f5e9f6f0d",
        subject_id: "41635e4d-56fc-5131-a2b4-0820dbe81b87",
        media_type: "image/jpeg",
        bytes: 348_211,
        sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        taken_at: "2019-05-10T09:01:39.000Z",
        caption: "left wing",
        created_at: "2019-05-11T18:20:00.000Z",
      },
    ],
  },
);

const mediaTypes = ["image/jpeg", "image/png", "image/webp"];
const picture = Object.fromEntries(
  mediaTypes.map((type) => [type, Type.Unsafe<unknown>({ type: "string", contentMediaType: type })]),
);
const PhotoId = Type.Object({ id: Type.String({ maxLength: 200, description: "id of the photo" }) });

/** By which subjects are known. */
export async function photoRoutes(app: App, parts: PhotoParts): Promise<void> {
  // Apart, because it takes media types that all others refuse, and no others.
  await app.register(async (scope) => addRoute(scope as unknown as App, parts));
  readRoutes(app, parts);
}

function addRoute(app: App, { pool, photos }: PhotoParts): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(mediaTypes, { parseAs: "buffer" }, (_request, body, done) => done(null, body));
  app.post(
    "/api/v1/subjects/:id/photos",
    {
      bodyLimit: photoBytesMax,
      // The schema of the body is for readers: it is bytes.
      validatorCompiler: ({ schema, httpPart }) =>
        httpPart === "body" ? () => true : (app.validatorCompiler?.({ schema, httpPart } as never) as never),
      schema: {
        tags: ["photos"],
        operationId: "addPhoto",
        summary: "Add a photo of a subject",
        description:
          "The body is the picture itself, JPEG, PNG or WebP, at most 10 MiB. What it says besides what it shows (where and " +
          "when it was taken, by whom and with what) is removed before it is stored; which way is up stays. The same photo " +
          "of the same subject is kept once: sent again it is answered 200, as it was added first.",
        params: SubjectId,
        querystring: Type.Object({
          taken_at: Type.Optional(Time("when it was taken, RFC 3339 with a zone")),
          caption: Type.Optional(Type.String({ minLength: 1, maxLength: 500 })),
        }),
        consumes: mediaTypes,
        body: { content: Object.fromEntries(mediaTypes.map((type) => [type, { schema: picture[type] }])) },
        response: {
          200: ref(Photo),
          201: ref(Photo),
          ...problems(400, 404, 413, 415, 503),
        },
      },
    },
    async (request, reply) => {
      const { id } = request.params as { id: string };
      const { taken_at: taken, caption } = request.query as { taken_at?: string; caption?: string };
      const takenAt = taken === undefined ? undefined : timeOf(taken);
      if (caption !== undefined && (/\p{Cc}/u.test(caption) || !caption.isWellFormed()))
        throw new ApiError("text-invalid", "The caption has control characters or broken Unicode.");
      const clean = cleaned(request.body, request.headers["content-type"]);
      const subject = await subjectOf(pool, id);
      const added = await photos.add(subject.id, clean, { takenAt, caption });
      if (!added) throw new ApiError("subject-unknown", "The subject has been deleted meanwhile.");
      return (reply as unknown as FastifyReply)
        .code(added.isNew ? 201 : 200)
        .header("location", `/api/v1/photos/${added.photo.id}`)
        .send(added.photo);
    },
  );
}

/** The body without its metadata, where it is what its type says. Throws `ApiError` `photo-unrecognised`. */
function cleaned(body: unknown, contentType = ""): CleanPicture {
  try {
    const clean = withoutMetadata(Buffer.isBuffer(body) ? body : Buffer.alloc(0));
    const said = contentType.split(";")[0]?.trim().toLowerCase();
    if (said === clean.mediaType) return clean;
    throw new ApiError("photo-unrecognised", `The body is ${clean.mediaType}, and not ${said}.`);
  } catch (error) {
    if (!(error instanceof NotAPicture)) throw error;
    throw new ApiError("photo-unrecognised", `Not stored: ${error.message}.`);
  }
}

function readRoutes(app: App, { pool, photos }: PhotoParts): void {
  const photoOf = async (id: string): Promise<StoredPhoto> => {
    const photo = await photos.find(id);
    if (!photo) throw new ApiError("photo-unknown", "There is no photo of that id.");
    return photo;
  };

  app.get(
    "/api/v1/subjects/:id/photos",
    {
      schema: {
        tags: ["photos"],
        operationId: "listPhotos",
        summary: "Photos of a subject, those added last first",
        params: SubjectId,
        querystring: Type.Object({ limit: Limit, cursor: Cursor }),
        response: {
          200: Type.Object({ data: Type.Array(ref(Photo)), next_cursor: NextCursor }),
          ...problems(400, 404, 503),
        },
      },
    },
    async ({ params, query }) => {
      const after = parsePhotoCursor(query.cursor);
      const limit = query.limit ?? limitStandard;
      const subject = await subjectOf(pool, params.id);
      const { photos: data, last } = await photos.list(subject.id, { limit, after });
      return { data: [...data], next_cursor: last && data.length === limit ? photoCursor(last) : null };
    },
  );

  app.get(
    "/api/v1/photos/:id",
    {
      schema: {
        tags: ["photos"],
        operationId: "getPhoto",
        summary: "What is known of a photo",
        params: PhotoId,
        response: { 200: ref(Photo), ...problems(404, 503) },
      },
    },
    async ({ params }) => await photoOf(params.id),
  );

  app.get(
    "/api/v1/photos/:id/content",
    {
      schema: {
        tags: ["photos"],
        operationId: "getPhotoContent",
        summary: "The picture itself",
        description:
          "With a strong ETag, to be asked by `If-None-Match`: 304 where it is the same. 404 `photo-elsewhere` where another " +
          "station added the photo and its file has not come from the Supabase project yet.",
        params: PhotoId,
        response: { ...forms("The picture", picture), ...problems(404, 503) },
      },
    },
    async ({ params, headers }, reply) => {
      const photo = await photoOf(params.id);
      const etag = `"${photo.sha256}"`;
      const answer = (reply as unknown as FastifyReply)
        .header("etag", etag)
        // A photo never changes, and may be deleted.
        .header("cache-control", "private, no-cache");
      if (isKnown(headers["if-none-match"], etag)) return answer.code(304).send();
      const file = await photos.open(photo);
      if (!file)
        throw new ApiError(
          "photo-elsewhere",
          "The photo's file has not come from the project yet: pugmark sync status says how many wait, and what is wrong.",
        );
      return answer
        .type(photo.media_type)
        .header("content-length", String(photo.bytes))
        .header("content-security-policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
        .send(file.createReadStream());
    },
  );

  app.delete(
    "/api/v1/photos/:id",
    {
      schema: {
        tags: ["photos"],
        operationId: "deletePhoto",
        summary: "Delete a photo and its file",
        description: "Where photos are mirrored, its object in the Supabase project goes as well.",
        params: PhotoId,
        response: { 204: Type.Null({ description: "It is gone" }), ...problems(404, 503) },
      },
    },
    async ({ params }, reply) => {
      if (!(await photos.remove(params.id)))
        throw new ApiError("photo-unknown", "There is no photo of that id.");
      return (reply as unknown as FastifyReply).code(204).send();
    },
  );
}

/** RFC 9110, 13.1.2: compared weakly. */
function isKnown(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false;
  const tags = header.split(",").map((tag) => tag.trim().replace(/^W\//, ""));
  return tags.includes("*") || tags.includes(etag);
}
