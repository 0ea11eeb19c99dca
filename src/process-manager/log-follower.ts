import { setTimeout as delay } from "node:timers/promises";
import type { LogLine, LogReader } from "./log-reader.ts";
import type { ServiceLog } from "./service-log.ts";

/** Who follows live is at most this far behind: what came too fast is left out, and a line says how much it was. */
const behindBytesMax = 1024 * 1024;
/** One chunk of each log in this time: more than anybody reads, and little for a process that has other work. */
const frameMs = 100;

/** How to learn that logs have grown. */
export interface Growth {
  /** Resolves when there may be something new since the last time it did, when the signal aborts, or after the time. */
  wait(signal: AbortSignal, timeoutMs?: number): Promise<void>;
  /** Nothing more will come. */
  isOver(): boolean;
}

/**
 * The last lines of some logs, and then, when following, each new line as it comes. Ends with the logs, or when
 * its reader returns, also while it waits for a line.
 */
export function followLogs(
  logs: readonly ServiceLog[],
  tailLines: number,
  follow: boolean,
): AsyncIterableIterator<LogLine, undefined> {
  const stop = new AbortController();
  // In one turn: what is in the files by now, and everything after it.
  const opening = Promise.all(logs.map((log) => log.open({ tailLines })));
  opening.catch(() => undefined); // an unreadable file fails the first next()
  const lines = (async function* (): AsyncGenerator<LogLine, undefined> {
    const readers = await opening;
    for await (const batch of pastLines(readers, !follow)) yield* batch;
    if (!follow) return;
    for await (const batch of newLines(readers, growthOf(logs), { live: true, signal: stop.signal }))
      yield* batch;
  })();
  const close = async (): Promise<void> => {
    for (const reader of await opening) await reader.close();
  };
  return {
    next: async () => {
      const result = await lines.next();
      if (result.done) await close();
      return result;
    },
    return: async () => {
      stop.abort();
      await lines.return(undefined);
      await close();
      return { value: undefined, done: true };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/** The lines that were there when the readers were opened, of all logs in the order of their times. */
export async function* pastLines(readers: readonly LogReader[], settled: boolean): AsyncGenerator<LogLine[]> {
  const heads = await Promise.all(readers.map((reader) => Head.open(reader, settled)));
  for (;;) {
    const [first, second] = heads.filter(({ isOver }) => !isOver).sort((a, b) => compare(a.at, b.at));
    if (!first) return;
    yield await first.takeUntil(second?.at);
  }
}

/** Each line after those, until growth is over; `live` leaves out what comes too fast. */
export async function* newLines(
  readers: readonly LogReader[],
  growth: Growth,
  { live, signal }: { readonly live: boolean; readonly signal: AbortSignal },
): AsyncGenerator<LogLine[]> {
  while (!signal.aborted) {
    const isLast = growth.isOver();
    const found = await Promise.all(readers.map((reader) => nextOf(reader, isLast, live)));
    const lines = found.flat();
    if (lines.length > 0) {
      yield found.length > 1 ? lines.sort((a, b) => compare(a.at ?? "", b.at ?? "")) : lines;
      if (live && !isLast) await delay(frameMs, undefined, { signal }).catch(() => undefined);
    } else if (isLast) return;
    else await growth.wait(signal, readers.find(({ lookAgainMs }) => lookAgainMs)?.lookAgainMs);
  }
}

async function nextOf(reader: LogReader, settled: boolean, live: boolean): Promise<LogLine[]> {
  const notice =
    live && !reader.isAtEnd && (await reader.behindBytes()) > behindBytesMax ? [await reader.skip()] : [];
  return [...notice, ...((await reader.next(settled)) ?? [])];
}

/** Logs that this process writes tell themselves. */
function growthOf(logs: readonly ServiceLog[]): Growth {
  let seen = logs.map(({ growth }) => growth);
  return {
    isOver: () => logs.every(({ isClosed }) => isClosed),
    wait: async (signal, timeoutMs) => {
      const over = Promise.withResolvers<void>();
      const timer = timeoutMs === undefined ? undefined : setTimeout(over.resolve, timeoutMs);
      const wake = (): void => over.resolve();
      signal.addEventListener("abort", wake);
      // Listeners that are taken off again: a promise of a log that stays quiet would keep each of these waits for ever.
      const ends = logs.map((log) => log.onGrowth(wake));
      if (signal.aborted || logs.some(({ growth }, index) => growth !== seen[index])) wake();
      await over.promise;
      clearTimeout(timer);
      signal.removeEventListener("abort", wake);
      for (const end of ends) end();
      seen = logs.map(({ growth }) => growth);
    },
  };
}

/** Where a log is in the merge. */
class Head {
  isOver = false;
  /** ISO time of the next line; that of the one before where it has none. */
  at = "";
  readonly #reader: LogReader;
  readonly #settled: boolean;
  #lines: LogLine[] = [];

  private constructor(reader: LogReader, settled: boolean) {
    this.#reader = reader;
    this.#settled = settled;
  }

  static async open(reader: LogReader, settled: boolean): Promise<Head> {
    const head = new Head(reader, settled);
    await head.#fill();
    return head;
  }

  /** The lines that come no later than the other log's next one; without another, as many as there are at hand. */
  async takeUntil(other: string | undefined): Promise<LogLine[]> {
    const end = this.#lines.findIndex(({ at }) => other !== undefined && (at ?? this.at) > other);
    const taken = this.#lines.splice(0, end < 0 ? this.#lines.length : Math.max(1, end));
    await this.#fill();
    return taken;
  }

  async #fill(): Promise<void> {
    if (this.#lines.length === 0) this.#lines = (await this.#reader.nextPast(this.#settled)) ?? [];
    this.isOver = this.#lines.length === 0;
    this.at = this.#lines[0]?.at ?? this.at;
  }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
