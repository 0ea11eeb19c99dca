import { setTimeout as wait } from "node:timers/promises";
import { uuidv7 } from "../../http/uuid.ts";
import {
  type ClaimedLine,
  claimLines,
  freeAbandonedLines,
  type LineKey,
  type LineResult,
  recordResults,
  releaseLines,
  renewLeases,
} from "../../store/batch-lines.ts";
import { sweepFiles } from "../../store/files.ts";
import { GroupCommit } from "../../store/group-commit.ts";
import type { Pool } from "../../store/pool.ts";
import { ChatError } from "../chat-error.ts";
import { Loop } from "./loop.ts";
import { readInput } from "./read-input.ts";
import { type Outcome, type RunParts, runLine } from "./run-line.ts";
import { writeOutput } from "./write-output.ts";

export interface WorkerSettings {
  /** Lines asked at once. More than the model server takes would only make people wait longer. */
  readonly linesAtOnce: number;
  /** How long a line stays with a server that is not heard from. */
  readonly leaseMs: number;
  /** How soon a server sees what another one was told. */
  readonly pollMs: number;
}

export const standardSettings: WorkerSettings = { linesAtOnce: 4, leaseMs: 10_000, pollMs: 5_000 };

export interface WorkerParts extends RunParts, WorkerSettings {
  readonly pool: Pool;
  readonly clock: () => number;
  /** Rejects where LM Studio does not answer at all. */
  readonly reachModels: () => Promise<unknown>;
}

/** Lines claimed ahead of being run. */
const aheadMax = 128;
/** A claim that lasted shorter than this was too small; longer than the other, too large for one server. */
const claimShortMs = 250;
const claimLongMs = 1_000;
/** Results that wait for their commit. Past that no line is begun. */
const unwrittenMax = 256;
/** How often a line may fail in a way that may pass. */
const failuresMax = 3;
const pauseMinMs = 500;
const pauseMaxMs = 30_000;
/** How long rests whose model fails every time, or whose tokens of the day are spent, before one line is tried again. */
const restMs = { batchId: 10_000, caller: 60_000 };
/** How long a server that stops goes on writing results. */
const farewellMs = 5_000;

interface Held {
  readonly line: ClaimedLine;
  failures: number;
  /** There while it is run. */
  stop?: AbortController | undefined;
}

/**
 * Runs batches: reads their input, asks their lines a few at a time, and writes their result files. What is to
 * be done stands in the database alone, so that any number of servers share it and each may die at any moment:
 * a line is done when its result is stored, and until then whoever comes next runs it again. Where LM Studio
 * or the database is away, it waits.
 */
export class BatchWorker implements AsyncDisposable {
  readonly #parts: WorkerParts;
  readonly #holder = uuidv7();
  readonly #reading: Loop;
  readonly #claiming: Loop;
  readonly #renewing: Loop;
  readonly #results: GroupCommit<LineResult, undefined>;
  /** Lines that are this server's, results under way included. */
  readonly #held = new Map<string, Held>();
  readonly #ready: Held[] = [];
  readonly #runs = new Set<Promise<void>>();
  /** Batches, and callers, whose lines are left until then. */
  readonly #resting = { batchId: new Map<string, number>(), caller: new Map<string, number>() };
  readonly #storing = new Set<Promise<void>>();
  #claimSize: number;
  #claimedAt = Number.NEGATIVE_INFINITY;
  #pauseMs = 0;
  #isPaused = false;
  #resumption: NodeJS.Timeout | undefined;
  readonly #end = new AbortController();

