import { Readable } from "node:stream";
import { Type } from "typebox";
import type { App } from "../../http/app.ts";
import { problems } from "../../http/problem.ts";
import { stateDeployment } from "../../store/deployments.ts";
import type { Pool } from "../../store/pool.ts";
import { findSubject, listSubjects, type Subject as StoredSubject } from "../../store/subjects.ts";
import { measureTrack, readSubjectTrack, type StoredFix, subjectTrackPages } from "../../store/tracks.ts";
import { TrackMeter } from "../../tracking/track-summary.ts";
import { ApiError } from "../api-error.ts";
import { nameCursor, nextLink, parseNameCursor, parseTrackCursor, trackCursor } from "../cursor.ts";
import { type Format as Form, formatFor, mediaTypeOf } from "../negotiate.ts";
import { csvHeader, featureCollection, fixCsv, fixFeature, fixJson, pageJson } from "../render.ts";
import {
  Cursor,
  FeatureCollection,
  Format,
  forms,
  Limit,
  limitStandard,
  NextCursor,
  Position,
  ref,
  Time,
  TrackRange,
} from "../schemas.ts";
import { summaryJson, TrackSummary } from "../summary.ts";
import { rangeOf, timeOf } from "../time-range.ts";

const orNull = <T extends ReturnType<typeof Time>>(schema: T) => Type.Union([schema, Type.Null()]);
const name = (description: string) => Type.String({ minLength: 1, maxLength: 200, description });

export const Subject = Type.Object(
  {
    id: Type.String({ format: "uuid" }),
    name: Type.String(),
    species: Type.Union([Type.String(), Type.Null()]),
    created_at: Time("when it was registered"),
    deployments: Type.Array(
      Type.Object({
        device: Type.String({ description: "key of the device" }),
        started_at: orNull(Time("null: as long as the device has reported")),
        ended_at: orNull(Time("null: until further notice")),
      }),
      { description: "which devices were on it, when" },
    ),
  },
  { $id: "Subject" },
);

export const SubjectId = Type.Object({
  id: Type.String({ maxLength: 200, description: "id or name of the subject" }),
});

