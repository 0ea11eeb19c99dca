import type { Log } from "../http/log.ts";
import type { Pool } from "../store/pool.ts";
import { readCursor } from "../store/pull-progress.ts";
import { type Change, confirmChanges, countRowsSent, readChanges } from "../store/sync-changes.ts";
import type { RowKey } from "../store/sync-rows.ts";
import { noteError, noteProject } from "../store/sync-state.ts";
import { History } from "./history.ts";
import { LoneWorker } from "./lone-worker.ts";
import type { ChosenTable } from "./mirror-choice.ts";
import type { Project } from "./project.ts";
import { type Delivery, Sender } from "./sender.ts";

export interface PusherParts {
  readonly pool: Pool;
  readonly project: Project;
  readonly log: Log;
  readonly station: { readonly id: string; readonly name: string };
  /** What goes to the project, parents first. */
  readonly tables: readonly ChosenTable[];
  /** Called whenever something has got into the project. */
  readonly onSent: () => void;
  /** Called when the project knows what was deleted here: it may have it anew, or keep it, and then it comes back. */
  readonly onDeleted: () => void;
}

export type PusherState = LoneWorker<"pushing">["state"];

/** Of `pg_advisory_lock(7203, …)`: one pusher a database. */
const pusherLock = 30;
/**
 * Keys of changes that are read at once: what is held in memory, and sent again after a kill. Few at first and after
 * trouble, so that something is done for good between one kill or fault and the next; twice as many after each page that
 * went over without.
 */
const pageKeys = { least: 1_000, most: 10_000 };
/** Between two looks, unless more is known to wait: what comes one by one goes over together, three times a second at most. */
const gatherMs = 300;
/** Between two announcements: with each the project forgets what is old in its feed. */
const announceMs = 6 * 60 * 60_000;

/**
 * Carries every change of this database to the project: reads the outbox in order, sends the rows as they are now, and
 * forgets a change only when all of it is there. What is left of the whole history goes between.
 */
export class Pusher implements AsyncDisposable {
  readonly history: History;
  readonly #parts: PusherParts;
  readonly #sender: Sender;
  readonly #worker: LoneWorker<"pushing">;
  #pageKeys = pageKeys.least;
  /** The trouble that was logged last: an outage of an hour is one line, not one for each try. */
  #told: string | null = null;

  constructor(parts: PusherParts) {
    this.#parts = parts;
    const { pool, station, tables } = parts;
    const onTrouble = async (reason: string | null) => {
      this.#pageKeys = pageKeys.least;
      await this.#tell(reason);
      this.#worker.enter(reason === null ? "pushing" : "waiting");
    };
    this.#sender = new Sender({ ...parts, station: station.id, onTrouble });
    this.history = new History({ pool, tables, sender: this.#sender });
    this.#worker = new LoneWorker({
      ...parts,
      lock: pusherLock,
      interrupted: "mirror interrupted; tries again",
      work: (signal) => this.#push(signal),
    });
  }

  get state(): PusherState {
    return this.#worker.state;
  }

  /** Epoch milliseconds of the next try while nothing gets through, else 0. */
  get nextTryAt(): number {
    return this.#sender.nextTryAt;
  }

  /** How often nothing got through, since ever. */
  get failures(): number {
    return this.#sender.failures;
  }

  /** Looks for changes at once, and tries again at once what waits. */
  hurry(): void {
    this.#sender.hurry();
    this.#worker.wake();
  }

  /** Resolves when there is news: a round, a step of the history, another state. Rejects when the signal aborts, or this is over. */
  changed(signal: AbortSignal): Promise<void> {
    return this.#worker.changed(signal);
  }

  /** Lets the requests under way go; what they carried is sent again next time. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker[Symbol.asyncDispose]();
  }

  async #push(signal: AbortSignal): Promise<void> {
    const { pool, station } = this.#parts;
    await noteError(pool, "push", null);
    await this.history.resume();
    let project: string | undefined;
    let announcedAt = 0;
    while (!signal.aborted) {
      if (performance.now() - announcedAt > announceMs || (await this.#isElsewhere(project))) {
        project = await this.#meet(signal);
        if (project === station.id) return await this.#worker.restAsOwn(signal);
        announcedAt = performance.now();
      }
      const keysMax = this.#pageKeys;
      const page = await readChanges(pool, keysMax);
      if (page.length > 0) await this.#carry(page, signal);
      const hasHistory = await this.history.step(signal);
      if (hasHistory) await countRowsSent(pool, this.#sender.takeCounts());
      if (page.length > 0 || hasHistory) this.#parts.onSent();
      if (page.some(({ isDeleted }) => isDeleted)) this.#parts.onDeleted();
      const hasMore = hasHistory || countKeys(page) >= keysMax;
      this.#worker.enter(hasMore ? "pushing" : "idle");
      if (!hasMore) await this.#worker.sleep(gatherMs);
    }
  }

  /** Whether nothing was met yet, or whoever reads the feed has found another project at the same address. */
  async #isElsewhere(project: string | undefined): Promise<boolean> {
    if (project === undefined) return true;
    const cursor = await readCursor(this.#parts.pool);
    return cursor !== undefined && cursor.project !== project;
  }

  /** Makes the station known to the project and gives the project's own id. */
  async #meet(signal: AbortSignal): Promise<string> {
    const { pool, station } = this.#parts;
    this.#sender.forgetMonths();
    const { data, error } = await this.#sender.call<{ project: string }>("sync_head", {}, signal);
    if (!data) throw new Error(`the project refuses to say where it is: ${error?.message}`);
    if (data.project === station.id) return data.project;
    await noteProject(pool, data.project);
    await this.#sender.call("sync_announce", { station: station.id, name: station.name }, signal);
    return data.project;
  }

  async #carry(page: readonly Change[], signal: AbortSignal): Promise<void> {
    this.#worker.enter("pushing");
    this.#pageKeys = Math.min(2 * this.#pageKeys, pageKeys.most);
    await this.#sender.deliver(deliveriesOf(page, this.#parts.tables), signal);
    await confirmChanges(this.#parts.pool, page, this.#sender.takeCounts());
  }

  async #tell(reason: string | null): Promise<void> {
    const { pool, log } = this.#parts;
    if (reason === null) log.info({}, "project is back");
    else if (reason !== this.#told)
      log.warn({ reason }, "nothing gets through to the project; changes wait in the database");
    this.#told = reason;
    await noteError(pool, "push", reason);
  }
}

function countKeys(page: readonly Change[]): number {
  return page.reduce((sum, { keys }) => sum + keys.length, 0);
}

/** What is to be sent for these changes: each key once, whatever happened to it how often. */
function deliveriesOf(page: readonly Change[], tables: readonly ChosenTable[]): Delivery[] {
  return tables.flatMap((table) => {
    const keys = new Map<string, RowKey>();
    const gone = new Map<string, RowKey>();
    for (const change of page) {
      if (change.table !== table.name) continue;
      for (const key of change.keys) {
        const name = `${key.id} ${key.time ?? ""}`;
        keys.set(name, key);
        if (change.isDeleted) gone.set(name, key);
      }
    }
    return keys.size === 0 ? [] : [{ table, keys: [...keys.values()], gone: [...gone.values()] }];
  });
}
