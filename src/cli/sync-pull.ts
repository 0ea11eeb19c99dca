import type { Config } from "../config/config.ts";
import type { PullNews } from "../sync/routes/pull.ts";
import { followSync, isComparedBadly, printDone } from "./sync-follow.ts";
import { withSync } from "./sync-service.ts";

/**
 * `pugmark sync pull`: fetches what others changed in the project, and returns when it is here; with `all` everything that is
 * there, and compares. Exit code 1 where nothing gets through, rows were set aside, or the two sides differ or could not be
 * compared. Whoever leaves stops nothing.
 */
export async function syncPull(config: Config, isAll: boolean, json: boolean): Promise<number> {
  return await withSync(config, async (socket) => {
    const done = await followSync<PullNews>(socket, { path: "/pull", body: { all: isAll } }, counting);
    if (json) console.log(JSON.stringify(done, null, 2));
    else
      printDone(done, isAll ? "All that the project has was fetched." : "All that others changed is here.");
    const isBad = isComparedBadly(done, json);
    return done.parked_rows > 0 || isBad ? 1 : 0;
  });
}

const counting = ({ rows_pulled, rows_total }: Extract<PullNews, { kind: "progress" }>) => ({
  total: rows_total,
  done: () => rows_pulled,
});
