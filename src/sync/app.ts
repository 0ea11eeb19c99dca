import type { LocalHandler } from "../http/local-socket.ts";
import type { Log } from "../http/log.ts";
import { PhotoFiles } from "../store/photo-files.ts";
import { notePhotosBucket } from "../store/photo-transfers.ts";
import { PhotoStore } from "../store/photos.ts";
import type { Pool } from "../store/pool.ts";
import { PositionStore } from "../store/positions.ts";
import { ensureStation } from "../store/sync-state.ts";
import { Inbox } from "./inbox.ts";
import type { ChosenTable } from "./mirror-choice.ts";
import { PhotoMirror } from "./photos.ts";
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
  /** Where the files of photos are here and there; absent: they stay here. */
  readonly photos?: { readonly home: string; readonly bucket: string } | undefined;
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
  /** Absent where files of photos stay here. */
  readonly photos: PhotoMirror | undefined;
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
  const onSent = () => wakes?.announce();
  const onDeleted = () => puller.hurry();
  const pusher = new Pusher({ pool, project, log, station: own, tables, onSent, onDeleted });
  const inbox = new Inbox({ pool, positions: new PositionStore(pool), project, station, log });
  await notePhotosBucket(pool, parts.photos?.bucket ?? null);
  const photos = parts.photos && startPhotos({ pool, project, log, ...parts.photos });
  const context = { pool, project, projectUrl: url, station, tables, pusher, puller, inbox, photos };
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
      await Promise.all([pusher, puller, wakes, inbox, photos].map((part) => part?.[Symbol.asyncDispose]()));
      await project[Symbol.asyncDispose]();
    },
  };
}

function startPhotos(
  parts: Pick<SyncContext, "pool" | "project"> & Pick<SyncParts, "log"> & NonNullable<SyncParts["photos"]>,
): PhotoMirror {
  return new PhotoMirror({ ...parts, store: new PhotoStore(parts.pool, new PhotoFiles(parts.home)) });
}
