import { readFileSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import { projectRoot } from "../../../src/config/config.ts";
import { embeddedPostgres } from "../../../src/store/embedded-postgres.ts";
import { testStation } from "../../../test/support/station.ts";
import type { Gateway, RunningGateway } from "./gateway.ts";

/** A station of its own, database and all: every call is on disk before it is answered. */
export const pugmark: Gateway = {
  title: "Pugmark",
  version: async () => JSON.parse(readFileSync(join(projectRoot, "package.json"), "utf8")),
  start: startPugmark,
};

export async function startPugmark(
  lmStudio: string,
  environment: Readonly<Record<string, string>> = {},
): Promise<RunningGateway> {
  const station = await testStation({
    DEEPSEEK_API_URL: lmStudio,
    LOG_LEVEL: "warn",
    // So that a stalled model shows within a run.
    API_TIMEOUT: "2",
    API_FIRST_TOKEN_TIMEOUT: "3",
    ...environment,
  });
  await station.start("chat");
  const services = await station.services();
  const pid = services.find(({ name }) => name === "chat")?.pid;
  return {
    origin: station.chat,
    headers: {},
    pids: () => (pid ? [pid] : []),
    logged: async (text) => {
      const database = {
        folder: join(station.home, "database"),
        port: Number(station.environment.DATABASE_PORT),
      };
      const client = new pg.Client({ connectionString: embeddedPostgres(database).url("owner") });
      await client.connect();
      const { rows } = await client.query(
        "select count(*) from interactions where outcome = 'ok' and strpos(prompt::text, $1) > 0",
        [text],
      );
      await client.end();
      return Number(rows[0].count);
    },
    [Symbol.asyncDispose]: () => station[Symbol.asyncDispose](),
  };
}
