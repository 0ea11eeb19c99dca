import { originOf } from "../config/address.ts";
import { serviceSettings } from "../config/service-settings.ts";
import { readSupervision } from "../config/supervision.ts";
import { serve } from "../http/serve.ts";
import { openPool } from "../store/pool.ts";
import { createAgent } from "./app.ts";
import { Chat } from "./chat.ts";

const config = serviceSettings();
// Whatever a model is talked into, the database lets this server do nothing but read.
const role = config.PUGMARK_DATABASE_ROLE ?? "pugmark_reader";
const pool = openPool({ url: config.DATABASE_URL, role, name: "agent" });
const chatUrl = originOf({ host: config.HOST, port: config.CHAT_PORT });
await using chat = new Chat({ url: chatUrl, key: config.PUGMARK_INTERNAL_KEY });
const app = await createAgent({ config, pool, chat });
await serve(app, { host: config.HOST, port: config.PORT }, readSupervision());
await pool.end();
