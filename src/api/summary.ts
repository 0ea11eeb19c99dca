import { Type } from "typebox";
import type { Step, TrackSummary as Summary } from "../tracking/track-summary.ts";
import { iso } from "./render.ts";
import { Time } from "./schemas.ts";

const orNull = (description: string) => Type.Union([Type.Number(), Type.Null()], { description });

/** A track summed up, as JSON. */
export const TrackSummary = Type.Object({
  subject_id: Type.String({ format: "uuid" }),
  subject: Type.String(),
  fixes: Type.Integer({ description: "fixes that count" }),
  outliers_left_out: Type.Integer({ description: "fixes held to be wrong, which do not count" }),
  first_at: Type.Union([Time("time of the first fix"), Type.Null()]),
  last_at: Type.Union([Time("time of the last fix"), Type.Null()]),
  span_s: Type.Number({ description: "seconds from the first fix to the last" }),
  distance_m: Type.Number({
    description: "metres along the fixes, on a sphere; gaps between segments left out",
  }),
  mean_speed_mps: orNull("distance by the time that its steps took"),
  max_speed_mps: orNull("of the fastest step between two fixes"),
  fastest_step: Type.Union([
    Type.Object({
      from: Time("time of its first fix"),
      to: Time("time of its second fix"),
      distance_m: Type.Number(),
      speed_mps: Type.Number(),
    }),
    Type.Null(),
  ]),
  box: Type.Union(
    [
      Type.Object({ west: Type.Number(), south: Type.Number(), east: Type.Number(), north: Type.Number() }),
      Type.Null(),
    ],
    { description: "degrees; west is greater than east where it spans the antimeridian" },
  ),
});

/** The summary in that form. */
export function summaryJson(subject: { readonly id: string; readonly name: string }, summary: Summary) {
  return {
    subject_id: subject.id,
    subject: subject.name,
    fixes: summary.fixes,
    outliers_left_out: summary.outliersLeftOut,
    first_at: summary.firstAt === null ? null : iso(summary.firstAt),
    last_at: summary.lastAt === null ? null : iso(summary.lastAt),
    span_s: summary.spanS,
    distance_m: summary.distanceM,
    mean_speed_mps: summary.meanSpeedMps,
    max_speed_mps: summary.fastest?.speedMps ?? null,
    fastest_step: summary.fastest && stepJson(summary.fastest),
    box: summary.box && { ...summary.box },
  };
}

function stepJson({ from, to, distanceM, speedMps }: Step) {
  return { from: iso(from), to: iso(to), distance_m: distanceM, speed_mps: speedMps };
}
