import { once } from "node:events";
import { writeSync } from "node:fs";
import { hostname } from "node:os";
import { serviceSettings } from "../config/service-settings.ts";
import { readSupervision } from "../config/supervision.ts";
import { localSocketPath, serveLocally } from "../http/local-socket.ts";
import { openLog } from "../http/log.ts";
import { openPool } from "../store/pool.ts";
import { startSync } from "./app.ts";
import { giveWay } from "./priority.ts";
import { startRecording } from "./recording.ts";
import { SyncError, syncStatusOf } from "./sync-error.ts";

const config = serviceSettings("SUPABASE_SERVICE_ROLE");
const { SUPABASE_URL: url, SUPABASE_SERVICE_ROLE: key, PUGMARK_HOME: home } = config;
if (url === undefined || key === undefined) fail("SUPABASE_URL and SUPABASE_SERVICE_ROLE are not both set");
giveWay();

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());

const log = openLog("sync", config);
const role = config.PUGMARK_DATABASE_ROLE ?? "pugmark_app";
const pool = openPool({ url: config.DATABASE_URL, role, name: "sync" });
const choice = { names: config.SUPABASE_MIRROR, precisionM: config.SUPABASE_POSITION_PRECISION_M };
const tables = await startRecording(pool, choice).catch((error: unknown) => {
  if (error instanceof SyncError) fail(error.message);
  throw error;
});
{
  const bucket = config.SUPABASE_PHOTOS_BUCKET;
  if (bucket !== undefined && !tables.some(({ name }) => name === "photos"))
    log.warn({ bucket }, "no photo is sent: SUPABASE_MIRROR, or the rounding of positions, leaves them out");
  const stationName = config.STATION_NAME ?? hostname();
  await using sync = await startSync({
    pool,
    project: { url, key, publishableKey: config.SUPABASE_KEY },
    stationName,
    tables,
    photos: bucket === undefined ? undefined : { home, bucket },
    log,
  });
  const onError = (err: unknown) => log.error({ err }, "request failed");
  const path = localSocketPath(home, "sync");
  await using _ = await serveLocally({ path, routes: sync.routes, statusOf: syncStatusOf, onError });
  const { notifyFd } = readSupervision();
  if (notifyFd !== undefined) writeSync(notifyFd, "READY=1\n");
  log.info({ project: new URL(url).origin, tables: tables.map(({ name }) => name) }, "mirroring");
  if (!stop.signal.aborted) await once(stop.signal, "abort");
}
await pool.end();
// supabase-js leaves a timer behind, for ten seconds, of a connection that it has closed.
process.exit();

function fail(why: string): never {
  process.stderr.write(`${why}\n`);
  process.exit(2);
}
