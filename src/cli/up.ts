import { styleText } from "node:util";
import { setFlagsFromString } from "node:v8";
import { originOf } from "../config/address.ts";
import type { Config } from "../config/config.ts";
import { ProcessManager } from "../process-manager/process-manager.ts";
import { ProcessManagerError } from "../process-manager/process-manager-error.ts";
import type { ServiceEvent, ServiceRecord } from "../process-manager/service-status.ts";
import { fail } from "./failure.ts";
import { openView, type View } from "./live-view.ts";
import { readableLine } from "./log-line.ts";
import { styledName, styledState } from "./state-style.ts";
import { stationDefinitions } from "./station.ts";

/** Ctrl+C reaches us from the terminal and once more from npm: what comes this close is one wish. */
const oneWishMs = 400;

/**
 * `pugmark up`: runs a station in the foreground until a signal or `pugmark down`. Exit code 0 after a stop
 * that was asked for, 1 where a service could not be started (all others are then stopped too).
 */
export async function up(
  config: Config,
  names: readonly string[],
  environment: NodeJS.ProcessEnv,
): Promise<number> {
  const startedAt = performance.now();
  // A manager waits most of its life: what the optimizing compilers would take, 6 MiB, is worth more than their speed.
  for (const flag of ["--no-opt", "--no-maglev"]) setFlagsFromString(flag);
  const definitions = stationDefinitions(config);
  let manager: ProcessManager;
  try {
    manager = await ProcessManager.open({ home: config.PUGMARK_HOME, definitions, baseEnv: environment });
  } catch (error) {
    if (!(error instanceof ProcessManagerError)) throw error;
    const remedy =
      error.code === "home-held"
        ? ["pugmark status shows it, pugmark down stops it; another PUGMARK_HOME is another station"]
        : [];
    return fail([error.message, ...remedy], 1);
  }
  // Nobody reads our output any more: the station goes on, and its logs are in their files.
  process.stdout.on("error", () => {});
  using view = openView(process.stdout);
  const width = Math.max(...definitions.map(({ name }) => name.length));
  showEvents(manager, view, width);
  void showLogs(manager, view, width);
  stopOnSignals(manager, view);

  // Watched ones are part of the picture even where only some services were asked for.
  const watched = definitions.filter(({ kind }) => kind === "external").map(({ name }) => name);
  try {
    await manager.start(names.length > 0 ? [...names, ...watched] : undefined);
  } catch (error) {
    await manager.stopAll();
    if (error instanceof ProcessManagerError)
      return fail([error.message], error.code === "service-unknown" ? 2 : 1);
    throw error;
  }
  const own = (await manager.whenSettled()).filter(({ kind }) => kind === "service");
  const failed = own.filter(({ state }) => state === "failed");
  if (failed.length > 0) {
    await manager.stopAll();
    view.setFoot([]);
    return fail(
      failed.map(({ name, reason }) => `${name} could not be started: ${reason}`),
      1,
    );
  }
  if (own.every(({ state }) => state === "ready"))
    welcome(config, manager, view, performance.now() - startedAt);
  await manager.closed;
  view.print("The station has stopped.");
  return 0;
}

function showEvents(manager: ProcessManager, view: View, width: number): void {
  const foot = () =>
    view.setFoot(["", statusLine(manager.services()), styleText("dim", "Ctrl+C stops the station")]);
  manager.onEvent((event: ServiceEvent) => {
    if (event.from !== event.to) {
      view.print(
        `${styledName(event.service, width)} ${styleText("dim", "·")} ${styledState(event.to)} (${event.reason})`,
      );
    }
    foot();
  });
  foot();
}

async function showLogs(manager: ProcessManager, view: View, width: number): Promise<void> {
  for await (const { service, line } of manager.subscribeLogs()) {
    view.print(`${styledName(service, width)} ${styleText("dim", "|")} ${readableLine(line)}`);
    await view.ready();
  }
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

function statusLine(services: readonly ServiceRecord[]): string {
  return services.map(({ name, state }) => `${name} ${styledState(state)}`).join("  ");
}

function welcome(config: Config, manager: ProcessManager, view: View, tookMs: number): void {
  const address = (port: number) => originOf({ host: config.HOST, port });
  const services = manager.services();
  const runs = (name: string) =>
    services.some((service) => service.name === name && service.state === "ready");
  view.print("");
  view.print(styleText("bold", `The station is ready (${(tookMs / 1000).toFixed(1)} s).`));
  if (runs("api")) view.print(`  API    ${address(config.API_PORT)}/docs`);
  if (runs("agent")) view.print(`  Agent  ${address(config.PORT)}/docs`);
  if (runs("chat")) view.print(`  Chat   ${address(config.CHAT_PORT)}/docs`);
  const lmStudio = services.find(({ name }) => name === "lm-studio");
  if (lmStudio && lmStudio.state !== "ready") {
    view.print(
      `  LM Studio is away (${lmStudio.reason}): tracking works, questions wait for it. pugmark doctor helps.`,
    );
  }
  view.print("");
}
