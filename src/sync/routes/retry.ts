import type { LocalHandler } from "../../http/local-socket.ts";
import { retryParked } from "../../store/sync-parked.ts";
import { readSyncReport } from "../../store/sync-state.ts";
import type { SyncContext } from "../app.ts";
import { untilPulled, untilSent } from "./news.ts";
import type { PushNews } from "./push.ts";

/**
 * `POST /retry`: sends once more the rows that the project refused, and fetches those that this database refused; those
 * that are refused again stay set aside. Files of photos follow by themselves.
 */
export function retryRoute(context: SyncContext): LocalHandler {
  return async function* ({ signal }): AsyncGenerator<PushNews> {
    const retried =
      (await context.inbox.retry()) +
      ((await context.photos?.retry()) ?? 0) +
      (await retryParked(context.pool));
    yield* untilSent(context, false, signal);
    for await (const _ of untilPulled(context, false, signal));
    const { changes_waiting, parked_rows } = await readSyncReport(context.pool);
    yield { kind: "done", changes_waiting, parked_rows, retried };
  };
}
