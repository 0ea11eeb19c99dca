import { ConfigError, loadConfig } from "../config/config.ts";
import { readSupervision } from "../config/supervision.ts";
import { serve } from "../http/serve.ts";
import { openPool } from "../store/pool.ts";
import { createChat } from "./app.ts";

const { config } = settings();
const url = config.DATABASE_URL;
if (url === undefined) {
  fail("DATABASE_URL is not set: start the station with `npm start`, or name a Postgres.");
}

const pool = openPool({ url, name: "chat", role: config.PUGMARK_DATABASE_ROLE ?? "pugmark_app" });
const app = await createChat({ config, pool });
await serve(app, { host: config.HOST, port: config.CHAT_PORT }, readSupervision());
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
