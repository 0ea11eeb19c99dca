import type { Config } from "../config/config.ts";
import { linesLocally } from "../http/local-client.ts";
import type { PullNews } from "../sync/routes/pull.ts";
import { fail } from "./failure.ts";
import { oneLine } from "./plain-text.ts";
import { Progress } from "./progress.ts";
import { printCompared } from "./sync-push.ts";
import { withSync } from "./sync-service.ts";

/**
 * `pugmark sync pull`: fetches what others changed in the project, and returns when it is here; with `all` everything that is
 * there, and compares. Exit code 1 where nothing gets through, rows were set aside or the two sides differ. Whoever leaves
 * stops nothing.
 */
export async function syncPull(config: Config, isAll: boolean, json: boolean): Promise<number> {
  return await withSync(config, async (socket) => {
    const done = await follow(socket, isAll);
    const { kind: _, ...result } = done;
    if (json) console.log(JSON.stringify(result, null, 2));
    else printDone(done, isAll);
    const differ = done.compared?.some(({ same }) => same === false) ?? false;
    if (differ && !json)
      fail(["the two sides differ: rows that changed meanwhile or were set aside do so"], 1);
    return done.parked_rows > 0 || differ ? 1 : 0;
  });
}

type Done = Extract<PullNews, { kind: "done" }>;

/** Shows how it goes on a terminal, and gives how it ended. */
async function follow(socket: string, all: boolean): Promise<Done> {
  let bar: Progress | undefined;
  let told: string | null = null;
  try {
    const question = { method: "POST", path: "/pull", body: { all } } as const;
    for await (const news of linesLocally<PullNews>(socket, question)) {
      if (news.kind === "done") return news;
      const { rows_pulled: pulled, rows_total: total, error } = news;
      if (total > 0) bar ??= new Progress(process.stderr, total);
      bar?.update(pulled, pulled);
      if (error !== null && error !== told) {
        bar?.end();
        console.error(`Waiting: ${oneLine(error)}`);
      }
      told = error;
    }
  } finally {
    bar?.end();
  }
  throw new Error("the service ended its answer without a result");
}

function printDone({ parked_rows: parked, compared }: Done, isAll: boolean): void {
  console.log(isAll ? "All that the project has was fetched." : "All that others changed is here.");
  if (parked > 0) console.log(`${parked} set aside, since one side refuses them: pugmark sync status`);
  if (compared) printCompared(compared);
}
