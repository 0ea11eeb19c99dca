import { type Static, Type } from "typebox";
import { type LatestPosition, latestPositions as readLatestPositions } from "../../store/tracks.ts";
import { fitting, type Tool } from "../tool.ts";
import { rounded, timeText } from "./figures.ts";
import { meantSubject } from "./subject.ts";

const rowsMax = 100;

const Arguments = Type.Object(
  {
    subject: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 200,
        description: "name or id of one subject; leave out for all",
      }),
    ),
  },
  { additionalProperties: false },
);

const Position = Type.Object({
  subject: Type.String(),
  species: Type.Optional(Type.String()),
  device: Type.String(),
  time: Type.String({ format: "date-time" }),
  lat: Type.Number(),
  lon: Type.Number(),
  altitude_m: Type.Optional(Type.Number()),
  accuracy_m: Type.Optional(Type.Number()),
  speed_mps: Type.Optional(Type.Number()),
  heading_deg: Type.Optional(Type.Number()),
  battery: Type.Optional(Type.Number({ description: "0 to 1" })),
});

const Result = Type.Object({
  positions: Type.Array(Position),
  without_position: Type.Array(Type.String(), { description: "subjects that no fix is known of" }),
  cut: Type.Boolean({ description: "there are more than are listed" }),
});

/** Where everybody is, as far as their last fix tells. */
export const latestPositions = {
  name: "latest_positions",
  description:
    "Where subjects are now: the last known position of one subject or of all, with its time, device, speed, heading " +
    "and battery where those are known. Outliers are left out.",
  arguments: Arguments,
  result: Result,
  async run({ subject }: Static<typeof Arguments>, { pool }): Promise<Static<typeof Result>> {
    const one = subject === undefined ? undefined : await meantSubject(pool, subject);
    const found = await readLatestPositions(pool, { limit: rowsMax + 1, subjectId: one?.id });
    const { rows, cut } = fitting(found.slice(0, rowsMax).map(rowOf));
    return {
      positions: rows.filter((row) => typeof row !== "string"),
      without_position: rows.filter((row) => typeof row === "string"),
      cut: cut || found.length > rowsMax,
    };
  },
  tell({ positions, without_position, cut }: Static<typeof Result>): string {
    const lines = positions.map(
      ({ subject, lat, lon, time, device }) =>
        `${subject} was at ${lat}, ${lon} on ${time} (device ${device}).`,
    );
    if (without_position.length > 0) lines.push(`No position is known of ${without_position.join(", ")}.`);
    if (cut) lines.push("More subjects are not listed here.");
    return lines.join("\n") || "No positions were found.";
  },
} satisfies Tool<typeof Arguments, typeof Result>;

/** A position, or the bare name of a subject without one. What is not known is left out. */
function rowOf({ subject, species, fix }: LatestPosition): Static<typeof Position> | string {
  if (fix === null) return subject;
  const measures: Readonly<Record<string, number | undefined>> = {
    altitude_m: fix.altitudeM,
    accuracy_m: fix.accuracyM,
    speed_mps: fix.speedMps,
    heading_deg: fix.headingDeg,
    battery: fix.battery,
  };
  const known = Object.entries(measures).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, rounded(value, 2)] as const],
  );
  return {
    subject,
    ...(species === null ? {} : { species }),
    device: fix.device,
    time: timeText(fix.time),
    lat: rounded(fix.lat, 6),
    lon: rounded(fix.lon, 6),
    ...Object.fromEntries(known),
  };
}
