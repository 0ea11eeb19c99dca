import { startTestPostgres, type TestPostgres } from "./postgres.ts";

let postgres: TestPostgres | undefined;

/** One Postgres for the whole run; each file clones a database of its own from its template. */
export async function globalSetup(): Promise<void> {
  postgres = await startTestPostgres();
  process.env.TEST_POSTGRES_URL = postgres.url;
}

export async function globalTeardown(): Promise<void> {
  await postgres?.[Symbol.asyncDispose]();
}
