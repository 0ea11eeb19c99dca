import type { Log } from "../http/log.ts";
import type { Pool } from "../store/pool.ts";
import type { RowCount } from "../store/sync-changes.ts";
import {
  countParked,
  foreignKeyViolation,
  parkRows,
  type Refusal,
  retryParked,
  unparkRows,
  wantBack,
} from "../store/sync-parked.ts";
import { keysToDelete, type RowKey, readRows, type SentRow } from "../store/sync-rows.ts";
import { Contact, type ContactParts } from "./contact.ts";
import type { ChosenTable } from "./mirror-choice.ts";
import type { Project, Reply } from "./project.ts";
import { shorten } from "./shorten.ts";
import { verdictOf } from "./verdict.ts";

export interface SenderParts extends ContactParts {
  readonly pool: Pool;
  readonly project: Project;
  readonly log: Log;
  /** What goes to the project. */
  readonly tables: readonly ChosenTable[];
  /** Id of this station, which the rows that were made here are sent with. */
  readonly station: string;
}

/** Keys of one table whose rows are to become in the project what they are here. */
export interface Delivery {
  readonly table: ChosenTable;
  readonly keys: readonly RowKey[];
  /** Those that may be gone: they are deleted first, before what takes their place comes. */
  readonly gone: readonly RowKey[];
  /** Sends also those that came from the project as they are: it may have lost them. */
  readonly isHistory?: boolean;
}

/** One row that the project refused. */
interface Failure {
  readonly table: ChosenTable;
  readonly key: RowKey;
  readonly isDeleted: boolean;
  readonly reply: Reply;
}

const rowsMax = 500;
const bytesMax = 1024 * 1024;
/** Keys of a deletion go over in the URL, which servers and proxies bound at 8 KiB. */
const deletedMax = 80;
/** Requests under way at once for a table whose rows never change; of one whose rows do, only one. */
const lanesMax = 4;
/** A row that is refused alone is tried so often in all: what it refers to, or what it is in the way of, may come first. */
const attemptsMax = 3;
/** A request that timed out so often is too much for this project or this line. */
const slowMax = 2;

/**
 * Makes the project's rows what they are here, however often that fails on the way: waits and sends again what did not
 * get through, takes apart what is refused, and parks the single row that is at fault.
 */
export class Sender {
  readonly #parts: SenderParts;
  readonly #contact: Contact;
  /** Rows that were asked for at once last, by table: fewer where they are large. */
  readonly #chunks = new Map<string, number>();
  /** Months that surely have a partition in the project. */
  readonly #months = new Set<string>();
  #counts = new Map<string, RowCount>();
  #parked: number | undefined;
  #hasSentParents = false;

  constructor(parts: SenderParts) {
    this.#parts = parts;
    this.#contact = new Contact(parts, 100);
  }

  /** Epoch milliseconds of the next try where nothing gets through; 0 where it does. */
  get nextTryAt(): number {
    return this.#contact.nextTryAt;
  }

  /** How often nothing got through, since ever. */
  get failures(): number {
    return this.#contact.failures;
  }

  /** Tries again now what waits. */
  hurry(): void {
    this.#contact.hurry();
  }

  /** The project may be another one: which months it has a partition for is asked anew. */
  forgetMonths(): void {
    this.#months.clear();
  }

