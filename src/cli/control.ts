import { resolve } from "node:path";
import { styleText } from "node:util";
import { projectRoot } from "../config/config.ts";
import { ControlClient } from "../process-manager/control-client.ts";
import { ProcessManagerError } from "../process-manager/process-manager-error.ts";
import type { MeasuredService } from "../process-manager/process-usage.ts";
import { ownServices } from "./completion.ts";
import { exitCodes, fail } from "./failure.ts";
import { wrap } from "./fit-line.ts";
import { untilInterrupted, untilNobodyReads } from "./leaving.ts";
import type { Home, Place } from "./place.ts";
import { isGood, isWell, serviceTable, whyOf } from "./service-table.ts";
import { styledState } from "./state-style.ts";

/** `pugmark status`. Exit code 0 when every service is ready, 1 when one is not, 3 when no station runs. */
export async function status(place: Place, json: boolean): Promise<number> {
  return await withStation(place, async (station) => {
    const services = await station.services();
    if (json) console.log(JSON.stringify({ services }, null, 2));
    else printServices(services);
    return services.every(isWell) ? 0 : 1;
  });
}

/** `pugmark metrics`: what a Prometheus would read. */
export async function metrics(place: Place): Promise<number> {
  return await withStation(place, async (station) => {
    process.stdout.write(await station.metrics());
    return 0;
  });
}

/** `pugmark events`: every service as it is, and each change from then on, until the station or the reader ends. */
export async function events(place: Place, json: boolean): Promise<number> {
  return await withStation(place, async (station) => {
    for await (const item of station.events(untilLeft())) {
      if (json) console.log(JSON.stringify(item));
      else if ("service" in item) printEvent(item.at, item.service, item.to, item.reason);
      else for (const { since, name, state, reason } of item.services) printEvent(since, name, state, reason);
    }
    return 0;
  });
}

function printEvent(at: string, name: string, state: string, reason: string): void {
  const time = styleText("dim", new Date(at).toLocaleString("sv-SE")); // local, and reads like an ISO time
  console.log(`${time} ${name}: ${styledState(state)} (${reason})`);
}

/**
 * `pugmark start|restart|stop NAME…`, where a name may be that of replicas, which then take turns; each is done when it
 * returns. `isRolling`: a restart that would leave a gap is refused.
 */
export async function change(
  place: Place,
  verb: "start" | "restart" | "stop",
  names: readonly string[],
  isRolling = false,
): Promise<number> {
  return await withStation(place, async (station) => {
    const services = await station.services();
    const own = services.filter(({ kind }) => kind !== "external").map(({ name }) => name);
    const named = names.flatMap((name) => {
      const replicas = services.filter(({ group }) => group === name);
      return replicas.length > 0 ? replicas.map((replica) => replica.name) : [name];
    });
    for (const name of names.length > 0 ? named : own.reverse()) {
      const { state, reason } = await (verb === "restart"
        ? station.restart(name, isRolling)
        : station[verb](name));
      console.log(`${name}: ${styledState(state)} (${reason})`);
    }
    return 0;
  });
}

/** `pugmark down`: returns when nothing of the station runs any more. */
export async function down(place: Place): Promise<number> {
  return await withStation(place, async (station) => {
    await station.down();
    console.log("The station has stopped.");
    return 0;
  });
}

/** The services of the station that runs in this home, or undefined where none does. */
export async function runningServices(place: Home): Promise<MeasuredService[] | undefined> {
  try {
    return await new ControlClient(place.PUGMARK_HOME).services();
  } catch (error) {
    if (error instanceof ProcessManagerError && error.code === "not-running") return undefined;
    throw error;
  }
}

/** What can follow a verb: the services of the station that runs, and what replicas share as a name; else our own. */
export async function completableServices(place: Home): Promise<string[]> {
  const services = await runningServices(place);
  if (!services) return ownServices;
  const own = services.filter(({ kind }) => kind !== "external");
  return [...new Set(own.flatMap(({ group, name }) => [group, name]))];
}

/** Aborts at Ctrl+C, and when a pager was closed that wants no more lines. */
function untilLeft(): AbortSignal {
  return AbortSignal.any([untilInterrupted(), untilNobodyReads(process.stdout)]);
}

/** Does the work with the station of this home; where none runs, or it refuses, says so and gives the exit code. */
export async function withStation(
  place: Place,
  work: (station: ControlClient) => Promise<number>,
): Promise<number> {
  try {
    return await work(new ControlClient(place.PUGMARK_HOME));
  } catch (error) {
    if (!(error instanceof ProcessManagerError)) throw error;
    const exitCode = exitCodes[error.code] ?? 1;
    if (error.code !== "not-running") return fail(error.message.split("\n"), exitCode);
    return fail([`no station runs in ${place.PUGMARK_HOME}; ${upCommand(place)} starts one`], exitCode);
  }
}

/** What starts a station there. In a project's folder only its file does: without one, it would be the tracking station. */
function upCommand({ PUGMARK_HOME, file }: Place): string {
  if (file !== null) return `pugmark up -f ${file}`;
  const isHere = PUGMARK_HOME === resolve(".pugmark") && process.cwd() !== projectRoot;
  return isHere ? "pugmark up -f FILE" : "pugmark up";
}

function printServices(services: readonly MeasuredService[]): void {
  // Only a terminal has a width: a file or a pipe gets whole lines.
  const columns = process.stdout.isTTY ? process.stdout.columns : Number.POSITIVE_INFINITY;
  const { heading, rows, showsWhy } = serviceTable(services, columns);
  console.log(styleText("dim", heading));
  for (const [index, service] of services.entries()) {
    console.log(rows[index]);
    if (showsWhy || isGood(service)) continue;
    for (const line of wrap(whyOf(service), columns - 4)) console.log(styleText("dim", `    ${line}`));
  }
}
