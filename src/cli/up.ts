import { setFlagsFromString } from "node:v8";
import { ProcessManager } from "../process-manager/process-manager.ts";
import { ProcessManagerError } from "../process-manager/process-manager-error.ts";
import { type Resolved, resolveDefinitions } from "../process-manager/resolve-definitions.ts";
import { namedBy, startOrder } from "../process-manager/start-order.ts";
import { type ExitOn, watchForEnd } from "./exit-on.ts";
import { exitCodes, fail } from "./failure.ts";
import { oneWishMs, outliveOutput } from "./leaving.ts";
import { openView, type View } from "./live-view.ts";
import { isGood } from "./service-table.ts";
import { StationScreen } from "./station-screen.ts";
import type { WhatRuns, WrittenServices } from "./what-runs.ts";

/** What was asked of `pugmark up` beside what it runs. */
export interface UpOptions {
  /** Services to start, with what they depend on; all where there are none. */
  readonly names: readonly string[];
  /** Show no output of services. */
  readonly quiet?: boolean;
  readonly exitOn?: ExitOn | undefined;
  /** Hears how the start goes. */
  readonly report?: (news: UpNews) => void;
}

/** How a start goes: `started` once the manager runs; then `settled`, with what is not as it should be. */
export type UpNews =
  | { readonly kind: "started"; readonly pid: number }
  | { readonly kind: "settled"; readonly problems: readonly string[] };

/**
 * `pugmark up`: runs a station in the foreground until a signal or `pugmark down`. Exit code 0 after a stop
 * that was asked for, 1 where a service could not be started (all others are then stopped too), 2 for an unknown one;
 * with `exitOn`, that of the service.
 */
export async function up(what: WhatRuns, options: UpOptions): Promise<number> {
  const { names, quiet = false, exitOn, report = () => {} } = options;
  const startedAt = performance.now();
  // A manager waits most of its life: what the optimizing compilers would take, 6 MiB, is worth more than their speed.
  for (const flag of ["--no-opt", "--no-maglev"]) setFlagsFromString(flag);
  let manager: ProcessManager;
  let written: WrittenServices;
  let definitions: Resolved[];
  try {
    written = await what.load();
    definitions = resolveDefinitions(written.definitions);
    checkNames(definitions, options); // told whatever else there is to say
    const { home, environment } = what;
    const reload = async () => (await what.load()).definitions;
    manager = await ProcessManager.open({ ...written, home, reload, baseEnv: environment });
  } catch (error) {
    if (!(error instanceof ProcessManagerError)) throw error;
    return fail([...error.message.split("\n"), ...remedies(error)], exitCodes[error.code] ?? 1);
  }
  // Its logs are in their files.
  outliveOutput();
  report({ kind: "started", pid: process.pid });
  using view = openView(process.stdout);
  const screen = new StationScreen(view, manager.services(), "Ctrl+C stops the station");
  manager.onEvent((event) => screen.showEvent(event));
  if (!quiet) void showLines(manager, screen);
  stopOnSignals(manager, view);
  let endCode: number | null = null;
  if (exitOn) {
    const services = namedBy(exitOn.name, definitions).filter((one) => one.kind !== "external");
    watchForEnd(manager, exitOn, services, (exitCode) => {
      endCode = exitCode;
      void manager.stopAll();
    });
  }

  // Watched ones are part of the picture even where only some services were asked for.
  const watched = definitions.filter(({ kind }) => kind === "external").map(({ name }) => name);
  const wanted = exitOn ? [...names, exitOn.name] : names;
  await manager.start(names.length > 0 ? [...wanted, ...watched] : undefined);
  const own = (await manager.whenSettled()).filter(({ kind }) => kind !== "external");
  const problems = own
    .filter((record) => !isGood(record))
    .map(({ name, state, reason }) => `${name} is ${state}: ${reason}`);
  report({ kind: "settled", problems });
  const failed = own.filter(({ state }) => state === "failed");
  if (failed.length > 0 && endCode === null) {
    await manager.stopAll();
    view.setFoot([]);
    return fail(
      failed.map(({ name, reason }) => `${name} could not be started: ${reason}`),
      1,
    );
  }
  if (problems.length === 0)
    for (const line of written.welcome(manager.services(), performance.now() - startedAt)) view.print(line);
  await manager.closed;
  view.print("The station has stopped.");
  if (exitOn && endCode === null) return fail([`${exitOn.name} was stopped before its end`], 1);
  return endCode ?? 0;
}

/** Throws `service-unknown` for a name that there is not. */
export function checkNames(definitions: readonly Resolved[], { names, exitOn }: UpOptions): void {
  startOrder(definitions, exitOn ? [...names, exitOn.name] : names);
}

function remedies({ code }: ProcessManagerError): string[] {
  return code === "home-held"
    ? ["pugmark status shows it, pugmark down stops it; another PUGMARK_HOME is another station"]
    : [];
}

async function showLines(manager: ProcessManager, screen: StationScreen): Promise<void> {
  for await (const line of manager.subscribeLogs()) await screen.showLine(line);
}

function stopOnSignals(manager: ProcessManager, view: View): void {
  let firstAt = Number.POSITIVE_INFINITY;
  const stop = () => {
    const now = performance.now();
    if (now - firstAt > oneWishMs) {
      view.print("Ending everything at once …");
      void manager.stopAll({ force: true });
    } else if (firstAt === Number.POSITIVE_INFINITY) {
      firstAt = now;
      view.print("Stopping … (again to force)");
      void manager.stopAll();
    }
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, stop);
}
