import type { Evidence } from "../evidence.ts";
import { type Claim, claimsOf, listedItems } from "./claims.ts";
import { dateOf, type Facts, factsOf, type PartialDate, type Quantity, wordsOf } from "./facts.ts";

export interface Grounding {
  /** Every claim is borne out, and where claims are made, there is evidence at all. */
  readonly grounded: boolean;
  /** The claims that are not, in the answer's own words, each once. */
  readonly unsupported: string[];
}

/**
 * Checks what an answer says against what tools returned: numbers with their units (rounded, or converted between
 * units of one dimension), dates, times of day, and names. What the asker said may be repeated.
 * @param said texts whose claims need no evidence: the question, and today's date as the model was told it.
 */
export function checkGrounding(
  answer: string,
  evidence: readonly Evidence[],
  said: readonly string[],
): Grounding {
  const facts = factsOf(evidence);
  const asked = claimsOf(said.join("\n"), [], new Set());
  const words = new Set([...facts.words, ...said.flatMap(wordsOf)]);
  const claims = claimsOf(answer, facts.names, words);
  const support: Support = {
    times: facts.times,
    quantities: [...facts.quantities, ...quantitiesOf(asked), ...countsOf(answer, claims)],
    dates: [
      ...facts.times.map(dateOf),
      ...asked.flatMap((claim) => (claim.kind === "date" ? claim.readings : [])),
    ],
    clocks: asked.flatMap((claim) => (claim.kind === "clock" ? [claim.minuteOfDay] : [])),
    instants: asked.flatMap((claim) => (claim.kind === "instant" ? [claim.at] : [])),
    words,
  };
  const unsupported = claims.filter((claim) => !isSupported(claim, support)).map(({ text }) => text);
  return {
    grounded: unsupported.length === 0 && (claims.length === 0 || evidence.length > 0),
    unsupported: [...new Set(unsupported)],
  };
}

interface Support extends Pick<Facts, "times" | "quantities" | "words"> {
  readonly dates: readonly PartialDate[];
  readonly clocks: readonly number[];
  readonly instants: readonly number[];
}

function isSupported(claim: Claim, support: Support): boolean {
  switch (claim.kind) {
    case "number":
      return support.quantities.some((quantity) => agrees(claim, quantity)) || isYear(claim, support.dates);
    case "instant":
      return [...support.times, ...support.instants].some(
        (at) => Math.abs(at - claim.at) < claim.precisionMs,
      );
    case "date":
      return claim.readings.some((reading) => support.dates.some((date) => covers(reading, date)));
    case "clock":
      return (
        support.clocks.includes(claim.minuteOfDay) ||
        support.times.some((at) => minutesApart(at, claim.minuteOfDay) < claim.precisionMin)
      );
    case "name":
      return claim.known || wordsOf(claim.text).every((word) => support.words.has(word));
  }
}

type NumberClaim = Extract<Claim, { kind: "number" }>;

/** What one base unit is in the units that people read without naming them. */
const viewsOf: Readonly<Record<Quantity["dimension"], readonly number[]>> = {
  length: [1, 1 / 1000],
  speed: [1, 3.6],
  duration: [1, 1 / 60, 1 / 3600, 1 / 86_400],
  angle: [1],
  plain: [1],
};

function agrees(claim: NumberClaim, { value, dimension }: Quantity): boolean {
  const near = (candidate: number) => {
    const difference = claim.unsigned
      ? Math.abs(Math.abs(candidate) - Math.abs(claim.value))
      : Math.abs(candidate - claim.value);
    // Binary fractions: 0.5 in the last place must not fail by the last bit.
    return difference <= claim.tolerance + 1e-9 * Math.max(1, Math.abs(claim.value));
  };
  if (claim.dimension === undefined) return viewsOf[dimension].some((factor) => near(value * factor));
  if (claim.dimension === "percent") return dimension === "plain" && (near(value * 100) || near(value));
  return claim.dimension === dimension && near(value);
}

/** Without a unit, 2019 may be the year of some date. */
function isYear(claim: NumberClaim, dates: readonly PartialDate[]): boolean {
  return (
    claim.dimension === undefined &&
    /^\d{4}$/.test(claim.text) &&
    dates.some(({ year }) => year === claim.value)
  );
}

function covers(reading: PartialDate, date: PartialDate): boolean {
  return (["year", "month", "day", "weekday"] as const).every(
    (part) => reading[part] === undefined || reading[part] === date[part],
  );
}

function minutesApart(at: number, minuteOfDay: number): number {
  const minute = (at / 60_000) % 1440;
  const apart = Math.abs(minute - minuteOfDay);
  return Math.min(apart, 1440 - apart);
}

function quantitiesOf(claims: readonly Claim[]): Quantity[] {
  return claims.flatMap((claim) => {
    if (claim.kind !== "number") return [];
    const { dimension, value } = claim;
    return [{ value, dimension: dimension === undefined || dimension === "percent" ? "plain" : dimension }];
  });
}

/** "These three: …" is borne out by the three that follow. */
function countsOf(answer: string, claims: readonly Claim[]): Quantity[] {
  const named = new Set(claims.flatMap((claim) => (claim.kind === "name" && claim.known ? [claim.text] : [])))
    .size;
  return [listedItems(answer), named]
    .filter((count) => count > 1)
    .map((value) => ({ value, dimension: "plain" as const }));
}
