import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import { type Config, loadConfig } from "../config/config.ts";
import type { App } from "../http/app.ts";
import { openPool, type Pool } from "../store/pool.ts";
import { createApi } from "./app.ts";

type Reply = Awaited<ReturnType<App["inject"]>>;

/** An API over a fresh database, for one test file. */
export interface TestApi extends AsyncDisposable {
  readonly app: App;
  readonly pool: Pool;
  readonly database: TestDatabase;
  get(path: string, accept?: string): Promise<Reply>;
  post(path: string, body: unknown, type?: string): Promise<Reply>;
}

/** Builds it; `environment` as in `loadConfig`. */
export async function testApi(environment: NodeJS.ProcessEnv = {}): Promise<TestApi> {
  const database = await testDatabase();
  const pool = openPool({ url: database.url, role: "pugmark_app", name: "test" });
  const app = await createApi({ config: testConfig(environment), pool });
  return {
    app,
    pool,
    database,
    get: (url, accept) => app.inject({ url, headers: { host: "127.0.0.1", ...(accept ? { accept } : {}) } }),
    post: (url, body, type = "application/json") =>
      app.inject({
        method: "POST",
        url,
        headers: { host: "127.0.0.1", "content-type": type },
        payload: typeof body === "string" ? body : JSON.stringify(body),
      }),
    async [Symbol.asyncDispose]() {
      await app.close();
      await pool.end();
      await database[Symbol.asyncDispose]();
    },
  };
}

/** Settings that no `.env` of the machine has a part in. */
export function testConfig(environment: NodeJS.ProcessEnv = {}): Config {
  return loadConfig({ LOG_LEVEL: "fatal", ...environment }, "/nowhere/.env").config;
}
