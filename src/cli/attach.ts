import type { ControlClient } from "../process-manager/control-client.ts";
import { withStation } from "./control.ts";
import { untilNobodyReads } from "./leaving.ts";
import { openView } from "./live-view.ts";
import type { Place } from "./place.ts";
import { StationScreen } from "./station-screen.ts";

/** Lines of each service that come first. */
const tailLines = 10;

/** `pugmark attach`: what `up` would show of a station that runs, until it ends or Ctrl+C, which only looks away. */
export async function attach(place: Place): Promise<number> {
  return await withStation(place, async (station) => {
    const leave = new AbortController();
    // Not `once`: npm and the linked command pass on the Ctrl+C that the terminal has already sent.
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => leave.abort());
    untilNobodyReads(process.stdout).addEventListener("abort", () => leave.abort());
    using view = openView(process.stdout);
    const screen = new StationScreen(view, await station.services(), "Ctrl+C leaves; the station goes on");
    await Promise.all([showEvents(station, screen, leave.signal), showLines(station, screen, leave.signal)]);
    view.print(leave.signal.aborted ? "Left. The station goes on." : "The station has stopped.");
    return 0;
  });
}

async function showEvents(station: ControlClient, screen: StationScreen, signal: AbortSignal): Promise<void> {
  for await (const event of station.events(signal)) if ("service" in event) screen.showEvent(event);
}

async function showLines(station: ControlClient, screen: StationScreen, signal: AbortSignal): Promise<void> {
  for await (const line of station.logs({ tailLines, signal })) await screen.showLine(line);
}
