import { earthRadiusM } from "../tracking/geodesy.ts";

/** A position as the project stores it, as far as coarsening is concerned. */
interface PositionRow {
  readonly lat: number;
  readonly lon: number;
  readonly altitude_m: number | null;
  readonly accuracy_m: number | null;
  readonly speed_mps: number | null;
  readonly heading_deg: number | null;
  readonly outlier: string | null;
  readonly segment: string | null;
  readonly attributes: unknown;
}

const metresPerDegree = (earthRadiusM * Math.PI) / 180;

/**
 * A position moved to the nearest point of a grid with meshes of `gridM` metres, so that it says no more than that. Its
 * altitude is left out, since on a slope it tells where; speed and heading, since added up they draw the path within the
 * meshes; its segment and what its device added, since they may name the place. An outlier stays one, or it would be taken for a good fix, but without the reason. Its accuracy is the grid's, or
 * its own where that is worse.
 */
export function coarsen<P extends PositionRow>(position: P, gridM: number): P {
  const latStep = gridM / metresPerDegree;
  const lat = clamp(Math.round(position.lat / latStep) * latStep, 90);
  // Meshes are as wide as high at the grid's own latitude: of the true one the width would give something away.
  const circle = Math.cos((lat * Math.PI) / 180);
  const lonStep = Math.min(360, latStep / Math.max(circle, 1e-9));
  const lon = clamp(Math.round(position.lon / lonStep) * lonStep, 180);
  return {
    ...position,
    lat: rounded(lat),
    lon: rounded(lon),
    altitude_m: null,
    accuracy_m: Math.max(position.accuracy_m ?? 0, gridM),
    speed_mps: null,
    heading_deg: null,
    outlier: position.outlier === null ? null : "outlier",
    segment: null,
    attributes: null,
  };
}

function clamp(degrees: number, most: number): number {
  return Math.max(-most, Math.min(most, degrees));
}

/** To a tenth of a millimetre, without the noise of the last digits, and never -0. */
function rounded(degrees: number): number {
  return Number(degrees.toFixed(9)) + 0;
}
