import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import { StoreError } from "./errors.ts";

export interface Migration {
  readonly version: string;
  readonly name: string;
  readonly sql: string;
  readonly checksum: string;
}

/** Any number, as long as nothing else in this database locks it: migrators queue on it. */
const lockKey = 7_203_000;

/**
 * Brings a database to the newest schema: every file of `folder` that it lacks, in order of version, each in
 * its own transaction, under a lock that several starting stations share. Gives the names it applied. What the
 * Supabase CLI has applied counts as applied, and it in turn is told what was applied here.
 * Throws `StoreError` `migration-changed` or `migration-missing` where the recorded ones and the files
 * differ, `migration-failed` with the database's words where one cannot be applied.
 */
export async function migrate(url: string, folder: string): Promise<string[]> {
  const client = new pg.Client({ connectionString: url, application_name: "pugmark-migrate" });
  client.on("error", () => {});
  await client.connect();
  try {
    await client.query("select pg_advisory_lock($1)", [lockKey]);
    await client.query(record);
    const files = readMigrations(folder);
    await exchangeRecords(client, files);
    const { rows } = await client.query<{ version: string; name: string; checksum: string }>(
      "select version, name, checksum from pugmark_migrations.applied order by version",
    );
    const pending = pendingOf(files, rows);
    for (const migration of pending) await apply(client, migration);
    return pending.map(({ version, name }) => `${version}_${name}`);
  } finally {
    await client.end();
  }
}

const record = `
  create schema if not exists pugmark_migrations;
  create table if not exists pugmark_migrations.applied (
    version text primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default now()
  );
  alter table pugmark_migrations.applied enable row level security;
  create schema if not exists supabase_migrations;
  create table if not exists supabase_migrations.schema_migrations (version text primary key, statements text[], name text);`;

/** Our record has checksums, the Supabase CLI's is what `supabase db push` goes by. It may hold the owner's own migrations. */
async function exchangeRecords(client: pg.Client, files: readonly Migration[]): Promise<void> {
  await client.query(
    `insert into pugmark_migrations.applied (version, name, checksum)
     select file.* from unnest($1::text[], $2::text[], $3::text[]) as file (version, name, checksum)
     join supabase_migrations.schema_migrations s on s.version = file.version
     on conflict (version) do nothing`,
    [
      files.map(({ version }) => version),
      files.map(({ name }) => name),
      files.map(({ checksum }) => checksum),
    ],
  );
  await client.query(tellCli);
}

const tellCli = `insert into supabase_migrations.schema_migrations (version, name)
  select version, name from pugmark_migrations.applied on conflict (version) do nothing;`;

/**
 * All migrations that a database lacks, as one script that also records them, for the Supabase CLI too: for where SQL can
 * be pasted and no connection be had. `applied` are the versions that are there.
 */
export function migrationScript(folder: string, applied: readonly string[]): string {
  const pending = readMigrations(folder).filter(({ version }) => !applied.includes(version));
  const steps = pending.map(
    ({ version, name, sql, checksum }) =>
      `-- ${version}_${name}.sql\n${sql.trimEnd()}\n\n` +
      `insert into pugmark_migrations.applied (version, name, checksum) values ('${version}', '${name}', '${checksum}');\n`,
  );
  return ["begin;", record.trim(), ...steps, tellCli, "commit;", ""].join("\n\n");
}

/** The migrations in a folder, in the order of their versions. Throws `StoreError` `migration-failed`. */
export function readMigrations(folder: string): Migration[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith(".sql"))
    .sort()
    .map((file) => {
      const [, version, name] = /^(\d{14})_([a-z0-9_]+)\.sql$/.exec(file) ?? [];
      if (!version || !name) {
        throw new StoreError(
          "migration-failed",
          `supabase/migrations/${file} is not named YYYYMMDDhhmmss_name.sql`,
        );
      }
      const sql = readFileSync(join(folder, file), "utf8");
      return {
        version,
        name,
        sql,
        checksum: createHash("sha256").update(sql.replaceAll("\r\n", "\n")).digest("hex"),
      };
    });
}

/** Those not applied yet, after checking that those applied are the ones on disk. */
function pendingOf(
  files: readonly Migration[],
  applied: readonly { version: string; name: string; checksum: string }[],
): Migration[] {
  const byVersion = new Map(files.map((file) => [file.version, file]));
  for (const row of applied) {
    const file = byVersion.get(row.version);
    const label = `${row.version}_${row.name}.sql`;
    if (!file) {
      throw new StoreError(
        "migration-missing",
        `migration ${label} was applied to this database and is not in supabase/migrations: ` +
          "this is older code than the one that made the database; update it, or use another PUGMARK_HOME or DATABASE_URL",
      );
    }
    if (file.checksum !== row.checksum) {
      throw new StoreError(
        "migration-changed",
        `migration ${label} has changed since it was applied to this database: ` +
          "restore the file (git checkout) and put the change into a new migration",
      );
    }
  }
  const done = new Set(applied.map(({ version }) => version));
  return files.filter(({ version }) => !done.has(version));
}

async function apply(client: pg.Client, { version, name, sql, checksum }: Migration): Promise<void> {
  try {
    await client.query("begin");
    await client.query(sql);
    await client.query(
      "insert into pugmark_migrations.applied (version, name, checksum) values ($1, $2, $3)",
      [version, name, checksum],
    );
    await client.query("insert into supabase_migrations.schema_migrations (version, name) values ($1, $2)", [
      version,
      name,
    ]);
    await client.query("commit");
  } catch (error) {
    await client.query("rollback").catch(() => {});
    const reason = error instanceof Error ? error.message : String(error);
    throw new StoreError("migration-failed", `migration ${version}_${name}.sql failed: ${reason}`, {
      cause: error,
    });
  }
}
