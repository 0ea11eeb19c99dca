import type { Log } from "../http/log.ts";
import { type Client, type Pool, transaction } from "../store/pool.ts";
import {
  addPulls,
  beginPull,
  type Cursor,
  endPull,
  forgetCursor,
  keepPull,
  moveCursor,
  notePulled,
  readCursor,
  readPulls,
  type TablePull,
} from "../store/pull-progress.ts";
import {
  type Applied,
  type ApplyOptions,
  applyPulled,
  keyOf,
  Overtaken,
  type Pulled,
  type PulledRow,
} from "../store/sync-apply.ts";
import { countRowsSent, type Landed, readLanded } from "../store/sync-changes.ts";
import { listParkedKeys } from "../store/sync-parked.ts";
import { type MirroredTable, type RowKey, readMirroredTables } from "../store/sync-rows.ts";
import { noteError, noteProject } from "../store/sync-state.ts";
import { LoneWorker } from "./lone-worker.ts";
import type { Project } from "./project.ts";
import { type FeedPage, ProjectReader } from "./project-reader.ts";

export interface PullerParts {
  readonly pool: Pool;
  readonly project: Project;
  readonly log: Log;
  /** Id of this station. */
  readonly station: string;
  /** Milliseconds between two looks where nobody says that there is something new. Default 5,000. */
  readonly everyMs?: number;
}

export type PullerState = LoneWorker<"pulling">["state"];

/** How far the reading of everything is. */
export interface PullProgress {
  /** The table that is under way. */
  readonly table: string;
  readonly rowsPulled: number;
  /** About as many as the project had in all tables when it began. */
  readonly rowsTotal: number;
}

/** Of `pg_advisory_lock(7203, …)`: one puller a database. */
const pullerLock = 31;
const everyDefaultMs = 5_000;
/** Rows that were set aside and are tried again at once. */
const parkedMax = 500;

/**
 * Brings to this station what others changed in the project: reads the feed from where it was, and keeps its place in the
 * transaction that applies what it read. Where there is no such place (a new station, another project, a feed that no
 * longer reaches back so far), it first reads everything.
 */
export class Puller implements AsyncDisposable {
  readonly #parts: PullerParts;
  readonly #reader: ProjectReader;
  readonly #worker: LoneWorker<"pulling">;
  #tables = new Map<string, MirroredTable>();
  #isAllWanted = false;
  /** Somebody asked: what was set aside is tried again even where nothing new has come. */
  #isAsked = false;
  #hasNews = false;
  #rounds = 0;
  /** Of every table that was read as a whole, or is being read. */
  #pulls: TablePull[] = [];
  /** The trouble that was logged last: an outage of an hour is one line, not one for each try. */
  #told: string | null = null;