  /** What went over since the last call. */
  takeCounts(): RowCount[] {
    const counts = [...this.#counts.values()];
    this.#counts = new Map();
    return counts;
  }

  /**
   * Resolves once every row is in the project, or parked. Throws what the database throws, and the reason of the signal. Never
   * to be called while another call is under way: no row may be in two requests at once.
   */
  async deliver(deliveries: readonly Delivery[], signal: AbortSignal): Promise<void> {
    this.#parked ??= await countParked(this.#parts.pool);
    let failures = await this.#attempt(deliveries, signal);
    for (let attempt = 2; failures.length > 0 && attempt <= attemptsMax; attempt += 1) {
      // Perhaps for want of a partition: nobody has yet told that the project is another one.
      this.forgetMonths();
      failures = await this.#attempt(again(failures), signal);
    }
    await this.#park(failures);
    // What was refused for want of them may go now.
    if (this.#hasSentParents && this.#parked > 0) await retryParked(this.#parts.pool, foreignKeyViolation);
    this.#hasSentParents = false;
  }

  /** Asks the project to do something before rows can go to it; for as long as it takes. */
  async call<T>(name: string, parameters: object, signal: AbortSignal): Promise<Reply<T>> {
    const { project } = this.#parts;
    return (await this.#insist(() => project.call<T>(name, parameters, signal), signal)) as Reply<T>;
  }

  /**
   * Children are deleted before their parents, and parents come before their children. Of what is only ever added, what was
   * deleted and made anew is deleted as well: the project would keep what it has.
   */
  async #attempt(deliveries: readonly Delivery[], signal: AbortSignal): Promise<Failure[]> {
    const failures: Failure[] = [];
    for (const { table, gone } of deliveries.toReversed()) {
      if (gone.length === 0) continue;
      const keys = table.isEdited ? await keysToDelete(this.#parts.pool, table, gone) : gone;
      await this.#remove(table, keys, failures, signal);
    }
    for (const delivery of deliveries) await this.#upsert(delivery, failures, signal);
    // What was deleted and made anew may be refused twice.
    return [...new Map(failures.map((failure) => [nameOf(failure), failure])).values()];
  }

  /**
   * Sends the rows of these keys that there still are. Of those that came from the project so, only the history sends what
   * the project may have lost: it may have deleted them meanwhile, and would have them back.
   */
  async #upsert(
    { table, keys, isHistory = false }: Delivery,
    failures: Failure[],
    signal: AbortSignal,
  ): Promise<void> {
    const { pool, station } = this.#parts;
    const waiting = keys.toReversed();
    const lane = async (stop: AbortSignal) => {
      while (waiting.length > 0) {
        const asked = waiting.splice(-(this.#chunks.get(table.name) ?? rowsMax)).reverse();
        const rows = await readRows(pool, table, asked, { station, bytesMax });
        const whole = rows.filter(({ json }) => json !== null);
        const wanted = isHistory ? whole : whole.filter(({ isOwn }) => isOwn);
        waiting.push(...rows.flatMap(({ key, json }) => (json === null ? [key] : [])).reverse());
        this.#chunks.set(table.name, Math.min(rowsMax, Math.max(1, 2 * whole.length)));
        if (wanted.length > 0)
          await this.#send(
            table,
            wanted.map((row) => prepared(table, row)),
            failures,
            stop,
          );
      }
    };
    await together(lanesOf(table), lane, signal);
  }

  async #send(
    table: ChosenTable,
    rows: readonly Prepared[],
    failures: Failure[],
    signal: AbortSignal,
  ): Promise<void> {
    await this.#ensurePartitions(rows, signal);
    const send = () =>
      this.#parts.project.upsert(
        table.name,
        rows.map(({ json }) => json),
        table,
        signal,
      );
    const reply = await this.#insist(send, signal, rows.length > 1);
    if (reply.error === null) {
      this.#hasSentParents ||= this.#parts.tables.some(({ parents }) => parents.includes(table.name));
      this.#count(table, "sent", rows.length);
      this.#count(table, "rounded", table.isCoarse ? rows.length : 0);
      this.#count(table, "shortened", rows.filter(({ isCut }) => isCut).length);
      return await this.#unpark(table, rows);
    }
    const [first] = rows;
    if (rows.length === 1 && first) {
      failures.push({ table, key: first.key, isDeleted: false, reply });
      return;
    }
    const half = rows.length >> 1;
    await this.#send(table, rows.slice(0, half), failures, signal);
    await this.#send(table, rows.slice(half), failures, signal);
  }

  async #remove(
    table: ChosenTable,
    keys: readonly RowKey[],
    failures: Failure[],
    signal: AbortSignal,
  ): Promise<void> {
    const waiting = deletions(table, keys);
    const lane = async (stop: AbortSignal) => {
      for (let some = waiting.pop(); some; some = waiting.pop()) {
        const deleted = some;
        const remove = () => this.#parts.project.remove(table.name, deleted, table.key, stop);
        const reply = await this.#insist(remove, stop, deleted.length > 1);
        const [key] = deleted;
        if (reply.error === null) {
          this.#count(table, "deleted", deleted.length);
          await this.#unpark(
            table,
            deleted.map((each) => ({ key: each })),
          );
        } else if (deleted.length === 1 && key) failures.push({ table, key, isDeleted: true, reply });
        else waiting.push(deleted.slice(0, deleted.length >> 1), deleted.slice(deleted.length >> 1));
      }
    };
    await together(lanesOf(table), lane, signal);
  }

  /** Sends until something final is answered: that it is done, or refused; or, of what can be taken apart, too slow. */
  async #insist(send: () => Promise<Reply>, signal: AbortSignal, isDivisible = false): Promise<Reply> {
    for (let timeouts = 0; ; ) {
      await this.#contact.wait(signal);
      const reply = await send();
      const verdict = verdictOf(reply);
      if (verdict === "done" || verdict === "refused") {
        await this.#contact.gotThrough();
        return reply;
      }
      if (isTimeout(reply)) timeouts += 1;
      if (isDivisible && timeouts >= slowMax) return reply;
      await this.#contact.failed(reply);
    }
  }

  /** PostgREST inserts into the table of all months, which takes no row of a month that has no partition. */
  async #ensurePartitions(rows: readonly Prepared[], signal: AbortSignal): Promise<void> {
    const months = new Set(rows.flatMap(({ key }) => (key.time === null ? [] : [key.time.slice(0, 7)])));
    for (const month of months) {
      if (this.#months.has(month)) continue;
      // One that is refused has rows that are refused as well, and say why.
      await this.call("ensure_positions_partition", { at: `${month}-01T00:00:00Z` }, signal);
      this.#months.add(month);
    }
  }

  async #park(failures: readonly Failure[]): Promise<void> {
    const refused = failures.filter((failure) => !isReferred(failure));
    if (refused.length < failures.length) await this.#keep(failures.filter(isReferred));
    if (refused.length === 0) return;
    for (const { table } of refused) this.#count(table, "parked", 1);
    const refusals = refused.map(refusalOf);
    await parkRows(this.#parts.pool, refusals);
    this.#parked = (this.#parked ?? 0) + refusals.length;
    for (const { table, key, code, reason } of refusals)
      this.#parts.log.warn({ table, key, code, reason }, "row refused by the project: parked");
  }

  /** What was deleted here and is referred to in the project stays there, and comes back. */
  async #keep(referred: readonly Failure[]): Promise<void> {
    const refusals = referred.map(refusalOf);
    await wantBack(this.#parts.pool, refusals);
    for (const { table, key } of referred) await this.#unpark(table, [{ key }]);
    for (const { table, key, reason } of refusals)
      this.#parts.log.warn(
        { table, key, reason },
        "row was deleted here, but others refer to it in the project: it comes back",
      );
  }

  /** Costs nothing as long as no row is parked. */
  async #unpark(table: ChosenTable, rows: readonly { readonly key: RowKey }[]): Promise<void> {
    if (!this.#parked) return;
    await unparkRows(
      this.#parts.pool,
      table.name,
      rows.map(({ key }) => key),
    );
    this.#parked = await countParked(this.#parts.pool);
  }

  #count({ name: table }: ChosenTable, outcome: string, rows: number): void {
    if (rows === 0) return;
    const key = `${table} ${outcome}`;
    const before = this.#counts.get(key)?.rows ?? 0;
    this.#counts.set(key, { direction: "push", table, outcome, rows: before + rows });
  }
}

