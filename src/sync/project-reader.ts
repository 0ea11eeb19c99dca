import type { PostgrestFilterBuilder } from "@supabase/supabase-js";
import type { Cursor } from "../store/pull-progress.ts";
import type { PulledRow } from "../store/sync-apply.ts";
import type { MirroredTable, RowKey } from "../store/sync-rows.ts";
import { Contact, type ContactParts } from "./contact.ts";
import type { Project, Reply } from "./project.ts";

export interface ProjectReaderParts extends ContactParts {
  readonly project: Project;
  /** Id of this station, whose own changes the feed leaves out. */
  readonly station: string;
}

/** A piece of the project's feed of changes, in their order. */
export interface FeedPage {
  readonly changes: readonly FeedChange[];
  /** The place after them. */
  readonly xid: string;
  readonly seq: number | string;
  /** There is more already. */
  readonly more: boolean;
  /** Something between the place that was asked for and the first of these is lost. */
  readonly gap: boolean;
  /** Whose feed it is. */
  readonly project: string;
}

interface FeedChange {
  readonly table: string;
  readonly deleted: boolean;
  /** Of rows that were deleted, or deleted and made anew; null for other changes. */
  readonly ids: readonly string[] | null;
  readonly times: readonly string[] | null;
  /** The rows as they are now, without those that are gone or, unless they were made anew, are as this station has them. */
  readonly rows: readonly PulledRow[];
}

/** Rows of a page at most, and about as many bytes. */
const rowsMax = 1_000;
const bytesWanted = 4 * 1024 * 1024;
const limitFirst = 200;
/** Keys go over in the URL, which servers and proxies bound at 8 KiB. */
const keysInUrlMax = 80;

/**
 * Asks the project until it answers, with waits that grow, and for less at once where an answer takes too long or is too
 * large. Throws nothing but the reason of a signal.
 */
export class ProjectReader {
  readonly #parts: ProjectReaderParts;
  readonly #contact: Contact;
  /** Rows, or changes of the feed, that are asked for at once. */
  readonly #limits = new Map<string, number>();

  constructor(parts: ProjectReaderParts) {
    this.#parts = parts;
    this.#contact = new Contact(parts, 200);
  }

  /** How often nothing got through, since ever. */
  get failures(): number {
    return this.#contact.failures;
  }

  /** Asks again now where it waits. */
  hurry(): void {
    this.#contact.hurry();
  }

  /** Asks for less at once from now on, so that an answer is less likely to be out of date when it comes. */
  askForLess(name: string): void {
    this.#limits.set(name, Math.max(1, (this.#limits.get(name) ?? limitFirst) >> 2));
  }

  /** The end of the feed as it is now. */
  async head(signal: AbortSignal): Promise<Cursor> {
    const ask = () => this.#parts.project.call<Cursor>("sync_head", {}, signal);
    const { xid, seq, project } = await this.#insist("", ask, signal);
    return { xid, seq: String(seq), project };
  }

  async changes(after: Cursor, signal: AbortSignal): Promise<FeedPage> {
    const { project, station } = this.#parts;
    const ask = (row_limit: number) =>
      project.callExactly<FeedPage>(
        "sync_changes",
        { after_xid: after.xid, after_seq: after.seq, row_limit, station },
        signal,
      );
    return await this.#insist("sync_changes", ask, signal);
  }

