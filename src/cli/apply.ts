import type { Change } from "../process-manager/change-plan.ts";
import type { ControlClient } from "../process-manager/control-client.ts";
import { withStation } from "./control.ts";
import type { Place } from "./place.ts";
import { printTable } from "./table.ts";

/** `pugmark plan`: what `apply` would do, and why; nothing is done. */
export async function plan(place: Place, json: boolean): Promise<number> {
  return await showChanges(place, json, async (station) => await station.plan());
}

/** `pugmark apply`: does only what makes what runs what is written now, and says what that was. Exit code 1 when it failed. */
export async function apply(place: Place, json: boolean): Promise<number> {
  return await showChanges(place, json, async (station) => await station.apply());
}

/** `pugmark scale NAME=N …`: runs that many replicas of each, until `apply` goes by what is written again. */
export async function scale(place: Place, wanted: readonly Replicas[], json: boolean): Promise<number> {
  return await showChanges(place, json, async (station) => {
    const changes: Change[] = [];
    for (const { name, replicas } of wanted) changes.push(...(await station.scale(name, replicas)));
    return changes;
  });
}

/** How many of what: `web=3`. */
export interface Replicas {
  readonly name: string;
  readonly replicas: number;
}

async function showChanges(
  place: Place,
  json: boolean,
  work: (station: ControlClient) => Promise<readonly Change[]>,
): Promise<number> {
  return await withStation(place, async (station) => {
    const changes = await work(station);
    if (json) console.log(JSON.stringify({ changes }, null, 2));
    else printChanges(changes);
    return 0;
  });
}

function printChanges(changes: readonly Change[]): void {
  const rows = changes.filter(({ action }) => action !== "keep");
  if (rows.length === 0) console.log("Nothing to change: what runs is what is written.");
  else
    printTable(
      ["action", "service", "why"],
      rows.map(({ action, name, why }) => [action, name, why.join(", ")]),
    );
}
