import type { LocalHandler } from "../http/local-socket.ts";
import type { Log } from "../http/log.ts";
import type { Pool } from "../store/pool.ts";
import { PositionStore } from "../store/positions.ts";
import { ensureStation } from "../store/sync-state.ts";
import { Inbox } from "./inbox.ts";
import type { ChosenTable } from "./mirror-choice.ts";
import { Project, type ProjectOptions } from "./project.ts";
import { Puller } from "./puller.ts";
import { Pusher } from "./pusher.ts";
import { addDeviceKey, listDeviceKeys, revokeDeviceKey } from "./routes/device-keys.ts";
import { pullRoute } from "./routes/pull.ts";
import { pushRoute } from "./routes/push.ts";
import { retryRoute } from "./routes/retry.ts";
import { statusRoute } from "./routes/status.ts";
import { WakeChannel } from "./wake-channel.ts";

export interface SyncParts {
  /** Acts as `pugmark_app`. */
  readonly pool: Pool;
  readonly project: ProjectOptions & {
    /** The publishable key, where there is one: Realtime is used with that alone. */
    readonly publishableKey?: string | undefined;
  };
  /** What others call this station. */
  readonly stationName: string;
  /** What is mirrored, parents first; see `startRecording`. */
  readonly tables: readonly ChosenTable[];
  readonly log: Log;
}

/** The mirror at work, and what it answers over its socket. */
export interface Sync extends AsyncDisposable {
  /** By method and path. */
  readonly routes: Readonly<Record<string, LocalHandler>>;
}

/** What the routes are made of. */
export interface SyncContext {
  readonly pool: Pool;
  readonly project: Project;
  readonly projectUrl: string;
  /** Id of this station. */
  readonly station: string;
  readonly tables: readonly ChosenTable[];
  readonly pusher: Pusher;
  readonly puller: Puller;
  readonly inbox: Inbox;
}

/** Begins to mirror, and goes on until it is disposed of; `pool` stays open. */
export async function startSync(parts: SyncParts): Promise<Sync> {
  const { pool, tables, stationName, log } = parts;
  const station = await ensureStation(pool, stationName);
  const project = new Project(parts.project);
  const { url, publishableKey } = parts.project;
  const puller = new Puller({ pool, project, log, station });
  const wakes = publishableKey
    ? new WakeChannel({ url, key: publishableKey, log, onWake: () => puller.wake() })
    : undefined;
  const own = { id: station, name: stationName };
  const pusher = new Pusher({ pool, project, log, station: own, tables, onSent: () => wakes?.announce() });
  const inbox = new Inbox({ pool, positions: new PositionStore(pool), project, station, log });
  const context: SyncContext = { pool, project, projectUrl: url, station, tables, pusher, puller, inbox };
  return {
    routes: {
      "GET /livez": async () => ({ status: "ok" }),
      "GET /status": statusRoute(context),
      "POST /push": pushRoute(context),
      "POST /pull": pullRoute(context),
      "POST /retry": retryRoute(context),
      "GET /device-keys": listDeviceKeys(context),
      "POST /device-keys": addDeviceKey(context),
      "DELETE /device-keys": revokeDeviceKey(context),
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([pusher, puller, wakes, inbox].map((part) => part?.[Symbol.asyncDispose]()));
      await project[Symbol.asyncDispose]();
    },
  };
}
