import { type Static, Type } from "typebox";
import { measureTrack } from "../../store/tracks.ts";
import { TrackMeter } from "../../tracking/track-summary.ts";
import { AgentError } from "../agent-error.ts";
import type { Tool } from "../tool.ts";
import { rounded, timeText } from "./figures.ts";
import { meantSubject } from "./subject.ts";

const Arguments = Type.Object(
  {
    subject: Type.String({ minLength: 1, maxLength: 200, description: "name or id of the subject" }),
    from: Type.Optional(
      Type.String({
        format: "date-time",
        description: "RFC 3339, included, such as 2026-05-01T00:00:00Z; leave out for the beginning",
      }),
    ),
    to: Type.Optional(
      Type.String({
        format: "date-time",
        description: "RFC 3339, excluded, such as 2026-06-01T00:00:00Z; leave out for the end",
      }),
    ),
  },
  { additionalProperties: false },
);

const Time = Type.Union([Type.String({ format: "date-time" }), Type.Null()]);
const Figure = Type.Union([Type.Number(), Type.Null()]);

const Result = Type.Object({
  subject: Type.String(),
  species: Type.Union([Type.String(), Type.Null()]),
  from: Time,
  to: Time,
  fixes: Type.Integer({ description: "fixes that count" }),
  outliers_left_out: Type.Integer(),
  first_at: Time,
  last_at: Time,
  duration_s: Type.Number({ description: "from the first fix to the last" }),
  distance_m: Type.Number({ description: "along the fixes" }),
  distance_km: Type.Number(),
  mean_speed_mps: Figure,
  mean_speed_kmh: Figure,
  max_speed_mps: Type.Union([Type.Number(), Type.Null()], { description: "between two fixes" }),
  max_speed_kmh: Figure,
  max_speed_at: Time,
  bounding_box: Type.Union([
    Type.Object({ south: Type.Number(), west: Type.Number(), north: Type.Number(), east: Type.Number() }),
    Type.Null(),
  ]),
});

/** A subject's track in figures. */
export const trackSummary = {
  name: "track_summary",
  description:
    "Sums up how a subject moved, over all time or between two times: number of fixes, first and last time, how far " +
    "it travelled (distance), mean and maximum speed, bounding box. Outliers are left out.",
  arguments: Arguments,
  result: Result,
  async run(
    { subject: wanted, from, to }: Static<typeof Arguments>,
    { pool, signal },
  ): Promise<Static<typeof Result>> {
    const range = { from: epochMs(from), to: epochMs(to) };
    if (range.from !== undefined && range.to !== undefined && range.from >= range.to) {
      throw new AgentError(
        "tool-arguments-invalid",
        "The arguments of track_summary are wrong: from must be before to.",
      );
    }
    const { id, name, species } = await meantSubject(pool, wanted);
    const meter = new TrackMeter();
    await measureTrack(pool, id, range, {
      add(fix) {
        signal.throwIfAborted();
        meter.add(fix);
      },
    });
    const track = meter.summary();
    const speed = (mps: number | undefined | null, factor: number) =>
      mps === undefined || mps === null ? null : rounded(mps * factor, 2);
    return {
      subject: name,
      species,
      from: timeOrNull(range.from),
      to: timeOrNull(range.to),
      fixes: track.fixes,
      outliers_left_out: track.outliersLeftOut,
      first_at: timeOrNull(track.firstAt),
      last_at: timeOrNull(track.lastAt),
      duration_s: track.spanS,
      distance_m: rounded(track.distanceM, 1),
      distance_km: rounded(track.distanceM / 1000, 3),
      mean_speed_mps: speed(track.meanSpeedMps, 1),
      mean_speed_kmh: speed(track.meanSpeedMps, 3.6),
      max_speed_mps: speed(track.fastest?.speedMps, 1),
      max_speed_kmh: speed(track.fastest?.speedMps, 3.6),
      max_speed_at: timeOrNull(track.fastest?.from),
      bounding_box: track.box && {
        south: rounded(track.box.south, 6),
        west: rounded(track.box.west, 6),
        north: rounded(track.box.north, 6),
        east: rounded(track.box.east, 6),
      },
    };
  },
  tell(track: Static<typeof Result>): string {
    const { subject, fixes, first_at, last_at, distance_km, mean_speed_mps, max_speed_mps } = track;
    const range = [track.from && ` from ${track.from}`, track.to && ` to ${track.to}`].join("");
    if (fixes === 0) return `${subject} has no fixes${range}.`;
    const speeds =
      mean_speed_mps === null
        ? ""
        : ` Mean speed ${mean_speed_mps} m/s, maximum ${max_speed_mps ?? mean_speed_mps} m/s.`;
    return `${subject} travelled ${distance_km} km${range}: ${fixes} fixes, the first on ${first_at}, the last on ${last_at}.${speeds}`;
  },
} satisfies Tool<typeof Arguments, typeof Result>;

function epochMs(text: string | undefined): number | undefined {
  return text === undefined ? undefined : Date.parse(text);
}

function timeOrNull(ms: number | null | undefined): string | null {
  return ms === null || ms === undefined ? null : timeText(ms);
}
