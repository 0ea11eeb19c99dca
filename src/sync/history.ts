import type { Pool } from "../store/pool.ts";
import {
  beginProgress,
  endProgress,
  keepProgress,
  readProgress,
  type TableProgress,
} from "../store/sync-progress.ts";
import { countRows, keysAfter } from "../store/sync-rows.ts";
import { noteHistorySent } from "../store/sync-state.ts";
import type { ChosenTable } from "./mirror-choice.ts";
import type { Sender } from "./sender.ts";

export interface HistoryParts {
  readonly pool: Pool;
  /** Parents first. */
  readonly tables: readonly ChosenTable[];
  readonly sender: Sender;
}

/** How far the sending of everything is. */
export interface HistoryProgress {
  /** The table that is under way. */
  readonly table: string;
  readonly rowsSent: number;
  /** Of all tables, when it began. */
  readonly rowsTotal: number;
}

/** Keys of one step: about a quarter of a second, after which changes have their turn. */
const stepKeys = 4_000;

/**
 * Sends all that a station has, for a project that has not seen it from the beginning. It goes through each table in the
 * order of keys, and keeps where it is, so that it goes on there after a restart. Steps are the pusher's to take: between them it
 * sends what changes, and never is one row in two requests.
 */
export class History {
  readonly #parts: HistoryParts;
  #tables: TableProgress[] = [];
  #isWanted = false;

  constructor(parts: HistoryParts) {
    this.#parts = parts;
  }

  /** Null where nothing is under way. */
  get progress(): HistoryProgress | null {
    const current = this.#tables.find(({ isDone }) => !isDone);
    if (!current) return null;
    const sum = (of: (table: TableProgress) => number) =>
      this.#tables.reduce((total, table) => total + of(table), 0);
    return {
      table: current.table,
      rowsSent: sum(({ rowsSent }) => rowsSent),
      rowsTotal: sum(({ rowsTotal }) => rowsTotal),
    };
  }

  get isUnderWay(): boolean {
    return this.#isWanted || this.progress !== null;
  }

  /** Has everything sent from the beginning, from the next step on; what is under way simply goes on. */
  begin(): void {
    this.#isWanted = true;
  }

  /** Takes up what a former process began. */
  async resume(): Promise<void> {
    const { pool, tables } = this.#parts;
    const kept = new Map((await readProgress(pool)).map((progress) => [progress.table, progress]));
    this.#tables = tables.flatMap(({ name }) => kept.get(name) ?? []);
  }

  /** Sends the next rows. Says whether there were any. */
  async step(signal: AbortSignal): Promise<boolean> {
    const { pool, tables, sender } = this.#parts;
    if (this.#isWanted && !this.progress) await this.#countAll();
    this.#isWanted = false;
    const index = this.#tables.findIndex(({ isDone }) => !isDone);
    const current = this.#tables[index];
    const table = tables.find(({ name }) => name === current?.table);
    if (!current || !table) return false;
    const keys = await keysAfter(pool, table, current.after, stepKeys);
    if (keys.length > 0) await sender.deliver([{ table, keys, gone: [], isHistory: true }], signal);
    const next: TableProgress = {
      ...current,
      after: keys.at(-1) ?? current.after,
      rowsSent: current.rowsSent + keys.length,
      isDone: keys.length < stepKeys,
    };
    await keepProgress(pool, next);
    this.#tables[index] = next;
    if (this.progress === null) {
      await noteHistorySent(pool, "now");
      await endProgress(pool);
    }
    return true;
  }

  async #countAll(): Promise<void> {
    const { pool, tables } = this.#parts;
    const counted: { table: string; rowsTotal: number }[] = [];
    for (const { name } of tables) counted.push({ table: name, rowsTotal: await countRows(pool, name) });
    await beginProgress(pool, counted);
    await this.resume();
  }
}
