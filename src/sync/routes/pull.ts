import type { LocalHandler } from "../../http/local-socket.ts";
import { readSyncReport } from "../../store/sync-state.ts";
import type { SyncContext } from "../app.ts";
import { type Comparison, compareTables } from "../compare.ts";
import { type FetchingNews, untilPulled, untilSent } from "./news.ts";

/** A line of what `POST /pull` answers: news, and at last the end of it. */
export type PullNews =
  | FetchingNews
  | {
      readonly kind: "done";
      readonly parked_rows: number;
      /** Where everything was read: whether both sides have the same. */
      readonly compared?: readonly Comparison[];
    };

/**
 * `POST /pull {all?}`: fetches at once what others changed; with `all` everything that the project has, from the beginning
 * or from where that was, after which both sides are compared. Whoever leaves stops only the news. Without `all`, fails
 * where nothing gets through.
 */
export function pullRoute(context: SyncContext): LocalHandler {
  return async function* ({ body, signal }) {
    const isAll = typeof body === "object" && body !== null && "all" in body && body.all === true;
    yield* pull(context, isAll, signal);
  };
}

async function* pull(context: SyncContext, isAll: boolean, signal: AbortSignal): AsyncGenerator<PullNews> {
  const { pool, puller, tables } = context;
  if (isAll) puller.begin();
  // Files of photos follow by themselves, and nobody waits for those.
  await context.photos?.hurry();
  yield* untilPulled(context, isAll, signal);
  if (isAll) await settled(context, signal);
  const compared = isAll ? { compared: await compareTables(context, tables, "everybody", signal) } : {};
  const { parked_rows } = await readSyncReport(pool);
  yield { kind: "done", parked_rows, ...compared };
}

/** What waits on either side would be a difference: it goes over first, as far as that is possible. */
async function settled(context: SyncContext, signal: AbortSignal): Promise<void> {
  for await (const _ of untilSent(context, true, signal));
  for await (const _ of untilPulled(context, true, signal));
}