  constructor(parts: PullerParts) {
    this.#parts = parts;
    const onTrouble = (reason: string | null) => this.#tell(reason);
    this.#reader = new ProjectReader({ ...parts, onTrouble });
    this.#worker = new LoneWorker({
      ...parts,
      lock: pullerLock,
      interrupted: "pulling was interrupted; it is tried again",
      work: (signal) => this.#pull(signal),
    });
  }

  get state(): PullerState {
    return this.#worker.state;
  }

  /** How many times it has caught up with the feed. */
  get rounds(): number {
    return this.#rounds;
  }

  /** Null where only changes are read. */
  get progress(): PullProgress | null {
    const current = this.#pulls.find(({ isDone }) => !isDone);
    if (!current) return null;
    const sum = (of: (pull: TablePull) => number) => this.#pulls.reduce((total, pull) => total + of(pull), 0);
    return {
      table: current.table,
      rowsPulled: sum(({ rowsPulled }) => rowsPulled),
      rowsTotal: sum(({ rowsTotal }) => rowsTotal),
    };
  }

  /** Has everything read, from the first row of each table or from where that was; then it goes on as ever. */
  begin(): void {
    this.#isAllWanted = true;
    this.hurry();
  }

  /** There may be something new: looks at once. Where nothing gets through, it does not try more often for that. */
  wake(): void {
    this.#hasNews = true;
    this.#worker.wake();
  }

  /** How often nothing got through, since ever. */
  get failures(): number {
    return this.#reader.failures;
  }

  /** Looks at once, and tries again at once where nothing gets through, and what was set aside. */
  hurry(): void {
    this.#isAsked = true;
    this.#reader.hurry();
    this.wake();
  }

  /** Resolves when there is news: a page, a round, another state. Rejects when the signal aborts, or this is over. */
  changed(signal: AbortSignal): Promise<void> {
    return this.#worker.changed(signal);
  }

  /** Lets the page under way go; it is read again next time. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker[Symbol.asyncDispose]();
  }

  async #pull(signal: AbortSignal): Promise<void> {
    const { pool, station, everyMs = everyDefaultMs } = this.#parts;
    await noteError(pool, "pull", null);
    this.#tables = new Map((await readMirroredTables(pool)).map((table) => [table.name, table]));
    this.#pulls = await readPulls(pool);
    if ((await this.#reader.head(signal)).project === station) await this.#worker.restAsOwn(signal);
    while (!signal.aborted) {
      this.#hasNews = false;
      this.#worker.enter("pulling");
      await this.#round(signal);
      if (!this.#isAllWanted) this.#rounds += 1;
      this.#worker.enter("idle");
      if (!this.#hasNews) await this.#worker.sleep(everyMs);
    }
  }

  async #round(signal: AbortSignal): Promise<void> {
    const { pool } = this.#parts;
    const cursor = await readCursor(pool);
    if (!cursor || (this.#isAllWanted && this.progress === null)) await this.#beginAll(signal);
    else await this.#addTables(signal);
    this.#isAllWanted = false;
    await this.#readTables(signal);
    const isAsked = this.#isAsked;
    this.#isAsked = false;
    const isNew = await this.#readFeed(signal);
    if (isNew || isAsked) await this.#tryParked(signal);
    await notePulled(pool);
  }

  /** The feed goes on from here, or from where it was, once everything was read: what changes meanwhile comes twice. */
  async #beginAll(signal: AbortSignal): Promise<void> {
    const { pool, log } = this.#parts;
    const head = await this.#reader.head(signal);
    await noteProject(pool, head.project);
    const begun = await this.#count([...this.#tables.values()], signal);
    await transaction(pool, (client) => beginPull(client, head, begun));
    log.info({ rows: begun.reduce((sum, { rowsTotal }) => sum + rowsTotal, 0) }, "begins to read everything");
    this.#pulls = begun;
  }

  /** A table that this station, or the project, has only known since an update: what others made there before, no feed tells. */
  async #addTables(signal: AbortSignal): Promise<void> {
    const { pool, log } = this.#parts;
    const unread = [...this.#tables.values()].filter((table) => !this.#pullOf(table));
    if (unread.length === 0) return;
    const added = await this.#count(unread, signal);
    if (added.length === 0) return;
    await addPulls(pool, added);
    log.info({ tables: added.map(({ table }) => table) }, "begins to read tables that are new");
    this.#pulls = [...this.#pulls, ...added];
  }

  /** How the reading of those that the project has begins. */
  async #count(tables: readonly MirroredTable[], signal: AbortSignal): Promise<TablePull[]> {
    const begun: TablePull[] = [];
    for (const table of tables) {
      const rowsTotal = await this.#reader.count(table, signal);
      if (rowsTotal !== undefined)
        begun.push({ table: table.name, rowsTotal, after: null, rowsPulled: 0, isDone: false });
    }
    return begun;
  }

  async #readTables(signal: AbortSignal): Promise<void> {
    const { pool } = this.#parts;
    if (this.progress === null) return;
    const project = (await readCursor(pool))?.project ?? "";
    // Parents first: the order in which the tables are known.
    for (const table of this.#tables.values()) {
      for (let pull = this.#pullOf(table); pull && !pull.isDone; pull = this.#pullOf(table)) {
        const before = pull;
        const read = () => this.#reader.rowsAfter(table, before.after, signal);
        const next = await this.#take(table.name, read, async (rows, landed) => {
          const now = {
            ...before,
            after: lastKey(table, rows) ?? before.after,
            rowsPulled: before.rowsPulled + rows.length,
            isDone: rows.length === 0,
          };
          const settle = (client: Client) => keepPull(client, now);
          await this.#apply([{ table, rows, gone: [], source: "table" }], {
            projectId: project,
            landed,
            settle,
          });
          return now;
        });
        this.#pulls = this.#pulls.map((each) => (each === before ? next : each));
        this.#worker.news();
      }
    }
    await endPull(pool);
    this.#pulls = await readPulls(pool);
    await this.#tryParked(signal);
  }

  #pullOf(table: MirroredTable): TablePull | undefined {
    return this.#pulls.find((pull) => pull.table === table.name);
  }

  /** Reads to the end of the feed. Says whether there was anything. */
  async #readFeed(signal: AbortSignal): Promise<boolean> {
    const { pool, log } = this.#parts;
    for (let isNew = false; ; ) {
      const cursor = await readCursor(pool);
      // Another project meanwhile: the next round begins anew.
      if (!cursor) return isNew;
      const read = () => this.#reader.changes(cursor, signal);
      const { page, pulled } = await this.#take("sync_changes", read, async (given, landed) => {
        const isOther = given.gap || given.project !== cursor.project;
        const news = isOther ? [] : pulledFrom(given, this.#tables);
        const settle = (client: Client) => moved(client, cursor, given);
        const isFurther = given.xid !== cursor.xid || String(given.seq) !== cursor.seq;
        if (!isOther && (given.changes.length > 0 || isFurther))
          await this.#apply(news, { projectId: cursor.project, landed, settle });
        return { page: given, pulled: news };
      });
      if (page.gap || page.project !== cursor.project) {
        log.warn(
          { cursor, project: page.project },
          "the feed does not go on from here: everything is read anew",
        );
        await forgetCursor(pool);
        this.begin();
        return isNew;
      }
      isNew ||= pulled.length > 0;
      this.#worker.news();
      if (!page.more) return isNew;
    }
  }

  /** What this database refused may find by now what it lacked. */
  async #tryParked(signal: AbortSignal): Promise<void> {
    const { pool } = this.#parts;
    const project = (await readCursor(pool))?.project ?? "";
    const parked = await listParkedKeys(pool, "pull", parkedMax);
    if (parked.length === 0) return;
    const read = async () => {
      const pulled: Pulled[] = [];
      for (const table of this.#tables.values()) {
        const keys = parked.filter((row) => row.table === table.name).map(({ key }) => key);
        // Those that are there are no longer gone for whoever applies it.
        if (keys.length > 0)
          pulled.push({
            table,
            source: "keys",
            rows: await this.#reader.rowsOf(table, keys, signal),
            gone: keys,
          });
      }
      return pulled;
    };
    await this.#take("", read, (pulled, landed) => this.#apply(pulled, { projectId: project, landed }));
  }

  /** Reads of the project, and again, where this station has sent meanwhile what it may say the opposite of. */
  async #take<T, R>(
    name: string,
    read: () => Promise<T>,
    apply: (given: T, landed: Landed) => Promise<R>,
  ): Promise<R> {
    for (;;) {
      const landed = await readLanded(this.#parts.pool);
      const given = await read();
      try {
        return await apply(given, landed);
      } catch (error) {
        if (!(error instanceof Overtaken)) throw error;
        this.#reader.askForLess(name);
      }
    }
  }

  async #apply(
    pulled: readonly Pulled[],
    {
      settle,
      ...sides
    }: Pick<ApplyOptions, "projectId" | "landed"> & {
      readonly settle?: (client: Client) => Promise<void>;
    },
  ): Promise<void> {
    const { pool, station, log } = this.#parts;
    const applied = await applyPulled(pool, pulled, {
      ...sides,
      stationId: station,
      settle: async (client, outcome) => {
        await countRowsSent(client, outcome.flatMap(countsOf));
        await settle?.(client);
      },
    });
    for (const { table, parked } of applied)
      if (parked > 0)
        log.warn({ table, rows: parked }, "rows of the project refused by this database: parked");
  }

  async #tell(reason: string | null): Promise<void> {
    const { pool, log } = this.#parts;
    this.#worker.enter(reason === null ? "pulling" : "waiting");
    if (reason === null) log.info({}, "the project can be read again");
    else if (reason !== this.#told)
      log.warn({ reason }, "the project cannot be read; changes of other stations wait there");
    this.#told = reason;
    await noteError(pool, "pull", reason);
  }
}