  /** About how many rows the project has of a table; undefined where it lacks the migration that makes that. */
  async count(table: MirroredTable, signal: AbortSignal): Promise<number | undefined> {
    const { client } = this.#parts.project;
    const ask = async () => {
      const { count, ...answer } = await client
        .from(table.name)
        .select(table.key[0], { count: "estimated" })
        .limit(1)
        .retry(false)
        .abortSignal(signal);
      const rows = answer.error && isTableLacking(answer.error) ? undefined : (count ?? 0);
      return replyOf({ ...answer, error: rows === undefined ? null : answer.error, data: { rows } });
    };
    return (await this.#insist("", ask, signal)).rows;
  }

  /** The rows of a table after a key, in the order of keys: none only where there are no more. */
  async rowsAfter(
    table: MirroredTable,
    after: RowKey | null,
    signal: AbortSignal,
  ): Promise<readonly PulledRow[]> {
    const [id, time] = table.key;
    // Two plain ranges of the index. As one condition they would have it read from its start.
    if (after !== null && time !== undefined) {
      const ask = (limit: number) =>
        this.#select(table, limit, (rows) => rows.eq(id, after.id).gt(time, after.time), signal);
      const rest = await this.#insist(table.name, ask, signal);
      if (rest.length > 0) return rest;
    }
    const ask = (limit: number) =>
      this.#select(table, limit, (rows) => (after === null ? rows : rows.gt(id, after.id)), signal);
    return await this.#insist(table.name, ask, signal);
  }

  /** The rows of these keys that the project has. */
  async rowsOf(
    table: MirroredTable,
    keys: readonly RowKey[],
    signal: AbortSignal,
  ): Promise<readonly PulledRow[]> {
    const [id, time] = table.key;
    const found: PulledRow[] = [];
    const groups = time === undefined ? [[...keys]] : Object.values(Object.groupBy(keys, (key) => key.id));
    for (const group of groups) {
      for (let first = 0; first < (group?.length ?? 0); first += keysInUrlMax) {
        const some = group?.slice(first, first + keysInUrlMax) ?? [];
        const ids = [...new Set(some.map((key) => key.id))];
        const ask = () =>
          this.#select(
            table,
            rowsMax,
            (rows) =>
              time === undefined
                ? rows.in(id, ids)
                : rows.in(id, ids).in(
                    time,
                    some.map((key) => key.time),
                  ),
            signal,
          );
        found.push(...(await this.#insist("", ask, signal)));
      }
    }
    return found;
  }

  async #select(
    table: MirroredTable,
    limit: number,
    narrow: (rows: Rows) => Rows,
    signal: AbortSignal,
  ): Promise<Reply<PulledRow[]>> {
    const { project } = this.#parts;
    const all: Rows = project.exactClient.from(table.name).select("*");
    const ordered = table.key.reduce((rows, column) => rows.order(column as string), narrow(all));
    return await project.askExactly(ordered.limit(limit).retry(false).abortSignal(signal), signal);
  }

  /** Asks until there is an answer; `name` is of what the sizes of earlier answers tell how much to ask for. */
  async #insist<T>(name: string, ask: (limit: number) => Promise<Reply<T>>, signal: AbortSignal): Promise<T> {
    for (;;) {
      await this.#contact.wait(signal);
      signal.throwIfAborted();
      const limit = this.#limits.get(name) ?? limitFirst;
      const reply = await ask(limit);
      signal.throwIfAborted();
      if (reply.error === null && reply.data !== null) {
        await this.#contact.gotThrough();
        this.#limits.set(name, nextLimit(limit, reply.data));
        return reply.data;
      }
      this.#limits.set(name, Math.max(1, limit >> 1));
      await this.#contact.failed(reply);
    }
  }
}

/** Supabase's builder, of a table that it has no types of. */
// biome-ignore lint/suspicious/noExplicitAny: that is how the library spells it
type Rows = PostgrestFilterBuilder<any, any, any, any>;

/** As PostgREST says it, and Postgres itself where PostgREST still remembers the table. */
function isTableLacking({ code }: { readonly code?: string }): boolean {
  return code === "PGRST205" || code === "42P01";
}

function nextLimit(limit: number, data: unknown): number {
  const bytes = Math.max(1, JSON.stringify(data).length);
  const factor = Math.min(2, bytesWanted / bytes);
  return Math.max(1, Math.min(rowsMax, Math.floor(limit * factor)));
}

function replyOf<T>({
  status,
  error,
  data,
}: {
  readonly status: number;
  readonly error: { readonly code?: string; readonly message: string } | null;
  readonly data: T | null;
}): Reply<T> {
  return { status, data, error: error && { code: error.code ?? "", message: error.message } };
}
