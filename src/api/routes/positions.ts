import { Type } from "typebox";
import type { App } from "../../http/app.ts";
import { problems } from "../../http/problem.ts";
import { findDevice } from "../../store/devices.ts";
import type { Pool } from "../../store/pool.ts";
import { type LatestPosition, latestPositions, readDeviceTrack } from "../../store/tracks.ts";
import type { Fix } from "../../tracking/fix.ts";
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
  limitMax,
  limitStandard,
  NextCursor,
  Position,
  ref,
  TrackRange,
} from "../schemas.ts";
import { rangeOf } from "../time-range.ts";

const Page = Type.Object({ data: Type.Array(ref(Position)), next_cursor: NextCursor });

const Latest = Type.Object({
  data: Type.Array(
    Type.Intersect([
      Type.Object({
        subject_id: Type.String({ format: "uuid" }),
        subject: Type.String(),
        species: Type.Optional(Type.String()),
      }),
      ref(Position),
    ]),
  ),
  next_cursor: NextCursor,
});

/** What devices sent, and where everybody is now. */
export function positionRoutes(app: App, { pool }: { readonly pool: Pool }): void {
  app.get(
    "/api/v1/positions",
    {
      schema: {
        tags: ["positions"],
        operationId: "listPositions",
        summary: "Positions of a device, in order of time",
        querystring: Type.Object({
          device: Type.String({ minLength: 1, maxLength: 200, description: "what the device calls itself" }),
          ...TrackRange,
          limit: Limit,
          cursor: Cursor,
        }),
        response: {
          ...forms("A page of positions", { "application/json": Page }),
          ...problems(400, 404, 503),
        },
      },
    },
    async ({ query }, reply) => {
      const range = rangeOf(query);
      const after = parseTrackCursor(query.cursor);
      const deviceId = await findDevice(pool, query.device);
      if (deviceId === undefined)
        throw new ApiError("device-unknown", "No device of that name has reported.");
      const limit = query.limit ?? limitStandard;
      const includeOutliers = query.include_outliers;
      const fixes = await readDeviceTrack(pool, deviceId, { ...range, includeOutliers, after, limit });
      const last = fixes.length === limit ? fixes.at(-1) : undefined;
      return reply.type(mediaTypeOf.json).send(
        pageJson(
          fixes.map((fix) => fixJson(fix)),
          last && trackCursor(last),
        ) as never,
      );
    },
  );

  app.get(
    "/api/v1/positions/latest",
    {
      schema: {
        tags: ["positions"],
        operationId: "listLatestPositions",
        summary: "The last position of each subject, in order of name",
        description:
          "The last by the time of the fix, whenever it arrived. Subjects without a position are left out, and " +
          "times more than ten minutes in the future do not count. Where another page follows, the header " +
          '`Link: <…>; rel="next"` leads to it, in every form.',
        querystring: Type.Object({
          include_outliers: TrackRange.include_outliers,
          limit: Limit,
          cursor: Cursor,
          format: Format,
        }),
        response: {
          ...forms("The last positions", {
            "application/json": Latest,
            "application/geo+json": ref(FeatureCollection),
            "text/csv": Type.String(),
          }),
          ...problems(400, 503),
        },
      },
    },
    async ({ query, headers }, reply) => {
      const format = formatFor(query.format, headers.accept);
      const limit = query.limit ?? (format === "json" ? limitStandard : limitMax);
      const found = await latestPositions(pool, {
        after: parseNameCursor(query.cursor),
        includeOutliers: query.include_outliers,
        limit,
      });
      const last = found.length === limit ? found.at(-1)?.subject : undefined;
      const next = last === undefined ? undefined : nameCursor(last);
      if (next) reply.header("link", nextLink(query, next));
      const known = found.filter((latest): latest is Known => latest.fix !== null);
      return reply
        .type(mediaTypeOf[format])
        .header("vary", "accept")
        .send(render[format](known, next) as never);
    },
  );
}

type Known = LatestPosition & { readonly fix: Fix };

const render = {
  json: (known, next) =>
    pageJson(
      known.map((latest) => fixJson(latest.fix, whose(latest))),
      next,
    ),
  geojson: (known) => featureCollection(known.map((latest) => fixFeature(latest.fix, whose(latest)))),
  csv: (known) =>
    csvHeader(["subject", "species"]) +
    known.map(({ fix, subject, species }) => fixCsv(fix, [subject, species])).join(""),
} satisfies Record<Form, (known: readonly Known[], nextCursor: string | undefined) => string>;

function whose({ subjectId, subject, species }: LatestPosition) {
  return { subject_id: subjectId, subject, species };
}