  constructor(parts: WorkerParts) {
    this.#parts = parts;
    this.#claimSize = parts.linesAtOnce;
    const { pollMs, leaseMs, log } = parts;
    this.#reading = new Loop({ name: "read", work: () => this.#readAndEnd(), everyMs: pollMs, log });
    this.#claiming = new Loop({ name: "claim", work: () => this.#claim(), everyMs: pollMs, log });
    this.#renewing = new Loop({ name: "renew", work: () => this.#renew(), everyMs: leaseMs / 3, log });
    this.#results = new GroupCommit({
      write: (results) => this.#record(results),
      groupMax: 64,
      waitingMax: unwrittenMax + parts.linesAtOnce,
      writers: 1,
    });
  }

  start(): void {
    for (const loop of [this.#reading, this.#claiming, this.#renewing]) loop.wake();
  }

  /** A batch was made or cancelled. */
  wake(): void {
    this.#reading.wake();
  }

  /** Gives up what it is running, for another server to take at once. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort();
    clearTimeout(this.#resumption);
    this.#ready.length = 0;
    for (const { stop } of this.#held.values()) stop?.abort(givenUp());
    await Promise.all(this.#runs);
    await Promise.race([Promise.all(this.#storing), wait(farewellMs, undefined, { ref: false })]);
    for (const loop of [this.#reading, this.#claiming, this.#renewing]) await loop[Symbol.asyncDispose]();
    await releaseLines(this.#parts.pool, this.#holder).catch((error: unknown) =>
      this.#parts.log.info({ err: error }, "lines of batches not given back; they are taken in a while"),
    );
  }

  async #readAndEnd(): Promise<void> {
    const { pool, config, clock, log } = this.#parts;
    const now = () => new Date(clock());
    const freed = await freeAbandonedLines(pool);
    if (freed > 0) log.info({ lines: freed }, "lines that no server holds are run again");
    let hasEnded = false;
    const unended: string[] = [];
    while (!this.#end.signal.aborted && (await writeOutput(pool, now(), unended, log))) hasEnded = true;
    // What is still asked of a batch that was cancelled or has expired, nobody waits for.
    if (hasEnded) this.#renewing.wake();
    let hasBegun = freed > 0;
    while (!this.#end.signal.aborted && (await readInput(pool, config.DEEPSEEK_MODEL, now(), log)))
      hasBegun = true;
    if (hasBegun) this.#claiming.wake();
    await sweepFiles(pool, now());
  }

  async #claim(): Promise<void> {
    const { pool, linesAtOnce, leaseMs, clock } = this.#parts;
    if (this.#isPaused || this.#end.signal.aborted || this.#ready.length >= linesAtOnce) return;
    const limit = this.#nextClaimSize();
    const now = clock();
    const { batchId: batches, caller: callers } = this.#resting;
    for (const resting of [batches, callers])
      for (const [name, untilMs] of resting) if (untilMs <= now) resting.delete(name);
    const except = { batches: [...batches.keys()], callers: [...callers.keys()] };
    const claim = { holder: this.#holder, leaseMs, limit, now: new Date(now), except };
    const lines = await claimLines(pool, claim);
    for (const line of lines) {
      const held: Held = { line, failures: 0 };
      this.#held.set(keyOf(line), held);
      this.#ready.push(held);
    }
    this.#fill();
    if (lines.length === limit && this.#ready.length < linesAtOnce) this.#claiming.wake();
  }

  /** Few lines where each takes long, so that servers share them; many where they are quick, so that claims are few. */
  #nextClaimSize(): number {
    const now = performance.now();
    const lastedMs = now - this.#claimedAt;
    this.#claimedAt = now;
    if (lastedMs < claimShortMs) this.#claimSize *= 2;
    else if (lastedMs > claimLongMs) this.#claimSize /= 2;
    this.#claimSize = Math.min(aheadMax, Math.max(this.#parts.linesAtOnce, this.#claimSize));
    return Math.ceil(this.#claimSize);
  }

  #fill(): void {
    const { linesAtOnce } = this.#parts;
    // After a pause one line goes first, to see whether it has passed.
    const atOnce = this.#isPaused ? 0 : this.#pauseMs > 0 ? 1 : linesAtOnce;
    while (this.#runs.size < atOnce && this.#storing.size < unwrittenMax && !this.#end.signal.aborted) {
      const held = this.#ready.shift();
      if (!held) break;
      const run: Promise<void> = this.#run(held).finally(() => {
        this.#runs.delete(run);
        this.#fill();
        if (this.#ready.length < linesAtOnce) this.#claiming.wake();
      });
      this.#runs.add(run);
    }
  }

  async #run(held: Held): Promise<void> {
    const stop = new AbortController();
    held.stop = stop;
    const outcome = await runLine(held.line, this.#parts, stop);
    held.stop = undefined;
    if ("passing" in outcome) {
      // Taken from us, or we stop: it is somebody else's.
      if (stop.signal.aborted) return;
      if (outcome.passing === "batch-rests") return this.#rest("batchId", held, outcome.error);
      if (outcome.passing === "caller-rests") return this.#rest("caller", held, outcome.error);
      if (!(await this.#isUsedUp(held, outcome))) return void this.#ready.unshift(held);
    }
    this.#goOn();
    const storing: Promise<void> = this.#store(held, outcome.result).finally(() => {
      this.#storing.delete(storing);
      this.#fill();
    });
    // Not waited for: the next line may be asked while this result goes to the disk.
    this.#storing.add(storing);
  }

  /** Lets go of the lines of a batch, or caller. Their leases lapse, and until then nobody is to ask them anyway. */
  #rest(by: "batchId" | "caller", { line }: Held, error: unknown): void {
    const { clock, log } = this.#parts;
    const resting = this.#resting[by];
    const who = line[by];
    if (!resting.has(who)) log.info({ [by]: who, err: error }, "lines of batches rest until this has passed");
    resting.set(who, clock() + restMs[by]);
    this.#held.delete(keyOf(line));
    for (const other of this.#ready.splice(0)) {
      if (other.line[by] === who) this.#held.delete(keyOf(other.line));
      else this.#ready.push(other);
    }
  }

  /** Whether a line has failed so often that this is its result. */
  async #isUsedUp(held: Held, { passing, error }: Extract<Outcome, { passing: unknown }>): Promise<boolean> {
    // Where LM Studio does not answer at all, no line is to blame.
    const isThere = passing === "counts" && (await this.#reaches());
    if (!isThere) {
      this.#pause(error);
      return false;
    }
    held.failures += 1;
    return held.failures >= failuresMax;
  }

  #reaches(): Promise<boolean> {
    return this.#parts.reachModels().then(
      () => true,
      () => false,
    );
  }

  #pause(error: unknown): void {
    if (this.#isPaused || this.#end.signal.aborted) return;
    if (this.#pauseMs === 0) this.#parts.log.warn({ err: error }, "batches wait until this has passed");
    this.#isPaused = true;
    this.#pauseMs = Math.min(pauseMaxMs, Math.max(pauseMinMs, this.#pauseMs * 2));
    this.#resumption = setTimeout(() => {
      this.#isPaused = false;
      this.#fill();
      this.#claiming.wake();
    }, this.#pauseMs).unref();
  }

  #goOn(): void {
    if (this.#pauseMs === 0 || this.#isPaused) return;
    this.#pauseMs = 0;
    this.#parts.log.info("batches go on");
  }

  async #store(held: Held, result: LineResult): Promise<void> {
    const { signal } = this.#end;
    for (let restMs = pauseMinMs; ; restMs = Math.min(pauseMaxMs, restMs * 2)) {
      try {
        await this.#results.submit(result);
        break;
      } catch (error) {
        this.#parts.log.warn(
          { err: error, ...keyFields(result) },
          "result of a line not stored; trying again",
        );
        // Not stored, it is run again: the same as if this server had died.
        if (signal.aborted) return;
        await wait(restMs, undefined, { signal, ref: false }).catch(() => {});
      }
    }
    this.#held.delete(keyOf(held.line));
  }

  async #record(results: readonly LineResult[]): Promise<undefined[]> {
    const { pool, clock } = this.#parts;
    const { hasEnded } = await recordResults(pool, results, new Date(clock()));
    if (hasEnded) this.#reading.wake();
    return results.map(() => undefined);
  }

  /** Says that it still has its lines, and drops those that it has no more. */
  async #renew(): Promise<void> {
    const { pool, leaseMs } = this.#parts;
    // Only what was held before the question: what is claimed meanwhile, its answer does not know.
    const asked = [...this.#held.values()];
    if (asked.length === 0) return;
    const lines = asked.map(({ line }) => line);
    const kept = new Set((await renewLeases(pool, { holder: this.#holder, leaseMs, lines })).map(keyOf));
    for (const held of asked) {
      const key = keyOf(held.line);
      if (kept.has(key)) continue;
      held.stop?.abort(givenUp());
      this.#held.delete(key);
      const index = this.#ready.indexOf(held);
      if (index >= 0) this.#ready.splice(index, 1);
    }
  }
}

function keyOf({ batchId, line }: LineKey): string {
  return `${batchId}/${line}`;
}

function keyFields({ batchId, line }: LineKey) {
  return { batchId, line };
}

function givenUp(): ChatError {
  return new ChatError("client-gone", "The batch has ended, or this server stops.");
}
