import type { Pool } from "../store/pool.ts";
import { type Checksum, tableChecksum } from "../store/sync-rows.ts";
import type { ChosenTable } from "./mirror-choice.ts";
import type { Project } from "./project.ts";

/** A table on both sides: of the rows that this station made, how many there are and their checksum. */
export interface Comparison {
  readonly table: string;
  readonly here: Checksum;
  /** Null where the project did not say. */
  readonly project: Checksum | null;
  /** Null where it cannot be known: positions that were coarsened differ on purpose. */
  readonly same: boolean | null;
  /** Why it is not known. */
  readonly problem?: string;
}

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
  const compared: Comparison[] = [];
  for (const { name: table, isCoarse } of tables) {
    // A project keeps the list of stations itself.
    if (table === "stations") continue;
    const madeBy = of === "own" ? station : null;
    const here = await tableChecksum(pool, table, { station, madeBy });
    const parameters = { table_name: table, station: madeBy };
    const { data, error } = await project.call<Answer>("sync_checksum", parameters, signal);
    if (error || !data) {
      compared.push({ table, here, project: null, same: null, problem: error?.message ?? "no answer" });
      continue;
    }
    const there = { rows: Number(data.row_count), checksum: data.checksum };
    const isSame = there.rows === here.rows && (isCoarse || there.checksum === here.checksum);
    const same = isCoarse && isSame ? null : isSame;
    compared.push({
      table,
      here,
      project: there,
      same,
      ...(same === null ? { problem: "coarsened: only the numbers of rows are the same" } : {}),
    });
  }
  return compared;
}

interface Answer {
  readonly row_count: number | string;
  readonly checksum: string;
}
