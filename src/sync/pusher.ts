import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import type { Log } from "../http/log.ts";
import { type AdvisoryLock, tryLock } from "../store/advisory-lock.ts";
import type { Pool } from "../store/pool.ts";
import { type Change, confirmChanges, countRowsSent, readChanges } from "../store/sync-changes.ts";
import type { RowKey } from "../store/sync-rows.ts";
import { noteProject, notePushError } from "../store/sync-state.ts";
import { History } from "./history.ts";
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
}

/**
 * What the pusher is at: `standby` while another process of this database does the work, `own` where the project is this
 * very database, and there is nothing to do.
 */
export type PusherState = "starting" | "standby" | "own" | "idle" | "pushing" | "waiting";

/** Of `pg_advisory_lock(7203, …)`: one pusher a database. */
const pusherLock = 30;
/**
 * Keys of changes that are read at once: what is held in memory, and sent again after a kill. Few at first and after
 * trouble, so that something is done for good between one kill or fault and the next; twice as many after each page that
 * went over without.
 */
const pageKeys = { least: 1_000, most: 10_000 };
const idleMs = 300;
const standbyMs = 2_000;
/** Between two announcements: with each the project forgets what is old in its feed. */
const announceMs = 6 * 60 * 60_000;
/** After what should not happen. */
const troubleMs = 2_000;

/**
 * Carries every change of this database to the project: reads the outbox in order, sends the rows as they are now, and
 * forgets a change only when all of it is there. What is left of the whole history goes between.
 */
export class Pusher implements AsyncDisposable {
  readonly history: History;
  readonly #parts: PusherParts;
  readonly #sender: Sender;
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;
  #state: PusherState = "starting";
  #pageKeys = pageKeys.least;
  #wake = new AbortController();
  #watchers: (() => void)[] = [];

  constructor(parts: PusherParts) {
    this.#parts = parts;
    const { pool, station, tables } = parts;
    const onTrouble = async (reason: string | null) => {
      this.#pageKeys = pageKeys.least;
      await this.#tell(reason);
      this.#enter(reason === null ? "pushing" : "waiting");
    };
    this.#sender = new Sender({ ...parts, station: station.id, onTrouble });
    this.history = new History({ pool, tables, sender: this.#sender });
    this.#done = this.#run();
  }

  get state(): PusherState {
    return this.#state;
  }

  /** Epoch milliseconds of the next try while nothing gets through, else 0. */
  get nextTryAt(): number {
    return this.#sender.nextTryAt;
  }

  /** Looks for changes at once, and tries again at once what waits. */
  hurry(): void {
    this.#sender.hurry();
    this.#wake.abort();
  }

  /** Resolves when there is news: a round, a step of the history, another state. Rejects when the signal aborts, or this is over. */
  changed(signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const either = AbortSignal.any([signal, this.#stop.signal]);
    if (either.aborted) reject(either.reason);
    else either.addEventListener("abort", () => reject(either.reason), { once: true });
    this.#watchers.push(resolve);
    // Whoever asked may by then be at something else.
    promise.catch(() => undefined);
    return promise;
  }

  /** Lets the requests under way go; what they carried is sent again next time. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error("the mirror stops"));
    await this.#done;
  }

  async #run(): Promise<void> {
    const { pool, log } = this.#parts;
    const stop = this.#stop.signal;
    while (!stop.aborted) {
      try {
        await using lock = await tryLock(pool, pusherLock);
        if (lock) await this.#push(lock);
        else {
          this.#enter("standby");
          await this.#sleep(standbyMs);
        }
      } catch (error) {
        if (stop.aborted) return;
        // The database is away, as a rule: the outbox is in it, so nothing is lost, and nothing can be done meanwhile.
        log.warn({ err: error }, "mirror interrupted; tries again");
        this.#enter("waiting");
        await this.#sleep(troubleMs);
      }
    }
  }

  async #push(lock: AdvisoryLock): Promise<void> {
    const { pool, station } = this.#parts;
    const signal = AbortSignal.any([this.#stop.signal, lock.lost]);
    await notePushError(pool, null);
    await this.history.resume();
    if ((await this.#meet(signal)) === station.id) {
      this.#enter("own");
      if (!signal.aborted) await once(signal, "abort");
    }
    let announcedAt = performance.now();
    while (!signal.aborted) {
      if (performance.now() - announcedAt > announceMs) {
        await this.#announce(signal);
        announcedAt = performance.now();
      }
      const page = await readChanges(pool, this.#pageKeys);
      if (page.length > 0) await this.#carry(page, signal);
      const hasMore = await this.history.step(signal);
      if (hasMore) await countRowsSent(pool, this.#sender.takeCounts());
      if (page.length > 0 || hasMore) this.#parts.onSent();
      this.#enter(page.length > 0 || hasMore ? "pushing" : "idle");
      if (page.length === 0 && !hasMore) await this.#sleep(idleMs);
    }
    signal.throwIfAborted();
  }

  /** Makes the station known to the project and gives the project's own id. */
  async #meet(signal: AbortSignal): Promise<string> {
    const { pool, station } = this.#parts;
    const { data, error } = await this.#sender.call<{ project: string }>("sync_head", {}, signal);
    if (!data) throw new Error(`the project refuses to say where it is: ${error?.message}`);
    if (data.project === station.id) return data.project;
    await noteProject(pool, data.project);
    await this.#announce(signal);
    return data.project;
  }

  async #announce(signal: AbortSignal): Promise<void> {
    const { id, name } = this.#parts.station;
    await this.#sender.call("sync_announce", { station: id, name }, signal);
  }

  async #carry(page: readonly Change[], signal: AbortSignal): Promise<void> {
    this.#enter("pushing");
    this.#pageKeys = Math.min(2 * this.#pageKeys, pageKeys.most);
    await this.#sender.deliver(deliveriesOf(page, this.#parts.tables), signal);
    await confirmChanges(this.#parts.pool, page, this.#sender.takeCounts());
  }

  async #tell(reason: string | null): Promise<void> {
    const { pool, log } = this.#parts;
    if (reason === null) log.info({}, "project is back");
    else log.warn({ reason }, "nothing gets through to the project; changes wait in the database");
    await notePushError(pool, reason);
  }

  async #sleep(ms: number): Promise<void> {
    this.#wake = new AbortController();
    const signal = AbortSignal.any([this.#stop.signal, this.#wake.signal]);
    await delay(ms, undefined, { signal }).catch(() => undefined);
  }

  #enter(state: PusherState): void {
    this.#state = state;
    this.#news();
  }

  #news(): void {
    const watchers = this.#watchers;
    this.#watchers = [];
    for (const tell of watchers) tell();
  }
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
