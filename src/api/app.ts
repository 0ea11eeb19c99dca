import { join } from "node:path";
import type { Config } from "../config/config.ts";
import { type App, createApp } from "../http/app.ts";
import { PhotoFiles } from "../store/photo-files.ts";
import { PhotoStore } from "../store/photos.ts";
import { type Pool, ping } from "../store/pool.ts";
import { PositionStore } from "../store/positions.ts";
import { statusOf } from "./api-error.ts";
import { functionRoutes } from "./routes/functions.ts";
import { ingestRoutes } from "./routes/ingest.ts";
import { Photo, photoRoutes } from "./routes/photos.ts";
import { positionRoutes } from "./routes/positions.ts";
import { Subject, subjectRoutes } from "./routes/subjects.ts";
import { syncRoutes } from "./routes/sync.ts";
import { systemRoutes } from "./routes/system.ts";
import { FeatureCollection, Ingested, Position } from "./schemas.ts";

export interface ApiParts {
  readonly config: Config;
  /** Acts as `pugmark_app`. */
  readonly pool: Pool;
  /** Epoch milliseconds now. Default `Date.now`. */
  readonly clock?: () => number;
}

/** The tracking API: where positions come in and tracks go out. */
export async function createApi({ config, pool, clock = Date.now }: ApiParts): Promise<App> {
  const app = await createApp({
    name: "api",
    title: "Pugmark tracking API",
    description:
      "Positions in, tracks out. Times are RFC 3339 UTC, positions WGS 84 degrees, lengths metres.",
    config,
    statusOf,
    readiness: { database: () => ping(pool) },
  });
  for (const schema of [Position, FeatureCollection, Ingested, Subject, Photo]) app.addSchema(schema);
  await ingestRoutes(app, { positions: new PositionStore(pool), clock });
  positionRoutes(app, { pool });
  subjectRoutes(app, { pool });
  await photoRoutes(app, { pool, photos: new PhotoStore(pool, new PhotoFiles(config.PUGMARK_HOME)) });
  functionRoutes(app, { url: config.SUPABASE_URL, key: config.SUPABASE_KEY });
  systemRoutes(app, { controlSocket: join(config.PUGMARK_HOME, "control.sock") });
  syncRoutes(app, { pool });
  return app;
}
