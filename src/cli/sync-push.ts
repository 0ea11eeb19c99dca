import type { Config } from "../config/config.ts";
import type { PushNews } from "../sync/routes/push.ts";
import { type Done, followSync, isComparedBadly, printDone } from "./sync-follow.ts";
import { withSync } from "./sync-service.ts";

/**
 * `pugmark sync push`: has what waits sent now and returns when it is; with `all` everything that there is, and compares. Exit
 * code 1 where nothing gets through, rows were set aside, or the two sides differ or could not be compared. Whoever leaves
 * stops nothing.
 */
export async function syncPush(config: Config, isAll: boolean, json: boolean): Promise<number> {
  return await withSync(config, async (socket) => {
    const done = await followSync<PushNews>(socket, { path: "/push", body: { all: isAll } }, counting);
    if (json) console.log(JSON.stringify(done, null, 2));
    // Those of other stations are sent, too, and may have changed there meanwhile.
    else printDone(done, isAll ? allSent(done) : "All that waited was sent.", "rows made here");
    const isBad = isComparedBadly(done, json);
    return done.parked_rows > 0 || isBad ? 1 : 0;
  });
}

function allSent({ compared }: Done<PushNews>): string {
  return compared?.length === 0
    ? "Nothing was sent: SUPABASE_MIRROR leaves all tables out."
    : "All that this station has was sent.";
}

/** `pugmark sync retry`: sends once more what the project refused. Exit code 1 where it refuses again. */
export async function syncRetry(config: Config, json: boolean): Promise<number> {
  return await withSync(config, async (socket) => {
    const done = await followSync<PushNews>(socket, { path: "/retry", body: {} }, counting);
    if (json) console.log(JSON.stringify(done, null, 2));
    else printDone(done, `${done.retried ?? 0} sent once more.`);
    return done.parked_rows > 0 ? 1 : 0;
  });
}

const counting = ({ rows_sent, rows_total, changes_waiting }: Extract<PushNews, { kind: "progress" }>) => ({
  total: rows_total || changes_waiting,
  done: (total: number) => (rows_total > 0 ? rows_sent : Math.max(0, total - changes_waiting)),
});
