import { once } from "node:events";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { styleText } from "node:util";
import { ControlClient } from "../process-manager/control-client.ts";
import { currentHolder } from "../process-manager/home-lock.ts";
import { type Growth, newLines, pastLines } from "../process-manager/log-follower.ts";
import { type LogLine, LogReader } from "../process-manager/log-reader.ts";
import { runningServices } from "./control.ts";
import { fail } from "./failure.ts";
import { untilNobodyReads } from "./leaving.ts";
import { readableLine } from "./log-line.ts";
import type { Place } from "./place.ts";
import { styledName } from "./state-style.ts";

/** Lines of each log to begin with where nothing says which are wanted. */
const linesDefault = 100;
/** Between two looks at the files of others. */
const lookMs = 100;

/** What `pugmark logs` was asked for. */
export interface LogsOptions {
  readonly follow?: boolean;
  /** Of each log the last so many lines; with `grep`, the last so many that match. */
  readonly lines?: number;
  /** Milliseconds since the epoch. */
  readonly since?: number;
  readonly until?: number;
  readonly grep?: RegExp;
  readonly timestamps?: boolean;
  readonly json?: boolean;
}

/**
 * `pugmark logs`: what services printed, from the log files themselves, whether a station runs or not. With `follow`
 * until the station or the reader ends. Exit code 2 for a name that has no log, 3 where there is nothing to follow.
 *
 * The matching is done here, where a pattern that takes for ever holds up nobody else; Ctrl+C ends the process the
 * usual way even then, so that nothing listens for it.
 */
export async function logs(place: Place, names: readonly string[], options: LogsOptions): Promise<number> {
  const folder = join(place.PUGMARK_HOME, "logs");
  const running = (await runningServices(place))?.filter(({ kind }) => kind !== "external");
  if (options.follow && !running) {
    const remedy = "without -f, what it left is shown";
    return fail([`no station runs in ${place.PUGMARK_HOME}, so that nothing can be followed; ${remedy}`], 3);
  }
  const present = await logNames(folder);
  const known = [...new Set([...(running ?? []).map(({ name }) => name), ...present, "manager"])];
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length > 0) return fail([`no log of ${unknown.join(", ")}; there are ${known.join(", ")}`], 2);
  const own = running?.map(({ name }) => name) ?? present.filter((name) => name !== "manager");
  const wanted = names.length > 0 ? [...new Set(names)] : own;

  const stop = new AbortController();
  // A pager that was closed wants no more lines.
  untilNobodyReads(process.stdout).addEventListener("abort", () => stop.abort());
  const readers = await Promise.all(
    wanted.map((name) => LogReader.open(name, join(folder, `${name}.log`), rangeOf(options))),
  );
  const print = printer(options, Math.max(0, ...wanted.map(({ length }) => length)), stop.signal);
  await printPast(pastLines(readers, !options.follow), options, print, stop.signal);
  if (options.follow) {
    const live = process.stdout.isTTY && !options.grep;
    const growth = stationGrowth(place.PUGMARK_HOME, stop.signal);
    for await (const lines of newLines(readers, growth, { live, signal: stop.signal }))
      await print(matching(lines, options));
  }
  stop.abort();
  for (const reader of readers) await reader.close();
  return 0;
}

function rangeOf({ lines, since, until, grep }: LogsOptions) {
  const isWhole = grep !== undefined || (lines === undefined && (since !== undefined || until !== undefined));
  return {
    ...(isWhole ? {} : { tailLines: lines ?? linesDefault }),
    ...(since === undefined ? {} : { sinceMs: since }),
    ...(until === undefined ? {} : { untilMs: until }),
  };
}

async function logNames(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => []);
  return names.flatMap((name) => (name.endsWith(".log") ? [name.slice(0, -".log".length)] : [])).sort();
}

async function printPast(
  batches: AsyncIterable<LogLine[]>,
  options: LogsOptions,
  print: (lines: readonly LogLine[]) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const keeps = options.grep && options.lines !== undefined ? options.lines : null;
  let kept: LogLine[] = [];
  for await (const batch of batches) {
    if (signal.aborted) return;
    const lines = matching(batch, options);
    if (keeps === null) await print(lines);
    else kept = keeps === 0 ? [] : [...kept, ...lines].slice(-keeps);
  }
  await print(kept);
}

function matching(lines: readonly LogLine[], { grep }: LogsOptions): readonly LogLine[] {
  return grep ? lines.filter(({ line }) => grep.test(line)) : lines;
}

function printer(
  { json, timestamps }: LogsOptions,
  width: number,
  signal: AbortSignal,
): (lines: readonly LogLine[]) => Promise<void> {
  const textOf = (entry: LogLine): string => {
    if (json) return `${JSON.stringify(entry)}\n`;
    const time = timestamps ? `${styleText("dim", localTime(entry.at))} ` : "";
    const head = `${styledName(entry.service, width)} ${styleText("dim", "|")} ${time}`;
    // A message of several lines stays below its service's name.
    return readableLine(entry.line)
      .split("\n")
      .map((line) => `${head}${line}\n`)
      .join("");
  };
  return async (lines) => {
    if (signal.aborted || lines.length === 0) return;
    if (!process.stdout.write(lines.map(textOf).join("")))
      await once(process.stdout, "drain", { signal }).catch(() => undefined);
  };
}

/** `2026-11-22 15:04:05.123` where we are; as many spaces where the time is not known. */
function localTime(at: string | null): string {
  if (at === null) return " ".repeat(23);
  const date = new Date(at);
  const local = new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 23).replace("T", " ");
}

/** The logs of another process are looked at again and again, until nobody holds the home any more. */
function stationGrowth(home: string, signal: AbortSignal): Growth {
  let isOver = false;
  const untilGone = async (): Promise<void> => {
    try {
      for await (const _event of new ControlClient(home).events(signal)); // ends with the station
    } catch {
      // cut off: it was killed
    }
    while (!signal.aborted && (await currentHolder(home))) await delay(lookMs);
    isOver = true;
  };
  void untilGone();
  return {
    isOver: () => isOver,
    wait: async () => await delay(lookMs, undefined, { signal }).catch(() => undefined),
  };
}
