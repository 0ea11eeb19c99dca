import type { Tool } from "../tool.ts";
import { latestPositions } from "./latest-positions.ts";
import { listSubjects } from "./list-subjects.ts";
import { trackSummary } from "./track-summary.ts";

/** Everything that the agent can do: three ways to read. */
export const tools: readonly Tool[] = [listSubjects, latestPositions, trackSummary];
