import { execFile } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline/promises";
import { Writable } from "node:stream";
import { text } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { type Config, isLoopback, projectRoot } from "../config/config.ts";
import { fails, isNoFailure } from "../config/finding.ts";
import { StoreError } from "../store/errors.ts";
import { migrate, migrationScript } from "../store/migrate.ts";
import { openPool, query } from "../store/pool.ts";
import type { ProjectReport } from "../sync/check/check-project.ts";
import { fail } from "./failure.ts";
import { printFinding } from "./print-finding.ts";

export interface SetupOptions {
  /** Apply the migrations that the project lacks. */
  readonly apply?: boolean;
  /** Print them instead, as one script. */
  readonly sql?: boolean;
  /** Postgres of the project, as its owner. */
  readonly databaseUrl?: string;
  readonly json?: boolean;
}

const migrations = join(projectRoot, "supabase", "migrations");
const checkTimeoutMs = 60_000;
/** A project's API reads a changed schema within moments; where it takes longer, what it says stands. */
const reloadMs = 10_000;

/**
 * `pugmark supabase setup`: what a project has and lacks of what a station needs, each with the remedy; with `apply`, its
 * schema is brought up to date first. The connection string is used once and kept nowhere. Exit code 1 where something is
 * missing or failed, 2 for a connection string that cannot be the right one.
 */
export async function setupCommand(config: Config, options: SetupOptions): Promise<number> {
  if (options.sql) {
    const { applied } = config.SUPABASE_URL ? await projectReport() : { applied: null };
    if (applied === null)
      console.error(
        "Which migrations the project has is not known: these are all of them, for an empty one.",
      );
    process.stdout.write(migrationScript(migrations, applied ?? []));
    return 0;
  }
  let applied: string[] | undefined;
  if (options.apply) {
    const url = options.databaseUrl ?? (await askForUrl());
    const wrong = whyNot(url);
    if (wrong) return fail([wrong], 2);
    try {
      applied = await bringUpToDate(encrypted(url));
    } catch (error) {
      return fail([`the project's schema could not be brought up to date: ${wordsOf(error, url)}`], 1);
    }
  }
  const report = applied?.length ? reportOnceReloaded : projectReport;
  const { findings } = config.SUPABASE_URL ? await report() : { findings: [unset] };
  const ok = findings.every(isNoFailure);
  if (options.json) console.log(JSON.stringify({ ok, ...(applied ? { applied } : {}), findings }, null, 2));
  else {
    if (applied) console.log(appliedText(applied));
    for (const finding of findings) printFinding(finding);
  }
  return ok ? 0 : 1;
}

/** What a child of its own finds in the project: it alone is given the service-role key, and ends with that. */
export async function projectReport(): Promise<ProjectReport> {
  const program = join(projectRoot, "src", "sync", "check", "main.ts");
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [program], { timeout: checkTimeoutMs });
    return JSON.parse(stdout);
  } catch {
    const again = "try again; where it stays so, see whether SUPABASE_URL leads to a project";
    return { findings: [fails("project", "the check did not come to its end", again)], applied: null };
  }
}

/** What is found once the project's API has read the schema that was just applied: until then it says that it lacks that. */
async function reportOnceReloaded(): Promise<ProjectReport> {
  const deadline = Date.now() + reloadMs;
  for (;;) {
    const report = await projectReport();
    const isBehind = report.findings.some(({ check, outcome }) => check === "schema" && outcome === "fail");
    if (!isBehind || Date.now() > deadline) return report;
    await delay(250);
  }
}

const unset = fails(
  "project",
  "SUPABASE_URL is not set",
  "set SUPABASE_URL, SUPABASE_KEY and SUPABASE_SERVICE_ROLE in .env; docs/supabase.md has it step by step",
);

function appliedText(applied: readonly string[]): string {
  return applied.length === 0
    ? "The project's schema was up to date."
    : `Applied to the project:\n${applied.map((name) => `  ${name}`).join("\n")}`;
}

async function bringUpToDate(url: string): Promise<string[]> {
  const applied = await migrate(url, migrations);
  const pool = openPool({ url, name: "setup", max: 1 });
  // PostgREST knows the schema by heart.
  await query(pool, "notify pgrst, 'reload schema'").finally(() => pool.end());
  return applied;
}

/** Asks on the terminal without showing what is typed, or takes what comes from a pipe. */
async function askForUrl(): Promise<string> {
  process.stderr.write("Postgres connection string of the project (dashboard: Connect → Session pooler): ");
  if (!process.stdin.isTTY) return (await text(process.stdin)).trim();
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const terminal = createInterface({ input: process.stdin, output: nowhere, terminal: true });
  terminal.once("SIGINT", () => process.exit(130));
  const url = await terminal.question("").catch(() => ""); // Ctrl+D
  terminal.close();
  process.stderr.write("\n");
  return url.trim();
}

/** Why a connection string cannot do, in words that show nothing of it. */
function whyNot(url: string): string | undefined {
  if (!URL.canParse(url) || !/^postgres(ql)?:$/.test(new URL(url).protocol))
    return "a connection string is needed: postgres://USER:PASSWORD@HOST:5432/postgres";
  if (/\[|%5B/i.test(new URL(url).password))
    return "put the database's password where it says [YOUR-PASSWORD]";
  if (!isDecodable(url)) return "write each % of the user's name and the password as %25";
  if (new URL(url).port === "6543")
    return "port 6543 is the transaction pooler, which cannot migrate: take the session pooler, port 5432";
  return undefined;
}

function isDecodable(url: string): boolean {
  const { username, password } = new URL(url);
  try {
    decodeURIComponent(username + password);
    return true;
  } catch {
    return false;
  }
}

/** Across a network never in plain text, unless the string says so itself. */
function encrypted(url: string): string {
  const parsed = new URL(url);
  if (isLoopback(parsed.hostname.replace(/^\[|\]$/g, "")) || parsed.searchParams.has("sslmode")) return url;
  parsed.searchParams.set("sslmode", "require");
  // As psql means it: encrypted, whoever signed the certificate. Supabase's is its own.
  parsed.searchParams.set("uselibpqcompat", "true");
  return parsed.href;
}

/** The database's words, without the password. */
function wordsOf(error: unknown, url: string): string {
  const { password, host } = new URL(url);
  if (error instanceof StoreError && error.code === "database-away") return `nothing answers at ${host}`;
  const words =
    error instanceof Error ? error.message || String((error as { code?: string }).code) : String(error);
  return password ? words.replaceAll(decodeURIComponent(password), "********") : words;
}
