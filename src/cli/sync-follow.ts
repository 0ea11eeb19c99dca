import { linesLocally } from "../http/local-client.ts";
import type { Comparison } from "../sync/compare.ts";
import { fail } from "./failure.ts";
import { oneLine } from "./plain-text.ts";
import { Progress } from "./progress.ts";
import { printTable } from "./table.ts";

/** A line of news of the mirror: how far it is, and at last how it ended. */
type News =
  | { readonly kind: "progress"; readonly error: string | null }
  | { readonly kind: "done"; readonly parked_rows: number; readonly compared?: readonly Comparison[] };

/** How it ended. */
export type Done<T extends News> = Omit<Extract<T, { kind: "done" }>, "kind">;

/** Rows that are over, and in all, where that is known; `done` is told of the total with which the bar began. */
type Counting<T> = (progress: T) => {
  readonly total: number;
  readonly done: (total: number) => number;
};

/** Asks the service for a work, shows on a terminal how it goes on, and gives how it ended. */
export async function followSync<T extends News>(
  socket: string,
  { path, body }: { readonly path: string; readonly body: object },
  counting: Counting<Extract<T, { kind: "progress" }>>,
): Promise<Done<T>> {
  let bar: Progress | undefined;
  let told: string | null = null;
  try {
    for await (const news of linesLocally<T>(socket, { method: "POST", path, body })) {
      if (news.kind === "done") {
        const { kind: _, ...done } = news as Extract<T, { kind: "done" }>;
        return done;
      }
      const { total, done } = counting(news as Extract<T, { kind: "progress" }>);
      const isNew = bar === undefined && total > 0;
      if (isNew) bar = new Progress(process.stderr, total);
      const gone = done(bar?.total ?? 0);
      if (isNew) bar?.from(gone, gone);
      bar?.update(gone, gone);
      if (news.error !== null && news.error !== told) {
        bar?.end();
        console.error(`Waiting: ${oneLine(news.error)}`);
      }
      told = news.error;
    }
  } finally {
    bar?.end();
  }
  throw new Error("the service ended its answer without a result");
}

/** Prints how it ended; `here` are the rows that were compared. */
export function printDone(
  { parked_rows: parked, compared }: Done<News>,
  what: string,
  here = "rows here",
): void {
  console.log(what);
  if (parked > 0) console.log(`${parked} set aside, since one side refuses them: pugmark sync status`);
  if (compared?.length) printCompared(compared, here);
}

/** Whether the two sides were compared and differ, or the project did not answer; says so, unless `json`. */
export function isComparedBadly({ compared = [] }: Done<News>, json: boolean): boolean {
  const lines: string[] = [];
  if (compared.some(({ same }) => same === false))
    lines.push(
      "the two sides differ: rows that changed meanwhile, went over rounded or cut, or were set aside do so",
    );
  const silent = compared.filter(({ project }) => project === null).map(({ table }) => table);
  if (silent.length > 0)
    lines.push(
      `the project did not say what it has of ${silent.join(", ")}: try again; pugmark doctor says what it lacks`,
    );
  if (!json) fail(lines, 1);
  return lines.length > 0;
}

/** Both sides of each table, and whether they are the same. */
function printCompared(compared: readonly Comparison[], rowsHere: string): void {
  printTable(
    ["table", rowsHere, "in the project", ""],
    compared.map(({ table, here, project, same, problem }) => [
      table,
      here.rows.toLocaleString("en"),
      project?.rows.toLocaleString("en") ?? "?",
      same === null ? oneLine(problem ?? "") : same ? "same" : "differ",
    ]),
  );
}
