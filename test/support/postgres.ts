import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { projectRoot } from "../../src/config/config.ts";
import { embeddedPostgres } from "../../src/store/embedded-postgres.ts";
import { migrate } from "../../src/store/migrate.ts";
import { freePort } from "./ports.ts";

/** A throw-away Postgres. `url` leads to a migrated database that others are cloned from. */
export interface TestPostgres extends AsyncDisposable {
  readonly url: string;
}

const shared = "TEST_POSTGRES_URL";

/**
 * Starts one and migrates its template; what a run of several test files does once for all of them. Only a `durable`
 * one waits for the disk.
 */
export async function startTestPostgres({ durable = false } = {}): Promise<TestPostgres> {
  const home = mkdtempSync(join(tmpdir(), "pugmark-postgres-"));
  const port = await freePort();
  const careless = ["fsync=off", "synchronous_commit=off", "full_page_writes=off"];
  const settings = [...(durable ? [] : careless), "max_connections=200"];
  const postgres = embeddedPostgres({ folder: join(home, "database"), port, settings });
  await postgres.prepare();
  const [program, ...args] = postgres.command;
  const child = spawn(program, args, { ...postgres.user, stdio: ["ignore", "ignore", "pipe"] });
  // Its log is read to the end, so that it never waits for a full pipe, and shown where it does not come up.
  let log = "";
  child.stderr.on("data", (data) => {
    log = (log + data).slice(-4_000);
  });
  await waitUntilUp(postgres.check, child, () => log);
  await postgres.createDatabase();
  await migrate(postgres.url("owner"), join(projectRoot, "supabase/migrations"));
  await postgres.grantLogins();
  return {
    url: postgres.url("owner"),
    async [Symbol.asyncDispose]() {
      child.kill("SIGINT");
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
      rmSync(home, { recursive: true, force: true });
    },
  };
}

/** A fresh database with the whole schema, for one test file. Dropped when disposed of. */
export interface TestDatabase extends AsyncDisposable {
  /** As the owner of the schema. */
  readonly url: string;
}

/** Clones the template of the run's Postgres, or of one of its own where the file is run alone. */
export async function testDatabase(): Promise<TestDatabase> {
  const given = process.env[shared];
  const own = given === undefined ? await startTestPostgres() : undefined;
  const template = new URL(given ?? own?.url ?? "");
  const name = `test_${process.pid}_${Math.random().toString(36).slice(2, 10)}`;
  const admin = new URL(template);
  admin.pathname = "/postgres";
  await execute(admin.href, `create database ${name} template ${template.pathname.slice(1)}`);
  const url = new URL(template);
  url.pathname = `/${name}`;
  return {
    url: url.href,
    async [Symbol.asyncDispose]() {
      await execute(admin.href, `drop database ${name} with (force)`);
      await own?.[Symbol.asyncDispose]();
    },
  };
}

async function execute(url: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  // Cloning locks the template; files that start together take turns.
  await client.query("select pg_advisory_lock(1)");
  await client.query(statement).finally(() => client.end());
}

async function waitUntilUp(
  check: () => Promise<void>,
  child: { exitCode: number | null },
  log: () => string,
): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (child.exitCode === null && Date.now() < deadline) {
    const up = await check().then(
      () => true,
      () => new Promise<boolean>((resolve) => setTimeout(resolve, 25, false)),
    );
    if (up) return;
  }
  throw new Error(`Postgres did not come up: ${log()}`);
}
