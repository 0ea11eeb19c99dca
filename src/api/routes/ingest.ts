import { Type } from "typebox";
import { type App, parseAsJson } from "../../http/app.ts";
import { EdgeError, problems } from "../../http/problem.ts";
import type { PositionStore } from "../../store/positions.ts";
import {
  decodeOsmandReport,
  nothingToStore,
  type Parameters,
  parametersOf,
} from "../../tracking/decoders/osmand.ts";
import { decodeItems, itemsOf } from "../../tracking/decoders/positions-json.ts";
import { isRejection, type Rejection, type ReportedFix } from "../../tracking/fix.ts";
import { ApiError } from "../api-error.ts";
import { FeatureCollection, forms, Ingested, Position, ref } from "../schemas.ts";

export interface IngestParts {
  readonly positions: PositionStore;
  readonly clock: () => number;
}

const bodyMaxBytes = 16 * 1024 * 1024;
const itemsMax = 10_000;
/** RFC 7946. */
const geoJson = "application/geo+json";

/** Where positions come in: many at once as JSON, and one at a time as phones send them. */
export async function ingestRoutes(app: App, parts: IngestParts): Promise<void> {
  // Apart, because each takes media types that the other refuses.
  await app.register(async (scope) => jsonRoutes(scope as unknown as App, parts));
  await app.register(async (scope) => osmandRoutes(scope as unknown as App, parts));
}

function jsonRoutes(app: App, { positions, clock }: IngestParts): void {
  parseAsJson(app, geoJson);
  const ingest = async (body: unknown) => {
    if (body === undefined) throw new EdgeError("request-invalid", "The request has no body.");
    const items = itemsOf(body);
    if (!items) {
      throw new ApiError(
        "body-unrecognised",
        "The body is none of these: a position, an array of positions, a GeoJSON Feature, a FeatureCollection.",
      );
    }
    if (items.length > itemsMax) {
      throw new ApiError(
        "too-many-positions",
        `A request may have ${itemsMax} positions, not ${items.length}.`,
      );
    }
    const { fixes, rejected } = decodeItems(items, clock());
    return { ...(await positions.ingest(fixes)), rejected };
  };
  const shared = {
    config: { scope: "ingest" },
    bodyLimit: bodyMaxBytes,
    // Each item is checked by itself, so that a bad one does not refuse the others; the schema is for readers.
    validatorCompiler: () => () => true,
  } as const;
  const described = {
    tags: ["ingest"],
    consumes: ["application/json", geoJson],
    response: { 200: ref(Ingested), ...problems(400, 413, 415, 503) },
  };

  app.post(
    "/api/v1/positions",
    {
      ...shared,
      schema: {
        ...described,
        operationId: "ingestPositions",
        summary: "Store positions",
        description:
          "Takes one position, an array of them, a GeoJSON Feature or a FeatureCollection of Points, at most " +
          "10,000 and 16 MiB. Every item is stored or listed in `rejected`; the answer comes after the commit, and " +
          "is 200 for any well-formed body, also where nothing in it could be stored. Sending again is harmless: " +
          "what is there already counts as a duplicate. An item may name its `subject` and `species`; they count " +
          "where the device is new.",
        body: Type.Union([ref(Position), Type.Array(ref(Position)), ref(FeatureCollection)]),
      },
    },
    async (request) => ingest(request.body),
  );
  app.post(
    "/ingest/geojson",
    {
      ...shared,
      schema: {
        ...described,
        operationId: "ingestGeojson",
        summary: "Store positions that an app sends as GeoJSON",
        description: "The same as `POST /api/v1/positions`, under the address of a wire format.",
        body: ref(FeatureCollection),
      },
    },
    async (request) => ingest(request.body),
  );
}

const text = (description: string) => Type.Optional(Type.String({ description }));

