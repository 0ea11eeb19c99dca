import type { Config } from "../config/config.ts";
import { linesLocally } from "../http/local-client.ts";
import type { Comparison } from "../sync/compare.ts";
import type { PushNews } from "../sync/routes/push.ts";
import { fail } from "./failure.ts";
import { oneLine } from "./plain-text.ts";
import { Progress } from "./progress.ts";
import { withSync } from "./sync-service.ts";
import { printTable } from "./table.ts";

/**
 * `pugmark sync push`: has what waits sent now and returns when it is; with `all` everything that there is, and compares. Exit
 * code 1 where nothing gets through, rows were set aside or the two sides differ. Whoever leaves stops nothing.
 */
export async function syncPush(config: Config, isAll: boolean, json: boolean): Promise<number> {
  return await withSync(config, async (socket) => {
    const done = await follow(socket, "/push", { all: isAll });
    if (json) console.log(JSON.stringify(done, null, 2));
    else printDone(done, isAll ? "All that this station has was sent." : "All that waited was sent.");
    const differ = done.compared?.some(({ same }) => same === false) ?? false;
    if (differ && !json)
      fail(["the two sides differ: rows that changed meanwhile, were cut or set aside do so"], 1);
    return done.parked_rows > 0 || differ ? 1 : 0;
  });
}

/** `pugmark sync retry`: sends once more what the project refused. Exit code 1 where it refuses again. */
export async function syncRetry(config: Config, json: boolean): Promise<number> {
  return await withSync(config, async (socket) => {
    const done = await follow(socket, "/retry", {});
    if (json) console.log(JSON.stringify(done, null, 2));
    else printDone(done, `${done.retried ?? 0} sent once more.`);
    return done.parked_rows > 0 ? 1 : 0;
  });
}

type Done = Extract<PushNews, { kind: "done" }>;

/** Shows how it goes on a terminal, and gives how it ended. */
async function follow(socket: string, path: string, body: object): Promise<Done> {
  let bar: Progress | undefined;
  let told: string | null = null;
  try {
    for await (const news of linesLocally<PushNews>(socket, { method: "POST", path, body })) {
      if (news.kind === "done") return news;
      const { rows_sent: sent, rows_total: total, changes_waiting: waiting, error } = news;
      bar ??= new Progress(process.stderr, total || waiting);
      const gone = total > 0 ? sent : Math.max(0, bar.total - waiting);
      bar.update(gone, gone);
      if (error !== null && error !== told) {
        bar.end();
        console.error(`Waiting: ${oneLine(error)}`);
      }
      told = error;
    }
  } finally {
    bar?.end();
  }
  throw new Error("the service ended its answer without a result");
}

function printDone({ parked_rows: parked, compared }: Done, what: string): void {
  console.log(what);
  if (parked > 0) console.log(`${parked} set aside, since one side refuses them: pugmark sync status`);
  if (compared) printCompared(compared);
}

/** Both sides of each table, and whether they are the same. */
export function printCompared(compared: readonly Comparison[]): void {
  printTable(
    ["table", "rows here", "in the project", ""],
    compared.map(({ table, here, project, same, problem }) => [
      table,
      here.rows.toLocaleString("en"),
      project?.rows.toLocaleString("en") ?? "?",
      same === null ? (problem ?? "") : same ? "same" : "differ",
    ]),
  );
}
