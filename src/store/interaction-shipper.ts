import { appendFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Journal, JournalLog, Segment } from "./journal/journal.ts";
import { type Batch, JournalReader } from "./journal/journal-reader.ts";
import { type Pool, query } from "./pool.ts";

export interface ShipperParts {
  readonly pool: Pool;
  readonly journal: Pick<Journal<unknown>, "segments" | "took">;
  /** Where rows are kept that the database refuses. */
  readonly folder: string;
  readonly log: JournalLog;
}

/** Between two attempts while the database is away: at first, and at most. */
const backoffMinMs = 100;
const backoffMaxMs = 5_000;
/**
 * After so many rows at once others are given the time to join the next statement, unless there were so many that it is
 * full: each is a sync of the disk that the journal wants too. Who waits for the rows (`settled`) cuts it short, and with
 * fewer than that there is nothing to save.
 */
const busyRows = 8;
const fullRows = 1_000;
const gatherMs = 100;
/** How long a reader waits at most for what was recorded before. */
const settleMs = 2_000;

interface Row {
  readonly ref: number;
  readonly json: string;
}

/** Rows of one segment, and the contents that they refer to. */
interface Load {
  readonly segment: Segment;
  readonly contents: ReadonlyMap<number, string>;
  readonly rows: readonly Row[];
}

/**
 * Takes what is in the journal into Postgres, in bulk and exactly once: a row that is there already is left as it
 * is, and the journal forgets only what is committed. While the database is away it waits, and the journal grows.
 */
export class InteractionShipper implements AsyncDisposable {
  readonly #parts: ShipperParts;
  readonly #stop = new AbortController();
  readonly #lanes: Promise<unknown>;
  #sleepers: (() => void)[] = [];
  #wakes = 0;
  #watchers: (() => void)[] = [];
  /** Cuts the pause before the next attempt short. */
  #hurry = new AbortController();
  /** How many wait for what was recorded. */
  #settling = 0;
  #failures = 0;
  #isAway = false;

  constructor(parts: ShipperParts) {
    this.#parts = parts;
    // What a dead process left, however much, keeps nobody from reading what was recorded now.
    this.#lanes = Promise.all([this.#follow(false), this.#follow(true)]);
  }

  /** Whether the last attempt to reach the database failed. */
  get isAway(): boolean {
    return this.#isAway;
  }

  /** To be called when there is more to take. */
  wake(): void {
    this.#wakes += 1;
    const sleepers = this.#sleepers;
    this.#sleepers = [];
    for (const wake of sleepers) wake();
  }

