import type { LocalHandler } from "../../http/local-socket.ts";
import { readSyncReport } from "../../store/sync-state.ts";
import type { SyncContext } from "../app.ts";
import { type Comparison, compareTables } from "../compare.ts";
import { progressOf, type SendingNews, untilPulled, untilSent } from "./news.ts";

/** A line of what `POST /push` and `POST /retry` answer: news, and at last the end of it. */
export type PushNews =
  | SendingNews
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
  if (isAll) {
    yield* untilInformed(context, signal);
    pusher.history.begin();
  }
  // Their files follow by themselves, and nobody waits for those.
  await context.photos?.hurry();
  yield* untilSent(context, isAll, signal);
  const { changes_waiting, parked_rows } = await readSyncReport(pool);
  const compared = isAll ? { compared: await compareTables(context, tables, "own", signal) } : {};
  yield { kind: "done", changes_waiting, parked_rows, ...compared };
}

/** What others have deleted is fetched first, as far as that is possible: or everything would bring it back. */
async function* untilInformed(context: SyncContext, signal: AbortSignal): AsyncGenerator<PushNews> {
  const { state } = context.puller;
  if (state === "standby" || state === "own") return;
  for await (const { error } of untilPulled(context, true, signal))
    yield { ...(await progressOf(context.pool, context.pusher)), error };
}
