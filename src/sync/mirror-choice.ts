import type { MirroredTable } from "../store/sync-rows.ts";
import { coarsen } from "./coarsen.ts";
import { SyncError } from "./sync-error.ts";

/** A table whose rows the owner lets go to the project, and what of a row goes. */
export interface ChosenTable extends MirroredTable {
  /** Its rows are less exact in the project than here. */
  readonly isCoarse: boolean;
  /** A row (JSON object) as the project may have it. */
  readonly prepare: (rowJson: string) => string;
}

export interface MirrorChoice {
  /** `all`, `none`, or names of tables (`SUPABASE_MIRROR`). */
  readonly names: readonly string[];
  /** Metres of the grid that positions are rounded to; 0 for none. */
  readonly precisionM: number;
}

/** What would tell more than a coarse position: it goes only where it is named. */
const telling = new Set(["interactions", "conversations", "photos"]);

/** What rows belong to without a foreign key: which subject a fix is of, its device's deployments say. */
const belongsTo = new Map([["positions", ["deployments"]]]);

/**
 * The tables that go to the project, parents first; those that a named one refers to go with it, since no row can go without
 * what it refers to, or means anything. Throws `SyncError` `mirror-unknown` for a name that is no mirrored table's.
 */
export function chooseTables(
  tables: readonly MirroredTable[],
  { names, precisionM }: MirrorChoice,
): ChosenTable[] {
  const known = new Map(tables.map((table) => [table.name, table]));
  const chosen = new Set<string>();
  const choose = (name: string) => {
    if (chosen.has(name)) return;
    chosen.add(name);
    for (const parent of [...(known.get(name)?.parents ?? []), ...(belongsTo.get(name) ?? [])])
      choose(parent);
  };
  for (const name of names) {
    if (name === "none") continue;
    if (name === "all") {
      for (const table of known.keys()) if (precisionM === 0 || !telling.has(table)) choose(table);
    } else if (known.has(name)) choose(name);
    else
      throw new SyncError(
        "mirror-unknown",
        `SUPABASE_MIRROR names ${name}, which is no mirrored table; there are ${[...known.keys()].join(", ")}`,
      );
  }
  return tables
    .filter(({ name }) => chosen.has(name))
    .map((table) => ({ ...table, ...preparation(table.name, precisionM) }));
}

function preparation(table: string, precisionM: number): Pick<ChosenTable, "isCoarse" | "prepare"> {
  const isCoarse = table === "positions" && precisionM > 0;
  const prepare = (rowJson: string) =>
    isCoarse ? JSON.stringify(coarsen(JSON.parse(rowJson), precisionM)) : rowJson;
  return { isCoarse, prepare };
}
