import { setTimeout as delay } from "node:timers/promises";
import type { Pool } from "../store/pool.ts";
import { recordChanges } from "../store/sync-changes.ts";
import { keepParkedOf } from "../store/sync-parked.ts";
import { areEmpty, readMirroredTables } from "../store/sync-rows.ts";
import { noteHistorySent } from "../store/sync-state.ts";
import { type ChosenTable, chooseTables, type MirrorChoice } from "./mirror-choice.ts";

const attemptsMax = 40;
const attemptMs = 250;

/**
 * Has every change of the chosen tables recorded from now on, and of no others, and gives those tables. Where some are new and
 * have rows already, the whole history counts as not sent. What the project refused of others is let go.
 * Throws `SyncError` `mirror-unknown`.
 */
export async function startRecording(pool: Pool, choice: MirrorChoice): Promise<ChosenTable[]> {
  const tables = chooseTables(await readMirroredTables(pool), choice);
  const names = tables.map(({ name }) => name);
  const fresh = await insist(() => recordChanges(pool, names));
  await keepParkedOf(pool, names);
  if (fresh.length > 0) await noteHistorySent(pool, (await areEmpty(pool, names)) ? "now" : null);
  return tables;
}

/** Postgres lets go after half a second, rather than have those wait who write. */
async function insist<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      const isLocked = (error as { code?: unknown }).code === "55P03";
      if (!isLocked || attempt === attemptsMax) throw error;
      await delay(attemptMs);
    }
  }
}