const OsmandQuery = Type.Object(
  {
    id: text("the device; `deviceid` is the same"),
    lat: text("degrees; or `location=lat,lon`"),
    lon: text("degrees"),
    timestamp: text("epoch seconds or milliseconds, RFC 3339, or `yyyy-MM-dd HH:mm:ss` in UTC; else now"),
    speed: text("knots; `speed_mps` is in metres per second"),
    bearing: text("degrees; `heading` is the same"),
    altitude: text("metres"),
    accuracy: text("metres"),
    batt: text("percent"),
    valid: text("`false` or `0`: stored, and left out of tracks"),
    key: text("an API key, for apps that can set no header"),
  },
  {
    additionalProperties: true,
    examples: [{ id: "jane", lat: "53.0011", lon: "6.5930", timestamp: "1557478899" }],
  },
);

const TraccarBody = Type.Object(
  {
    device_id: Type.Optional(Type.String()),
    location: Type.Optional(Type.Object({}, { additionalProperties: true })),
  },
  {
    additionalProperties: true,
    description: "the JSON of Traccar Client 9 and newer, or the query's parameters as a form",
    examples: [
      {
        device_id: "48241179",
        location: {
          timestamp: "2025-06-15T13:45:12.862Z",
          coords: {
            latitude: 37.4219983,
            longitude: -122.084,
            accuracy: 5,
            speed: 0,
            heading: -1,
            altitude: 5,
          },
          battery: { level: 1, is_charging: false },
        },
      },
    ],
  },
);

/**
 * OsmAnd, Traccar Client, GPSLogger. These apps keep what is not answered 2xx and send it again, oldest first.
 * A report without coordinates can never become a position and is answered 200. One with impossible coordinates
 * or time is answered 400, as Traccar's own server does: the app shows the error, and nothing is dropped in
 * silence; the price is that an app that insists holds back what it recorded later.
 */
function osmandRoutes(app: App, { positions, clock }: IngestParts): void {
  app.addContentTypeParser(
    "application/x-www-form-urlencoded",
    { parseAs: "string" },
    (_request, body, done) => done(null, parametersOf(String(body))),
  );
  // Plain text has no fields: what such a report says is in its query.
  app.addContentTypeParser("text/plain", { parseAs: "string" }, (_request, _body, done) => done(null));
  const store = async (decoded: ReportedFix | Rejection | typeof nothingToStore) => {
    if (decoded === nothingToStore) return;
    if (isRejection(decoded)) throw new ApiError(decoded.code, `Not stored: ${decoded.detail}.`);
    await positions.ingest([decoded]);
  };
  const described = {
    tags: ["ingest"],
    querystring: OsmandQuery,
    response: {
      ...forms("Stored, or nothing to store", { "text/plain": Type.String({ maxLength: 0 }) }),
      ...problems(400, 503),
    },
  };
  const description =
    "Answers 200 with an empty body once the position is stored, and for reports without coordinates. Other " +
    "parameters become attributes. Impossible coordinates or times are refused with 400.";

  app.get(
    "/ingest/osmand",
    {
      config: { changes: true, scope: "ingest", keyInQuery: true },
      // A HEAD would store as well.
      exposeHeadRoute: false,
      schema: {
        ...described,
        operationId: "ingestOsmandQuery",
        summary: "Store the position in the query, as OsmAnd and Traccar Client send it",
        description,
      },
    },
    async (request, reply) => {
      await store(decodeOsmandReport({ query: request.query as Parameters }, clock()));
      return reply.type("text/plain").send("" as never);
    },
  );
  app.post(
    "/ingest/osmand",
    {
      config: { scope: "ingest", keyInQuery: true },
      validatorCompiler: () => () => true,
      schema: {
        ...described,
        operationId: "ingestOsmand",
        summary: "Store the position in the query, form or JSON, as OsmAnd and Traccar Client send it",
        description,
        body: TraccarBody,
      },
    },
    async (request, reply) => {
      const { body } = request as { body: unknown };
      const isJson =
        body !== undefined && /^application\/json\b/i.test(request.headers["content-type"] ?? "");
      const read = isJson ? { json: body } : { form: body as Parameters | undefined };
      await store(decodeOsmandReport({ query: request.query as Parameters, ...read }, clock()));
      return reply.type("text/plain").send("" as never);
    },
  );
}
