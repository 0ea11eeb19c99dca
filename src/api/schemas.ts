import { type TSchema, Type } from "typebox";

/** RFC 3339, UTC in answers. */
export const Time = (description: string) =>
  Type.String({ format: "date-time", description, examples: ["2019-05-10T09:01:39.000Z"] });

/** A position in the native form, as it is taken and given. */
export const Position = Type.Object(
  {
    device: Type.String({ description: "what the device calls itself", examples: ["5750"] }),
    time: Time("when, RFC 3339 with a zone"),
    lat: Type.Number({ minimum: -90, maximum: 90, description: "degrees, WGS 84", examples: [53.0011393] }),
    lon: Type.Number({ minimum: -180, maximum: 180, description: "degrees, WGS 84", examples: [6.5930217] }),
    altitude_m: Type.Optional(Type.Number({ description: "metres" })),
    accuracy_m: Type.Optional(Type.Number({ minimum: 0, description: "radius, metres" })),
    speed_mps: Type.Optional(Type.Number({ minimum: 0, description: "metres per second" })),
    heading_deg: Type.Optional(
      Type.Number({ minimum: 0, maximum: 360, description: "degrees clockwise from north" }),
    ),
    battery: Type.Optional(Type.Number({ minimum: 0, maximum: 1, description: "0 to 1" })),
    outlier: Type.Optional(
      Type.String({
        description: "why this fix is held to be wrong; such fixes are left out unless asked for",
      }),
    ),
    segment: Type.Optional(
      Type.String({ description: "fixes of different segments are not joined by a line" }),
    ),
    attributes: Type.Optional(
      Type.Object({}, { additionalProperties: true, description: "whatever else was reported" }),
    ),
  },
  { $id: "Position" },
);

/** Points to a schema that the app holds under its `$id`. */
export function ref<T extends TSchema>(schema: T): T {
  return Type.Ref((schema as unknown as { $id: string }).$id) as unknown as T;
}

/** An answer that the route writes itself, in one of several forms. */
export function forms(description: string, content: Readonly<Record<string, TSchema>>) {
  return {
    200: {
      description,
      content: Object.fromEntries(Object.entries(content).map(([type, schema]) => [type, { schema }])),
    },
  } as Record<never, never>;
}

export const FeatureCollection = Type.Object(
  {
    type: Type.Literal("FeatureCollection"),
    features: Type.Array(
      Type.Object(
        {
          type: Type.Literal("Feature"),
          geometry: Type.Object({
            type: Type.Literal("Point"),
            coordinates: Type.Array(Type.Number(), {
              minItems: 2,
              maxItems: 3,
              description: "longitude, latitude, metres above sea",
            }),
          }),
          properties: Type.Object({}, { additionalProperties: true }),
        },
        { additionalProperties: true },
      ),
    ),
  },
  {
    $id: "FeatureCollection",
    additionalProperties: true,
    examples: [
      {
        type: "FeatureCollection",
        features: [
          {
            type: "Feature",
            geometry: { type: "Point", coordinates: [6.5930217, 53.0011393, 12] },
            properties: { device_id: "5750", timestamp: "2019-05-10T09:01:39Z", speed: 0.19 },
          },
        ],
      },
    ],
  },
);

/** What became of each position of a request. */
export const Ingested = Type.Object(
  {
    accepted: Type.Integer({ description: "stored now" }),
    duplicates: Type.Integer({ description: "of a device and time that were stored already, or came twice" }),
    rejected: Type.Array(
      Type.Object({
        index: Type.Integer({ description: "place in the request, from 0" }),
        code: Type.String({ description: "stable, as in docs/errors.md" }),
        detail: Type.String(),
      }),
    ),
  },
  {
    $id: "Ingested",
    examples: [
      {
        accepted: 2,
        duplicates: 1,
        rejected: [
          { index: 3, code: "latitude-out-of-range", detail: "the latitude is not within -90 to 90" },
        ],
      },
    ],
  },
);

export const limitMax = 10_000;

/** Not a default of the schema, where it would look as if the caller had asked for a page. */
export const limitStandard = 1_000;

export const Limit = Type.Optional(
  Type.Integer({
    minimum: 1,
    maximum: limitMax,
    description: `items at most; ${limitStandard} unless given`,
  }),
);

export const Cursor = Type.Optional(
  Type.String({ maxLength: 600, description: "`next_cursor` of the page before" }),
);

export const NextCursor = Type.Union([Type.String(), Type.Null()], {
  description: "hand it over as `cursor` for the next page; null on the last",
});

export const TrackRange = {
  from: Type.Optional(Time("this time and later")),
  to: Type.Optional(Time("before this time")),
  include_outliers: Type.Boolean({ default: false, description: "fixes that are held to be wrong too" }),
};

export const Format = Type.Optional(
  Type.Union([Type.Literal("json"), Type.Literal("geojson"), Type.Literal("csv")], {
    description: "form of the answer; else the Accept header decides, else it is json",
  }),
);