interface Prepared {
  readonly key: RowKey;
  readonly json: string;
  /** A field of it was too large to go whole. */
  readonly isCut: boolean;
}

function prepared(table: ChosenTable, { key, json }: SentRow): Prepared {
  const whole = table.prepare(json ?? "");
  const sent = shorten(whole);
  return { key, json: sent, isCut: sent !== whole };
}

function lanesOf({ isEdited }: ChosenTable): number {
  return isEdited ? 1 : lanesMax;
}

/** Runs so many at once. When one throws, all others are stopped and waited for: none goes on behind its caller's back. */
async function together(
  count: number,
  lane: (signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const lanes = Array.from({ length: count }, () =>
    lane(either).catch((error: unknown) => {
      stop.abort(error);
      throw error;
    }),
  );
  await Promise.allSettled(lanes);
  await Promise.all(lanes);
}

/** Keys in parts that one request can delete: few, and with a time those of one id. */
function deletions({ key }: ChosenTable, keys: readonly RowKey[]): RowKey[][] {
  const groups = key.length === 1 ? [[...keys]] : Object.values(Object.groupBy(keys, ({ id }) => id));
  return groups.flatMap((group = []) =>
    Array.from({ length: Math.ceil(group.length / deletedMax) }, (_, part) =>
      group.slice(part * deletedMax, (part + 1) * deletedMax),
    ),
  );
}

function isReferred({ isDeleted, reply }: Failure): boolean {
  return isDeleted && reply.error?.code === foreignKeyViolation;
}

function refusalOf({ table, key, isDeleted, reply }: Failure): Refusal {
  const { code = "", message = "" } = reply.error ?? {};
  return { table: table.name, key, isDeleted, code: code || String(reply.status), reason: message };
}

function nameOf({ table, key }: Failure): string {
  return `${table.name} ${key.id} ${key.time}`;
}

/** What was refused, to be tried once more, in the order of ranks. */
function again(failures: readonly Failure[]): Delivery[] {
  const byTable = Map.groupBy(failures, ({ table }) => table);
  return [...byTable]
    .toSorted(([one], [other]) => one.rank - other.rank)
    .map(([table, refused]) => ({
      table,
      keys: refused.filter(({ isDeleted }) => !isDeleted).map(({ key }) => key),
      gone: refused.filter(({ isDeleted }) => isDeleted).map(({ key }) => key),
      // Whatever was sent once was to be sent.
      isHistory: true,
    }));
}

/** An answer that took too long, not a connection that never was: fewer rows do not help that. */
function isTimeout({ status, error }: Reply): boolean {
  if (error?.code === "57014") return true;
  return status === 0 && /^(?!connect).*(abort|timeout)/i.test(error?.message ?? "");
}