/** Who is tracked, where they went, and which device was on whom. */
export function subjectRoutes(app: App, { pool }: { readonly pool: Pool }): void {
  app.get(
    "/api/v1/subjects",
    {
      schema: {
        tags: ["subjects"],
        operationId: "listSubjects",
        summary: "Who is tracked, in order of name",
        querystring: Type.Object({ limit: Limit, cursor: Cursor }),
        response: {
          200: Type.Object({ data: Type.Array(ref(Subject)), next_cursor: NextCursor }),
          ...problems(400, 503),
        },
      },
    },
    async ({ query }) => {
      const limit = query.limit ?? limitStandard;
      const data = await listSubjects(pool, { limit, after: parseNameCursor(query.cursor) });
      const last = data.length === limit ? data.at(-1) : undefined;
      return { data: [...data] as never, next_cursor: last ? nameCursor(last.name) : null };
    },
  );

  app.get(
    "/api/v1/subjects/:id",
    {
      schema: {
        tags: ["subjects"],
        operationId: "getSubject",
        summary: "A subject and its deployments",
        params: SubjectId,
        response: { 200: ref(Subject), ...problems(400, 404, 503) },
      },
    },
    async ({ params }) => (await subjectOf(pool, params.id)) as never,
  );

  app.get(
    "/api/v1/subjects/:id/summary",
    {
      schema: {
        tags: ["subjects"],
        operationId: "getTrackSummary",
        summary: "Distance, speed and extent of a subject's track",
        params: SubjectId,
        querystring: Type.Object(TrackRange),
        response: { 200: TrackSummary, ...problems(400, 404, 503) },
      },
    },
    async ({ params, query }) => {
      const range = rangeOf(query);
      const subject = await subjectOf(pool, params.id);
      const meter = new TrackMeter({ includeOutliers: query.include_outliers });
      await measureTrack(pool, subject.id, range, meter);
      return summaryJson(subject, meter.summary());
    },
  );

  app.get(
    "/api/v1/subjects/:id/track",
    {
      schema: {
        tags: ["subjects"],
        operationId: "getTrack",
        summary: "A subject's track over all its devices, in order of time",
        description:
          "`json` comes in pages. `geojson` (a FeatureCollection with a Point for each fix, time and values as " +
          "properties, which is what QGIS' time slider and geojson.io want) and `csv` hold the whole range and " +
          "are streamed, unless `limit` or `cursor` asks for a page; where another page follows, the header " +
          '`Link: <…>; rel="next"` leads to it. In `csv` a text that a spreadsheet would run as a formula has an ' +
          "apostrophe in front.",
        params: SubjectId,
        querystring: Type.Object({ ...TrackRange, limit: Limit, cursor: Cursor, format: Format }),
        response: {
          ...forms("The track", {
            "application/json": Type.Object({ data: Type.Array(ref(Position)), next_cursor: NextCursor }),
            "application/geo+json": ref(FeatureCollection),
            "text/csv": Type.String(),
          }),
          ...problems(400, 404, 503),
        },
      },
    },
    async ({ params, query, headers }, reply) => {
      const format = formatFor(query.format, headers.accept);
      const track = { ...rangeOf(query), includeOutliers: query.include_outliers };
      const after = parseTrackCursor(query.cursor);
      const subject = await subjectOf(pool, params.id);
      reply.type(mediaTypeOf[format]).header("vary", "accept");
      if (format === "json" || query.limit !== undefined || after) {
        const limit = query.limit ?? limitStandard;
        const fixes = await readSubjectTrack(pool, subject.id, { ...track, after, limit });
        const last = fixes.length === limit ? fixes.at(-1) : undefined;
        const next = last && trackCursor(last);
        if (next) reply.header("link", nextLink(query, next));
        return reply.send(pageOf[format](fixes, next) as never);
      }
      const pages = subjectTrackPages(pool, subject.id, track);
      // Read before the status is sent, so that a database that is away is still a 503.
      const first = await pages.next();
      const body = (format === "csv" ? csvOf : featuresOf)(first.done ? [] : first.value, pages);
      return reply.send(Readable.from(body, { objectMode: false }) as never);
    },
  );

  app.post(
    "/api/v1/deployments",
    {
      schema: {
        tags: ["subjects"],
        operationId: "stateDeployment",
        summary: "Say which subject a device was on",
        description:
          "The device's fixes between the two times, both included, are of that subject. Each subject then has " +
          "the device from its own first fix until the next one's. What is so already stays untouched; else the " +
          "newest statement about a time holds.",
        body: Type.Object(
          {
            device: name("key of the device"),
            subject: name("name of the subject; registered where it is new"),
            species: Type.Optional(name("counts where the subject is new")),
            first_at: Time("the first of those fixes"),
            last_at: Time("the last of those fixes"),
          },
          {
            additionalProperties: false,
            examples: [
              {
                device: "5750",
                subject: "5515867",
                first_at: "2019-05-10T09:01:39.000Z",
                last_at: "2019-05-31T23:55:00.000Z",
              },
            ],
          },
        ),
        response: {
          200: Type.Object({ changed: Type.Boolean({ description: "false: it was so already" }) }),
          ...problems(400, 404, 415, 503),
        },
      },
    },
    async ({ body }) => {
      const firstAt = timeOf(body.first_at);
      const lastAt = timeOf(body.last_at);
      if (firstAt > lastAt) throw new ApiError("range-invalid", "first_at is after last_at.");
      for (const text of [body.device, body.subject, body.species ?? ""]) {
        if (/\p{Cc}/u.test(text) || !text.isWellFormed()) {
          throw new ApiError("text-invalid", "A name has control characters or broken Unicode.");
        }
      }
      const { device, subject, species } = body;
      const outcome = await stateDeployment(pool, { device, subject, species, firstAt, lastAt });
      if (!outcome) throw new ApiError("device-unknown", "No device of that name has reported.");
      return outcome;
    },
  );
}

/** The subject of that id or name. Throws `ApiError` `subject-unknown`. */
export async function subjectOf(pool: Pool, id: string): Promise<StoredSubject> {
  const subject = await findSubject(pool, id);
  if (!subject) throw new ApiError("subject-unknown", "There is no subject of that id or name.");
  return subject;
}

const pageOf = {
  json: (fixes, next) =>
    pageJson(
      fixes.map((fix) => fixJson(fix)),
      next,
    ),
  geojson: (fixes) => featureCollection(fixes.map((fix) => fixFeature(fix))),
  csv: (fixes) => csvHeader() + fixes.map((fix) => fixCsv(fix)).join(""),
} satisfies Record<Form, (fixes: readonly StoredFix[], nextCursor: string | undefined) => string>;

async function* featuresOf(
  first: readonly StoredFix[],
  rest: AsyncIterable<readonly StoredFix[]>,
): AsyncGenerator<string> {
  yield `{"type":"FeatureCollection","features":[${first.map((fix) => fixFeature(fix)).join(",\n")}`;
  for await (const page of rest) yield `,\n${page.map((fix) => fixFeature(fix)).join(",\n")}`;
  yield "]}\n";
}

async function* csvOf(
  first: readonly StoredFix[],
  rest: AsyncIterable<readonly StoredFix[]>,
): AsyncGenerator<string> {
  yield csvHeader() + first.map((fix) => fixCsv(fix)).join("");
  for await (const page of rest) yield page.map((fix) => fixCsv(fix)).join("");
}
