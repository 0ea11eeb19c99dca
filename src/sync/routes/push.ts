import type { LocalHandler } from "../../http/local-socket.ts";
import type { Pool } from "../../store/pool.ts";
import { isWaiting, newestChange } from "../../store/sync-changes.ts";
import { readSyncReport } from "../../store/sync-state.ts";
import type { SyncContext } from "../app.ts";
import { type Comparison, compareTables } from "../compare.ts";
import type { Pusher } from "../pusher.ts";
import { mirrorElsewhere, SyncError } from "../sync-error.ts";

/** A line of what `POST /push` and `POST /retry` answer: news, and at last the end of it. */
export type PushNews =
  | {
      readonly kind: "progress";
      /** The table of the history that is under way; null while only changes are sent. */
      readonly table: string | null;
      readonly rows_sent: number;
      readonly rows_total: number;
      readonly changes_waiting: number;
      /** Why nothing gets through, where that is so. */
      readonly error: string | null;
    }
  | {
      readonly kind: "done";
      readonly changes_waiting: number;
      readonly parked_rows: number;
      /** Rows that were tried once more. */
      readonly retried?: number;
      /** Where everything was sent: whether it is there. */
      readonly compared?: readonly Comparison[];
    };

/**
 * `POST /push {all?}`: sends what waits, at once; with `all` everything that there is, from the beginning or from where it
 * was. Whoever leaves stops only the news. Without `all`, fails where nothing gets through.
 */
export function pushRoute(context: SyncContext): LocalHandler {
  return async function* ({ body, signal }) {
    const isAll = typeof body === "object" && body !== null && "all" in body && body.all === true;
    yield* push(context, isAll, signal);
  };
}

async function* push(context: SyncContext, isAll: boolean, signal: AbortSignal): AsyncGenerator<PushNews> {
  const { pool, pusher, tables } = context;
  if (isAll) pusher.history.begin();
  // Their files follow by themselves, and nobody waits for those.
  await context.photos?.hurry();
  yield* untilSent(context, isAll, signal);
  const { changes_waiting, parked_rows } = await readSyncReport(pool);
  const compared = isAll ? { compared: await compareTables(context, tables, "own", signal) } : {};
  yield { kind: "done", changes_waiting, parked_rows, ...compared };
}

/** Gives news until all that waits now is sent or parked, and with `isPatient` the history as well, however long it takes. */
export async function* untilSent(
  { pool, pusher }: Pick<SyncContext, "pool" | "pusher">,
  isPatient: boolean,
  signal: AbortSignal,
): AsyncGenerator<PushNews> {
  const newest = await newestChange(pool);
  pusher.hurry();
  for (;;) {
    // Listened to first: what happens while the database is read is not missed.
    const changed = pusher.changed(signal);
    if (pusher.state === "standby" || pusher.state === "own") throw mirrorElsewhere(pusher.state, "mirror");
    if (!pusher.history.isUnderWay && !(await isWaiting(pool, newest))) return;
    const news = await progressOf(pool, pusher);
    yield news;
    if (news.error !== null && !isPatient)
      throw new SyncError("project-unreachable", `Nothing gets through: ${news.error}`);
    await changed;
  }
}

async function progressOf(pool: Pool, { history, state }: Pusher): Promise<PushNews & { kind: "progress" }> {
  const { changes_waiting, push_error } = await readSyncReport(pool);
  const { table = null, rowsSent = 0, rowsTotal = 0 } = history.progress ?? {};
  const error = state === "waiting" ? push_error : null;
  return { kind: "progress", table, rows_sent: rowsSent, rows_total: rowsTotal, changes_waiting, error };
}
