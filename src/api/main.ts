import { serviceSettings } from "../config/service-settings.ts";
import { readSupervision } from "../config/supervision.ts";
import { serve } from "../http/serve.ts";
import { PhotoFiles } from "../store/photo-files.ts";
import { PhotoStore } from "../store/photos.ts";
import { openPool } from "../store/pool.ts";
import { createApi } from "./app.ts";
import { sweepPhotos } from "./photo-sweep.ts";

const config = serviceSettings();
const role = config.PUGMARK_DATABASE_ROLE ?? "pugmark_app";
const pool = openPool({ url: config.DATABASE_URL, role, name: "api" });
const app = await createApi({ config, pool });
const photos = new PhotoStore(pool, new PhotoFiles(config.PUGMARK_HOME));
{
  await using _ = sweepPhotos(photos, app.log);
  await serve(app, { host: config.HOST, port: config.API_PORT }, readSupervision());
}
await pool.end();
