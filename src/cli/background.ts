import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, openSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { ControlClient } from "../process-manager/control-client.ts";
import { currentHolder } from "../process-manager/home-lock.ts";
import { resolveDefinitions } from "../process-manager/resolve-definitions.ts";
import { fail } from "./failure.ts";
import type { Place } from "./place.ts";
import { isWell } from "./service-table.ts";
import { checkNames, type UpNews } from "./up.ts";
import type { WhatRuns } from "./what-runs.ts";

/** What was asked of `pugmark up --detach`. */
export interface BackgroundOptions {
  readonly names: readonly string[];
  /** Return only when everything is ready, or stop all of it. */
  readonly wait: boolean;
  /** How long `wait` waits, seconds; without it as long as it takes. */
  readonly timeoutS?: number | undefined;
}

/** As `timeout(1)` says it. */
const timedOut = 124;

/** End a wait as well, with 128 and their number, as a shell counts. */
const interruptions = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * `pugmark up --detach`: starts a station whose manager goes on in the background, in a session of its own. Exit code
 * 0 when it has started, with `wait` when all of it is ready; 1 where it runs already or does not get ready, 124 when
 * it does not in time: then everything is stopped again.
 */
export async function upInBackground(
  what: WhatRuns,
  place: Place,
  options: BackgroundOptions,
): Promise<number> {
  const { home } = what;
  checkNames(resolveDefinitions((await what.load()).definitions), options); // errors are told here, where they are seen
  const holder = await currentHolder(home);
  if (holder)
    return fail([`${home} is managed by pid ${holder.pid} since ${holder.since}: it runs already`], 1);
  const child = spawnManager(place, options.names);
  const start = startOf(child);
  if (!(await start.began))
    return fail([`the manager ended before it had begun; ${join(home, "logs", "manager.log")} has why`], 1);
  const exitCode = options.wait ? await untilReady(child, start, home, options.timeoutS) : 0;
  child.unref();
  if (child.connected) child.disconnect();
  if (exitCode !== 0) return exitCode;
  const which = place.file === null ? "" : ` -f ${place.file}`;
  console.log(
    `${options.wait ? "Everything is ready. It runs" : "It runs"} in the background: pid ${child.pid}`,
  );
  for (const [verb, does] of [
    ["status", "shows it"],
    ["attach", "shows what it prints"],
    ["down", "stops it"],
  ])
    console.log(`  pugmark ${verb}${which}  ${does}`);
  return 0;
}

/** Tells the process that started us in the background how the start goes. */
export function reportToParent(news: UpNews): void {
  process.send?.(news, undefined, undefined, () => {}); // it may be gone, and that is all right
}

/** The same command line, as `up --background`. */
function spawnManager({ PUGMARK_HOME: home, file }: Place, names: readonly string[]): ChildProcess {
  const logs = join(home, "logs");
  mkdirSync(logs, { recursive: true, mode: 0o700 });
  // The manager writes its log itself. What Node would say of a crash belongs there too.
  const errors = openSync(join(logs, "manager.log"), "a", 0o600);
  const which = file === null ? [] : ["-f", file];
  const line = [process.argv[1] ?? "", "up", "--background", ...which, ...names];
  return spawn(process.execPath, [...process.execArgv, ...line], {
    detached: true,
    stdio: ["ignore", "ignore", errors, "ipc"],
  });
}

/** How the start of a manager in the background goes. */
interface Start {
  /** Whether it has begun, or ended before. */
  readonly began: Promise<boolean>;
  /** What is not as it should be, once that is known; null when it ended before. */
  readonly settled: Promise<readonly string[] | null>;
}

function startOf(child: ChildProcess): Start {
  const began = Promise.withResolvers<boolean>();
  const settled = Promise.withResolvers<readonly string[] | null>();
  child.on("message", (news: UpNews) => {
    if (news.kind === "started") began.resolve(true);
    else settled.resolve(news.problems);
  });
  const end = (): void => {
    began.resolve(false);
    settled.resolve(null);
  };
  child.on("disconnect", end).on("error", end); // not "exit", which may come before the last news is read
  return { began: began.promise, settled: settled.promise };
}

/** Exit code 0 when everything is ready; otherwise says what is not, and stops it all. */
async function untilReady(
  child: ChildProcess,
  start: Start,
  home: string,
  timeoutS: number | undefined,
): Promise<number> {
  const end = new AbortController();
  const { signal } = end;
  const late = timeoutS === undefined ? never() : delay(timeoutS * 1_000, timedOut, { signal }).catch(never);
  const broken = Promise.withResolvers<number>();
  // Until the end of this process: npm and the linked command pass on the Ctrl+C that the terminal has already sent.
  for (const name of interruptions) process.on(name, () => broken.resolve(128 + constants.signals[name]));
  const first = await Promise.race([start.settled, late, broken.promise]);
  end.abort();
  if (typeof first !== "number" && first?.length === 0) return 0;
  const lines = typeof first === "number" ? await notReady(home) : (first ?? ["the manager ended"]);
  await stop(child);
  const why = first === timedOut ? [`not ready within ${timeoutS} s; everything was stopped`] : [];
  return fail([...why, ...lines], typeof first === "number" ? first : 1);
}

async function notReady(home: string): Promise<string[]> {
  const services = await new ControlClient(home).services().catch(() => []);
  return services
    .filter((service) => !isWell(service))
    .map(({ name, state, reason }) => `${name} is ${state}: ${reason}`);
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, "exit");
  child.kill("SIGTERM");
  await exited;
}

function never(): Promise<never> {
  return new Promise(() => {});
}
