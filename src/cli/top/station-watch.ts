import { setTimeout as delay } from "node:timers/promises";
import type { ControlClient } from "../../process-manager/control-client.ts";
import { messageOf, ProcessManagerError } from "../../process-manager/process-manager-error.ts";
import type { MeasuredService } from "../../process-manager/process-usage.ts";
import type { ServiceEvent } from "../../process-manager/service-status.ts";

/** CPU and memory are asked for this often; states come by themselves. */
const measureEveryMs = 2_000;
const reconnectEveryMs = 500;
/** Events that come closer than this share a look at the services. */
const lookSoonMs = 100;

const ended = "the station has ended";

/** What is told of a station while it is watched. */
export interface StationListener {
  readonly onServices: (services: readonly MeasuredService[]) => void;
  /** The station answers, for the first time or again. */
  readonly onConnect: () => void;
  /** It does not, for that reason; it is tried again and again. */
  readonly onAway: (reason: string) => void;
}

/** Tells each change of a station at once and what its services use every 2 s, across its restarts, until the signal. */
export async function watchStation(
  station: ControlClient,
  listener: StationListener,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      await followEvents(station, listener, signal);
      listener.onAway(ended);
    } catch (error) {
      const isGone = error instanceof ProcessManagerError && error.code === "not-running";
      listener.onAway(isGone ? ended : messageOf(error));
    }
    await delay(reconnectEveryMs, undefined, { signal }).catch(() => undefined);
  }
}

async function followEvents(
  station: ControlClient,
  { onServices, onConnect }: StationListener,
  signal: AbortSignal,
): Promise<void> {
  let services: readonly MeasuredService[] = [];
  let isOver = false;
  let timer: NodeJS.Timeout | undefined;
  const lookAfter = (ms: number): void => {
    clearTimeout(timer);
    if (!isOver) timer = setTimeout(look, ms);
  };
  const look = async (): Promise<void> => {
    // It may end meanwhile: so do its events then, and that is told.
    services = await station.services().catch(() => services);
    if (!isOver) onServices(services);
    lookAfter(measureEveryMs);
  };
  try {
    for await (const event of station.events(signal)) {
      if ("service" in event) {
        services = services.map((service) => withEvent(service, event));
        onServices(services);
        lookAfter(lookSoonMs);
      } else {
        onConnect();
        await look();
      }
    }
  } finally {
    isOver = true;
    clearTimeout(timer);
  }
}

function withEvent(service: MeasuredService, event: ServiceEvent): MeasuredService {
  if (service.name !== event.service) return service;
  const { at, from, to, reason } = event;
  return { ...service, state: to, reason, since: from === to ? service.since : at };
}
