import type { LocalHandler } from "../../http/local-socket.ts";
import { listParked, type ParkedRow } from "../../store/sync-parked.ts";
import { readSyncReport, type SyncReport } from "../../store/sync-state.ts";
import type { SyncContext } from "../app.ts";
import type { HistoryProgress } from "../history.ts";
import type { PhotoMirror } from "../photos.ts";
import type { PullerState, PullProgress } from "../puller.ts";
import type { PusherState } from "../pusher.ts";

/** What `GET /status` answers. */
export interface SyncStatus extends SyncReport {
  /** What the pusher is at. */
  readonly state: PusherState;
  /** The project's address. */
  readonly project: string;
  /** When it will try again, where nothing gets through. */
  readonly next_try_at: string | null;
  /** How far the sending of the whole history is; null where none is under way. */
  readonly history: HistoryProgress | null;
  /** What the puller is at. */
  readonly pull_state: PullerState;
  /** How far the reading of all that the project has is; null where none is under way. */
  readonly restore: PullProgress | null;
  /** Why the inbox cannot be fetched; null where all is well. */
  readonly inbox_error: string | null;
  /** What copies files of photos is at; null where they stay here. */
  readonly photos_state: PhotoMirror["state"] | null;
  /** Why no file of a photo gets through; null where all is well. */
  readonly photos_error: string | null;
  /** The rows set aside last, 20 at most. */
  readonly parked: readonly ParkedRow[];
}

const parkedShown = 20;

/** `GET /status`: how the mirror is doing. */
export function statusRoute(context: SyncContext): LocalHandler {
  return async () => await readStatus(context);
}

async function readStatus({
  pool,
  pusher,
  puller,
  inbox,
  photos,
  projectUrl,
}: SyncContext): Promise<SyncStatus> {
  // Before the database is read, in which the reason for waiting is written first.
  const { state, nextTryAt } = pusher;
  const report = await readSyncReport(pool);
  // After the report, which counts them: what it counts is in this list.
  const parked = await listParked(pool, parkedShown);
  return {
    state,
    project: new URL(projectUrl).origin,
    ...report,
    next_try_at: nextTryAt === 0 ? null : new Date(nextTryAt).toISOString(),
    history: pusher.history.progress,
    pull_state: puller.state,
    restore: puller.progress,
    inbox_error: inbox.trouble,
    photos_state: photos?.state ?? null,
    photos_error: photos?.trouble ?? null,
    parked,
  };
}
