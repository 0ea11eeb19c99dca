import type { Pool } from "../store/pool.ts";
import { type Checksum, tableChecksum } from "../store/sync-rows.ts";
import { readRowCounts } from "../store/sync-state.ts";
import type { ChosenTable } from "./mirror-choice.ts";
import type { Project } from "./project.ts";

/** A table on both sides: of the rows that this station made, how many there are and their checksum. */
export interface Comparison {
  readonly table: string;
  readonly here: Checksum;
  /** Null where the project did not say. */
  readonly project: Checksum | null;
  /** Null where it cannot be known: rows that went over rounded differ on purpose. */
  readonly same: boolean | null;
  /** Why it is not known. */
  readonly problem?: string;
}

/** As long as the project gives itself: it reads every row. */
const checksumMs = 10 * 60_000;

/**
 * Compares what this station made, or all that it has, with what the project has of it. Rows that change meanwhile make a
 * difference.
 */
export async function compareTables(
  parts: { readonly pool: Pool; readonly project: Project; readonly station: string },
  tables: readonly ChosenTable[],
  of: "own" | "everybody",
  signal: AbortSignal,
): Promise<Comparison[]> {
  const { pool, project, station } = parts;
  await using patient = project.patient(checksumMs);
  const rounded = await roundedTables(pool);
  const compared: Comparison[] = [];
  for (const { name: table, isCoarse } of tables) {
    // A project keeps the list of stations itself.
    if (table === "stations") continue;
    const madeBy = of === "own" ? station : null;
    const here = await tableChecksum(pool, table, { station, madeBy });
    const parameters = { table_name: table, station: madeBy };
    const { data, error } = await patient.call<Answer>("sync_checksum", parameters, signal);
    if (error || !data) {
      compared.push({ table, here, project: null, same: null, problem: error?.message ?? "no answer" });
      continue;
    }
    const there = { rows: Number(data.row_count), checksum: data.checksum };
    const isSame = there.rows === here.rows && there.checksum === here.checksum;
    const isRounded = !isSame && there.rows === here.rows && (isCoarse || rounded.has(table));
    const unknown = { same: null, problem: "as many rows, of which some are rounded" };
    compared.push({ table, here, project: there, ...(isRounded ? unknown : { same: isSame }) });
  }
  return compared;
}

/** Those that this station ever sent rounded rows of: what was sent so stays so. */
async function roundedTables(pool: Pool): Promise<Set<string>> {
  const counts = await readRowCounts(pool);
  return new Set(counts.filter(({ outcome }) => outcome === "rounded").map(({ table }) => table));
}

interface Answer {
  readonly row_count: number | string;
  readonly checksum: string;
}
