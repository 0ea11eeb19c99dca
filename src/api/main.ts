import { ConfigError, loadConfig } from "../config/config.ts";
import { readSupervision } from "../config/supervision.ts";
import { serve } from "../http/serve.ts";
import { openPool } from "../store/pool.ts";
import { createApi } from "./app.ts";

const { config } = settings();
if (!config.DATABASE_URL) {
  fail("DATABASE_URL is not set: the API needs its database; `pugmark up` starts both");
}
const pool = openPool({
  url: config.DATABASE_URL,
  role: config.PUGMARK_DATABASE_ROLE ?? "pugmark_app",
  name: "api",
});
const app = await createApi({ config, pool });
await serve(app, { host: config.HOST, port: config.API_PORT }, readSupervision());
await pool.end();

function settings() {
  try {
    return loadConfig();
  } catch (error) {
    if (error instanceof ConfigError) fail(error.message);
    throw error;
  }
}

function fail(message: string): never {
  console.error(message);
  process.exit(2);
}
