import type { Pool } from "../../store/pool.ts";
import { isWaiting, newestChange } from "../../store/sync-changes.ts";
import { readSyncReport } from "../../store/sync-state.ts";
import type { SyncContext } from "../app.ts";
import type { Puller } from "../puller.ts";
import type { Pusher } from "../pusher.ts";
import { mirrorElsewhere, SyncError } from "../sync-error.ts";

/** How far the sending is. */
export interface SendingNews {
  readonly kind: "progress";
  /** The table of the history that is under way; null while only changes are sent. */
  readonly table: string | null;
  readonly rows_sent: number;
  readonly rows_total: number;
  readonly changes_waiting: number;
  /** Why nothing gets through, where that is so. */
  readonly error: string | null;
}

/** How far the fetching is. */
export interface FetchingNews {
  readonly kind: "progress";
  /** The table of the project that is being read; null while only changes are. */
  readonly table: string | null;
  readonly rows_pulled: number;
  readonly rows_total: number;
  /** Why nothing gets through, where that is so. */
  readonly error: string | null;
}

/** A connection that broke, or a deadlock of two stations, is not yet worth anybody's attention. */
const triesMax = 3;

/** Gives news until all that waits now is sent or parked, and with `isPatient` the history as well, however long it takes. */
export async function* untilSent(
  { pool, pusher }: Pick<SyncContext, "pool" | "pusher">,
  isPatient: boolean,
  signal: AbortSignal,
): AsyncGenerator<SendingNews> {
  const newest = await newestChange(pool);
  const failuresMax = pusher.failures + triesMax;
  pusher.hurry();
  for (;;) {
    // Listened to first: what happens while the database is read is not missed.
    const changed = pusher.changed(signal);
    if (pusher.state === "standby" || pusher.state === "own") throw mirrorElsewhere(pusher.state, "mirror");
    if (!pusher.history.isUnderWay && !(await isWaiting(pool, newest))) return;
    const news = await progressOf(pool, pusher);
    yield news;
    if (news.error !== null && !isPatient) refuse(news.error, pusher, failuresMax);
    await changed;
  }
}

export async function progressOf(pool: Pool, { history, state }: Pusher): Promise<SendingNews> {
  const { changes_waiting, push_error } = await readSyncReport(pool);
  const { table = null, rowsSent = 0, rowsTotal = 0 } = history.progress ?? {};
  const error = state === "waiting" ? push_error : null;
  return { kind: "progress", table, rows_sent: rowsSent, rows_total: rowsTotal, changes_waiting, error };
}

/** Gives news until it has caught up with all that there is now. */
export async function* untilPulled(
  { pool, puller }: Pick<SyncContext, "pool" | "puller">,
  isPatient: boolean,
  signal: AbortSignal,
): AsyncGenerator<FetchingNews> {
  // What is under way may have read past the place of what is asked for.
  const wanted = puller.rounds + (puller.state === "pulling" || puller.state === "waiting" ? 2 : 1);
  const failuresMax = puller.failures + triesMax;
  puller.hurry();
  while (!signal.aborted) {
    // Listened to first: what happens while the database is read is not missed.
    const changed = puller.changed(signal);
    if (puller.state === "standby" || puller.state === "own") throw mirrorElsewhere(puller.state, "fetch");
    if (puller.rounds >= wanted) return;
    const { table = null, rowsPulled = 0, rowsTotal = 0 } = puller.progress ?? {};
    const { pull_error } = await readSyncReport(pool);
    const error = puller.state === "waiting" ? pull_error : null;
    yield { kind: "progress", table, rows_pulled: rowsPulled, rows_total: rowsTotal, error };
    if (error !== null && !isPatient) refuse(error, puller, failuresMax);
    await changed;
  }
}

/** Throws once nothing got through for so often, and until then has it tried again at once. */
function refuse(
  error: string,
  worker: Pick<Pusher | Puller, "failures" | "hurry">,
  failuresMax: number,
): void {
  if (worker.failures >= failuresMax)
    throw new SyncError("project-unreachable", `Nothing gets through: ${error}`);
  worker.hurry();
}
