import { originOf } from "../config/address.ts";
import { loadConfig } from "../config/config.ts";
import { readSupervision } from "../config/supervision.ts";
import { serve } from "../http/serve.ts";
import { openPool } from "../store/pool.ts";
import { createAgent } from "./app.ts";
import { Chat } from "./chat.ts";

const { config } = loadConfig();
const url = config.DATABASE_URL;
if (url === undefined) {
  console.error("DATABASE_URL is not set: start the station with `npm start`, or name a Postgres.");
  process.exit(2);
}

const pool = openPool({
  url,
  // Whatever a model is talked into, the database lets this server do nothing but read.
  role: config.PUGMARK_DATABASE_ROLE ?? "pugmark_reader",
  name: "agent",
});
await using chat = new Chat({
  url: originOf({ host: config.HOST, port: config.CHAT_PORT }),
  key: config.PUGMARK_INTERNAL_KEY,
});
const app = await createAgent({ config, pool, chat });
await serve(app, { host: config.HOST, port: config.PORT }, readSupervision());
await pool.end();
