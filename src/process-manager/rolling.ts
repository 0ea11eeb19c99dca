import { isAnnouncement } from "./definition.ts";
import { isUp, type State } from "./lifecycle.ts";
import { canHoldSockets } from "./listening-socket.ts";
import type { ResolvedService } from "./resolve-definitions.ts";

/** Why a service's process cannot be replaced without a gap, in words; null when it can. */
export function gapOf({ listen, readiness }: ResolvedService, state: State): string | null {
  if (!isUp(state)) return `it is ${state}`;
  if (listen?.relay) return null; // the manager itself tells which process gets the next connection
  if (!listen?.hold)
    return "its socket is not held (`listen` with `hold: true`), nor its port relayed (`relay: true`)";
  if (!canHoldSockets) return "sockets cannot be held on this system";
  if (!isAnnouncement(readiness))
    return "it does not say itself that it is ready (`readiness` of kind notify, ipc or log)";
  return null;
}
