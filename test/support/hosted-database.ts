import { randomBytes } from "node:crypto";
import pg from "pg";
import { testDatabase } from "./postgres.ts";

/** A database as Supabase hands one out: empty, its owner no superuser, with what the platform has put into it. */
export interface HostedDatabase extends AsyncDisposable {
  /** As its owner. */
  readonly url: string;
  /** As a superuser. */
  readonly adminUrl: string;
}

/** Makes one in the run's Postgres. The roles that pugmark's migrations make are there, as its owner's own. */
export async function hostedDatabase(): Promise<HostedDatabase> {
  const neighbour = await testDatabase();
  const name = `hosted_${randomBytes(6).toString("hex")}`;
  const password = randomBytes(12).toString("hex");
  await execute(neighbour.url, [
    `create role ${name} login createrole createdb password '${password}'`,
    `grant anon, authenticated, service_role, pugmark_app, pugmark_reader to ${name} with admin option`,
    `create database ${name} owner ${name}`,
  ]);
  const adminUrl = new URL(neighbour.url);
  adminUrl.pathname = `/${name}`;
  await execute(adminUrl.href, [
    // Nobody but the platform may change these.
    "create schema auth",
    `create function auth.uid() returns uuid language sql stable
       return (current_setting('request.jwt.claims', true)::jsonb ->> 'sub')::uuid`,
    `grant usage on schema auth to ${name}, anon, authenticated, service_role`,
    `create schema extensions authorization ${name}`,
    // Until the autumn of 2026, each new table of the schema public was everybody's.
    ...["tables", "functions", "sequences"].map(
      (what) =>
        `alter default privileges for role ${name} in schema public grant all on ${what} to anon, authenticated, service_role`,
    ),
  ]);
  const url = new URL(adminUrl);
  url.username = name;
  url.password = password;
  return {
    url: url.href,
    adminUrl: adminUrl.href,
    async [Symbol.asyncDispose]() {
      await execute(neighbour.url, [
        `drop database ${name} with (force)`,
        `revoke anon, authenticated, service_role, pugmark_app, pugmark_reader from ${name} cascade`,
        `drop role ${name}`,
      ]);
      await neighbour[Symbol.asyncDispose]();
    },
  };
}

async function execute(url: string, statements: readonly string[]): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}
