import { setTimeout as delay } from "node:timers/promises";
import type { Log } from "../http/log.ts";
import { StoreError } from "../store/errors.ts";
import {
  type Delivery,
  forgetTaken,
  forgetUnstorable,
  noteTaken,
  readUnstorable,
  takenOf,
  type Unstorable,
} from "../store/inbox.ts";
import type { Pool } from "../store/pool.ts";
import type { PositionStore } from "../store/positions.ts";
import { isRejection, type Rejection, type ReportedFix, readReportedFix } from "../tracking/fix.ts";
import { timeOf } from "../tracking/time.ts";
import { Pace } from "./pace.ts";
import type { Project, Reply } from "./project.ts";
import { troubleOf } from "./trouble.ts";

export interface InboxParts {
  readonly pool: Pool;
  readonly positions: Pick<PositionStore, "ingest">;
  readonly project: Pick<Project, "call" | "quietMs">;
  /** Id of this station. */
  readonly station: string;
  readonly log: Log;
  /** Milliseconds between looks at an inbox that was empty. Default 3,000. */
  readonly periodMs?: number;
  /** Milliseconds that deliveries may be on their way. Default 90,000. */
  readonly leaseMs?: number;
}

/** Of 2 MiB each at most, which is what the function takes at once. */
const deliveriesAtOnce = 32;
/** Of the two minutes for which the project keeps deliveries for us: who was suspended longer has lost them. */
const leaseStandardMs = 90_000;
const retriesAtOnce = 1_000;

/**
 * Fetches what phones have left in the project's inbox: takes it for a while, stores it, notes that it is stored, and
 * then tells the project. Killed between any two of these it goes on from there: fixes that are stored already change
 * nothing, and what is noted is not stored again. What the project is not told about it gives out again.
 */
export class Inbox implements AsyncDisposable {
  readonly #parts: InboxParts;
  readonly #pace = new Pace({ firstMs: 1_000, mostMs: 60_000 });
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #trouble: string | null = null;
  /** Deliveries to ask for: fewer where so many did not come through in time. */
  #atOnce = deliveriesAtOnce;

  constructor(parts: InboxParts) {
    this.#parts = parts;
    this.#running = this.#run(this.#stop.signal);
  }

  /** Why nothing can be fetched; null where all is well. */
  get trouble(): string | null {
    return this.#trouble;
  }

  /** Tries once more to store what was set aside. Gives how many deliveries could be. */
  async retry(): Promise<number> {
    const { pool } = this.#parts;
    let stored = 0;
    for (const delivery of await readUnstorable(pool, retriesAtOnce)) {
      const left = await this.#store(delivery);
      if (left) await noteTaken(pool, [], [left]);
      else {
        await forgetUnstorable(pool, delivery.id);
        stored += 1;
      }
    }
    return stored;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { pool, log, project, periodMs = 3_000 } = this.#parts;
    let isTidy = false;
    while (!signal.aborted) {
      try {
        await this.#pace.wait(signal);
        if (!isTidy) await forgetTaken(pool);
        isTidy = true;
        while (await this.#fetchSome(signal));
        this.#pace.succeeded();
        if (this.#trouble !== null) log.info({}, "the inbox can be fetched again");
        this.#trouble = null;
        await delay(periodMs, undefined, { signal });
      } catch (error) {
        if (signal.aborted) return;
        this.#pace.failed(project.quietMs);
        const trouble = error instanceof Error ? error.message : String(error);
        if (this.#trouble !== trouble) log.warn({ err: error }, "the inbox cannot be fetched");
        this.#trouble = trouble;
      }
    }
  }

  /** Says whether the project may have more for us. */
  async #fetchSome(signal: AbortSignal): Promise<boolean> {
    const { pool, project, station, log } = this.#parts;
    const atOnce = this.#atOnce;
    const given = await this.#take(atOnce, signal);
    const before = await takenOf(pool, idsOf(given));
    const fresh = given.filter(({ id }) => !before.has(id));
    // Side by side, so that they share statements; one that cannot be stored does not keep the others from it.
    const outcomes = await Promise.allSettled(fresh.map((delivery) => this.#store(delivery)));
    const settled = fresh.filter((_, index) => outcomes[index]?.status === "fulfilled");
    const unstorable = outcomes.flatMap((outcome) =>
      outcome.status === "fulfilled" && outcome.value ? [outcome.value] : [],
    );
    if (settled.length > 0) await noteTaken(pool, idsOf(settled), unstorable);
    for (const { delivery, code, reason } of unstorable)
      log.warn({ delivery: delivery.id, device: delivery.device, code, reason }, "delivery set aside");
    const ids = [...before, ...idsOf(settled)];
    if (ids.length > 0) succeeded(await project.call("inbox_acknowledge", { station, ids }, signal));
    for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
    return given.length === atOnce;
  }

  /**
   * Fetches so many deliveries at most. Where they do not come through, half as many are asked for next: on a slow line
   * they would be on their way for longer than they are ours, again and again.
   */
  async #take(atOnce: number, signal: AbortSignal): Promise<Delivery[]> {
    const { project, station, leaseMs = leaseStandardMs } = this.#parts;
    const takenAt = Date.now();
    const inTime = AbortSignal.any([signal, AbortSignal.timeout(leaseMs)]);
    const wanted = { station, row_limit: atOnce };
    this.#atOnce = Math.ceil(atOnce / 2);
    // It throws nothing but what ended the signal.
    const reply = await project.call<Delivery[]>("inbox_take", wanted, inTime).catch(() => undefined);
    signal.throwIfAborted();
    // Asked of the clock as well: a timer stands still while the machine is suspended.
    const tookMs = Date.now() - takenAt;
    if (!reply || tookMs > leaseMs)
      throw new Error(`an answer with up to ${atOnce} deliveries took longer than ${leaseMs / 1_000} s`);
    const given = succeeded(reply);
    this.#atOnce = tookMs < leaseMs / 4 ? Math.min(atOnce * 2, deliveriesAtOnce) : atOnce;
    return given;
  }

  /** Stores the fixes of a delivery; gives what can never be stored of it. Throws where nothing can be just now. */
  async #store(delivery: Delivery): Promise<Unstorable | undefined> {
    const fixes: ReportedFix[] = [];
    const left: unknown[] = [];
    let first: Rejection | undefined;
    // A machine without a clock of its own is days behind until it has asked the network: what the inbox took is no future.
    const nowMs = Math.max(Date.now(), timeOf(delivery.received_at) || 0);
    for (const item of delivery.fixes) {
      const fix = readReportedFix(item, nowMs);
      if (!isRejection(fix)) fixes.push(fix);
      else {
        first ??= fix;
        left.push(item);
      }
    }
    try {
      await this.#parts.positions.ingest(fixes);
    } catch (error) {
      const code = blamedCodeOf(error);
      if (code === undefined) throw error;
      return { delivery, code, reason: (error as Error).message };
    }
    return first && { delivery: { ...delivery, fixes: left }, code: first.code, reason: first.detail };
  }
}

function idsOf(deliveries: readonly Delivery[]): string[] {
  return deliveries.map(({ id }) => id);
}

/** The SQLSTATE of an error for which a row itself is to blame: a value out of range, a rule that it breaks. */
function blamedCodeOf(error: unknown): string | undefined {
  if (error instanceof StoreError || !(error instanceof Error) || !("code" in error)) return undefined;
  return /^2[23]/.test(String(error.code)) ? String(error.code) : undefined;
}

/** Throws what keeps the project from it. */
function succeeded<T>(reply: Reply<T>): T {
  if (reply.error !== null) throw new Error(troubleOf(reply));
  return reply.data as T;
}