function lastKey(table: MirroredTable, rows: readonly PulledRow[]): RowKey | undefined {
  const last = rows.at(-1);
  return last && keyOf(table, last);
}

/** Throws, and so undoes what was applied, where the cursor is not where this page was read from. */
async function moved(client: Client, cursor: Cursor, page: FeedPage): Promise<void> {
  if (await moveCursor(client, cursor, { xid: page.xid, seq: String(page.seq) })) return;
  throw new Error("the place in the project's feed was moved by somebody else");
}

/** What a page says of each table that this station knows; one of a newer version may say more. */
function pulledFrom({ changes }: FeedPage, tables: ReadonlyMap<string, MirroredTable>): Pulled[] {
  return [...Map.groupBy(changes, ({ table }) => table)].flatMap(([name, own]) => {
    const table = tables.get(name);
    if (!table) return [];
    const gone = own.flatMap(({ ids, times }) =>
      (ids ?? []).map((id, index) => ({ id, time: times?.[index] ?? null })),
    );
    return [{ table, source: "feed" as const, rows: own.flatMap(({ rows }) => rows), gone }];
  });
}

function countsOf({ table, stored, deleted, parked }: Applied) {
  return Object.entries({ stored, deleted, parked })
    .filter(([, rows]) => rows > 0)
    .map(([outcome, rows]) => ({ direction: "pull" as const, table, outcome, rows }));
}
