import { serviceSettings } from "../config/service-settings.ts";
import { readSupervision } from "../config/supervision.ts";
import { serve } from "../http/serve.ts";
import { openPool } from "../store/pool.ts";
import { createChat } from "./app.ts";

const config = serviceSettings();
const role = config.PUGMARK_DATABASE_ROLE ?? "pugmark_app";
const pool = openPool({ url: config.DATABASE_URL, role, name: "chat" });
const app = await createChat({ config, pool });
await serve(app, { host: config.HOST, port: config.CHAT_PORT }, readSupervision());
await pool.end();