  /**
   * Resolves once all that is in the journal now is in Postgres; or an attempt to get it there failed, or it took more
   * than 2 s. Says whether it is.
   */
  async settled(segments: readonly Segment[] = this.#parts.journal.segments): Promise<boolean> {
    const goals = segments.map((segment) => ({ segment, bytes: segment.bytes }));
    const isDone = () => goals.every(({ segment, bytes }) => segment.takenBytes >= bytes);
    if (isDone()) return true;
    const failures = this.#failures;
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      this.#tell();
    }, settleMs).unref();
    this.#settling += 1;
    this.#hurry.abort();
    while (!isDone() && !isLate && !this.#stop.signal.aborted && this.#failures === failures) {
      await new Promise<void>((resolve) => this.#watchers.push(resolve));
    }
    this.#settling -= 1;
    clearTimeout(timer);
    return isDone();
  }

  /** Gives up an attempt that is waiting for its turn; one that is under way is waited for. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#hurry.abort();
    this.wake();
    this.#tell();
    await this.#lanes;
  }

  async #follow(adopted: boolean): Promise<void> {
    const { journal, log } = this.#parts;
    const pick = () =>
      journal.segments.find((each) => each.isAdopted === adopted && each.takenBytes < each.bytes);
    await using reader = new JournalReader(pick, log);
    let contents = new Map<number, string>();
    let segment: Segment | undefined;
    while (!this.#stop.signal.aborted) {
      const wakes = this.#wakes;
      const batch = await this.#read(reader, pick);
      if (!batch) {
        if (wakes === this.#wakes) await new Promise<void>((resolve) => this.#sleepers.push(resolve));
        continue;
      }
      if (batch.segment !== segment) contents = new Map();
      segment = batch.segment;
      const rows = parse(batch.lines, contents, segment);
      if (!(await this.#deliver({ segment, contents, rows }))) return;
      journal.took(segment, { bytes: batch.end, items: rows.length, since: batch.since });
      this.#tell();
      const isBusy = rows.length >= busyRows && rows.length < fullRows;
      if (isBusy && this.#settling === 0) await this.#pause(gatherMs);
    }
  }

  async #read(reader: JournalReader, pick: () => Segment | undefined): Promise<Batch | undefined> {
    const { journal, log } = this.#parts;
    try {
      return await reader.next();
    } catch (error) {
      const segment = pick();
      log.warn({ err: error, segment: segment?.path }, "journal cannot be read");
      // Somebody has deleted it: there is nothing to wait for.
      if (segment && (error as NodeJS.ErrnoException).code === "ENOENT")
        journal.took(segment, { bytes: segment.bytes, items: segment.items, since: segment.since });
      else await this.#pause(backoffMaxMs);
      return undefined;
    }
  }

  /** Resolves with true once the rows are committed, or set aside; with false where it is to stop before that. */
  async #deliver(load: Load): Promise<boolean> {
    for (let backoffMs = backoffMinMs; ; backoffMs = Math.min(2 * backoffMs, backoffMaxMs)) {
      const { rows } = load;
      if (rows.length === 0) return true;
      if (this.#stop.signal.aborted) return false;
      try {
        await insertRows(this.#parts.pool, load);
        if (this.#isAway) this.#parts.log.info({}, "database is back: the journal is being stored");
        this.#isAway = false;
        return true;
      } catch (error) {
        if (isRefusal(error)) {
          // One row that the database refuses must not keep out its company.
          if (rows.length === 1) return await this.#setAside(load, error);
          const half = rows.length >> 1;
          const isFirstHalf = await this.#deliver({ ...load, rows: rows.slice(0, half) });
          return isFirstHalf && (await this.#deliver({ ...load, rows: rows.slice(half) }));
        }
        if (!this.#isAway)
          this.#parts.log.warn({ err: error }, "database away: interactions stay in the journal");
        this.#isAway = true;
        this.#failures += 1;
        this.#tell();
        await this.#pause(backoffMs);
      }
    }
  }

  /** Keeps refused rows in a file of their own; where that cannot be written, the whole segment is kept. */
  async #setAside({ segment, contents, rows }: Load, refusal: unknown): Promise<true> {
    const file = join(this.#parts.folder, "refused.jsonl");
    const lines = rows.map(({ ref, json }) => `${contents.get(ref)}\n${json}\n`);
    this.#parts.log.warn({ err: refusal, file }, "interaction refused by the database: kept in a file");
    await appendFile(file, lines.join(""), { mode: 0o600 }).catch(() => {
      segment.isDamaged = true;
    });
    return true;
  }

  async #pause(ms: number): Promise<void> {
    if (this.#hurry.signal.aborted) this.#hurry = new AbortController();
    const signal = AbortSignal.any([this.#hurry.signal, this.#stop.signal]);
    await delay(ms, undefined, { signal, ref: false }).catch(() => undefined);
  }

  #tell(): void {
    const watchers = this.#watchers;
    this.#watchers = [];
    for (const tell of watchers) tell();
  }
}

/** The rows among the lines; the contents are added to those that the segment had before. */
function parse(lines: readonly string[], contents: Map<number, string>, segment: Segment): Row[] {
  const rows: Row[] = [];
  for (const line of lines) {
    const json = line.slice(1);
    const ref = Number.parseInt(line.slice(refAt), 10);
    if (line.startsWith("C")) contents.set(ref, json);
    else if (contents.has(ref)) rows.push({ ref, json });
    // Its content was in what is damaged: both stay in the file that is kept.
    else segment.isDamaged = true;
  }
  return rows;
}

const refAt = 'C{"ref":'.length;

/** Classes of SQLSTATE that say the row is at fault: data, constraint, limits. All else can pass by itself. */
function isRefusal(error: unknown): boolean {
  return /^(22|23|54)/.test(String((error as { code?: unknown }).code ?? ""));
}

/** Each content goes over once, however many rows have it; each row is whole in the table. */
async function insertRows(pool: Pool, { rows, contents }: Load): Promise<void> {
  const used = new Set(rows.map(({ ref }) => ref));
  const values = [
    `[${Array.from(used, (ref) => contents.get(ref)).join(",")}]`,
    `[${rows.map(({ json }) => json).join(",")}]`,
  ];
  await query(pool, { name: "store-interactions", text: insert, values });
}

const insert = `
  with content as materialized (
    select * from jsonb_to_recordset($1::jsonb) as content (
      ref integer, model text, prompt jsonb, parameters jsonb, response text, reasoning text, tool_calls jsonb,
      finish_reason text, prompt_tokens integer, completion_tokens integer, reasoning_tokens integer
    )
  )
  insert into interactions (
    id, created_at, route, caller, request_id, session_id, run_id, model, prompt, parameters, response, reasoning,
    tool_calls, finish_reason, prompt_tokens, completion_tokens, reasoning_tokens, cached, cache, upstream, outcome,
    error, queued_ms, first_token_ms, processing_time_ms
  )
  select
    id, created_at, route, caller, request_id, session_id, run_id, model, prompt, parameters, response, reasoning,
    tool_calls, finish_reason, prompt_tokens, completion_tokens, reasoning_tokens, cache = 'HIT', cache, upstream,
    outcome, error, queued_ms, first_token_ms, processing_time_ms
  from jsonb_to_recordset($2::jsonb) as own (
    ref integer, id uuid, created_at timestamptz, route text, caller text, request_id text, session_id text,
    run_id uuid, cache text, upstream text, outcome text, error text, queued_ms double precision,
    first_token_ms double precision, processing_time_ms double precision
  )
  join content using (ref)
  on conflict (id) do nothing`;
