import { accessSync, constants, existsSync, mkdirSync, statfsSync } from "node:fs";
import { dirname } from "node:path";
import { type Config, ConfigError, isLoopback, loadConfig } from "../config/config.ts";
import { type Finding, fails, fine, isNoFailure, warns } from "../config/finding.ts";
import { assertPortFree } from "../process-manager/listening-socket.ts";
import { embeddedPostgres } from "../store/embedded-postgres.ts";
import { openPool, query } from "../store/pool.ts";
import { runningServices } from "./control.ts";
import { printFinding } from "./print-finding.ts";
import { projectReport } from "./supabase-setup.ts";

/** Checks everything a station needs and prints each finding with its remedy. Exit code 1 if any fails. */
export async function doctor(json: boolean): Promise<number> {
  const findings = await examine();
  if (json) console.log(JSON.stringify({ ok: findings.every(isNoFailure), findings }, null, 2));
  else for (const finding of findings) printFinding(finding);
  return findings.every(isNoFailure) ? 0 : 1;
}

async function examine(): Promise<Finding[]> {
  const node = nodeVersion();
  let config: Config;
  try {
    config = loadConfig().config;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const remedy = "correct it in the environment or in .env; .env.example has every variable";
    return [node, ...error.lines.map((detail) => fails("settings", detail, remedy))];
  }
  const running = await runningServices(config);
  return [
    node,
    fine("settings", "every variable is known and allowed"),
    home(config),
    running
      ? fine("station", "is running; pugmark status shows it")
      : fine("station", "is not running; npm start starts it"),
    await database(config),
    ...(running ? [] : await ports(config)),
    ...(await Promise.all(config.DEEPSEEK_API_URL.map((root) => lmStudio(config, root)))),
    ...(config.SUPABASE_URL ? (await projectReport()).findings : []),
    reach(config),
  ];
}

function nodeVersion(): Finding {
  const major = Number(process.versions.node.split(".")[0]);
  return major >= 24
    ? fine("node", `${process.versions.node} at ${process.execPath}`)
    : fails(
        "node",
        `${process.versions.node} is too old`,
        "run npm start once: it installs a private Node 24",
      );
}

function home({ PUGMARK_HOME }: Config): Finding {
  try {
    if (!existsSync(PUGMARK_HOME)) mkdirSync(PUGMARK_HOME, { recursive: true, mode: 0o700 });
    accessSync(PUGMARK_HOME, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch {
    return fails("home", `${PUGMARK_HOME} cannot be written`, "set PUGMARK_HOME to a folder of your own");
  }
  const { bavail, bsize } = statfsSync(PUGMARK_HOME);
  const freeMib = Math.floor((bavail * bsize) / 1024 ** 2);
  const detail = `${PUGMARK_HOME}, ${freeMib.toLocaleString("en")} MiB free`;
  return freeMib < 1024
    ? warns("home", detail, "free some disk space: the database and its log need room")
    : fine("home", detail);
}

async function database(config: Config): Promise<Finding> {
  if (!config.DATABASE_URL) {
    try {
      const { command } = embeddedPostgres({
        folder: `${config.PUGMARK_HOME}/database`,
        port: config.DATABASE_PORT,
      });
      return fine(
        "database",
        `embedded Postgres, ${dirname(command.find((part) => part.endsWith("postgres")) ?? "")}`,
      );
    } catch (error) {
      return fails("database", messageOf(error), "set DATABASE_URL to a Postgres 15 or newer");
    }
  }
  const pool = openPool({ url: config.DATABASE_URL, name: "doctor", max: 1 });
  try {
    const { rows } = await query<{ number: number; version: string }>(
      pool,
      "select current_setting('server_version_num')::int as number, current_setting('server_version') as version",
    );
    const [{ number, version } = { number: 0, version: "?" }] = rows;
    return number >= 150_000
      ? fine("database", `Postgres ${version} at DATABASE_URL`)
      : fails("database", `Postgres ${version} at DATABASE_URL is too old`, "use Postgres 15 or newer");
  } catch {
    return fails(
      "database",
      "nothing answers at DATABASE_URL",
      "start that Postgres, or unset DATABASE_URL to use the embedded one",
    );
  } finally {
    await pool.end();
  }
}

async function ports(config: Config): Promise<Finding[]> {
  const wanted = [
    { name: "API_PORT", host: config.HOST },
    { name: "PORT", host: config.HOST },
    { name: "CHAT_PORT", host: config.HOST },
    ...(config.DATABASE_URL ? [] : [{ name: "DATABASE_PORT", host: "127.0.0.1" } as const]),
  ] as const;
  return await Promise.all(
    wanted.map(async ({ name, host }) => {
      try {
        await assertPortFree({ host, port: config[name] }, name);
        return fine("port", `${name} ${config[name]} is free`);
      } catch (error) {
        return fails("port", messageOf(error), `stop what holds it, or set ${name}`);
      }
    }),
  );
}

async function lmStudio(config: Config, root: string): Promise<Finding> {
  const start = "in LM Studio: Developer → Start server (or: lms server start), then load the model";
  const headers: Record<string, string> = config.DEEPSEEK_API_KEY
    ? { authorization: `Bearer ${config.DEEPSEEK_API_KEY}` }
    : {};
  try {
    const response = await fetch(`${root}/v1/models`, { headers, signal: AbortSignal.timeout(3_000) });
    if (response.status === 401)
      return warns("lm-studio", `${root} wants an API token`, "set DEEPSEEK_API_KEY");
    const body = (await response.json()) as { data?: { id: string }[] };
    const models = body.data?.map(({ id }) => id) ?? [];
    return models.includes(config.DEEPSEEK_MODEL)
      ? fine("lm-studio", `${root} has ${config.DEEPSEEK_MODEL}`)
      : warns(
          "lm-studio",
          `${root} has not ${config.DEEPSEEK_MODEL}, but ${models.join(", ") || "no model"}`,
          `lms get ${config.DEEPSEEK_MODEL}, or set DEEPSEEK_MODEL`,
        );
  } catch {
    return warns("lm-studio", `nothing answers at ${root}`, start);
  }
}

function reach({ HOST }: Config): Finding {
  return isLoopback(HOST)
    ? fine("reach", `${HOST}: programs of this machine only`)
    : warns(
        "reach",
        `${HOST}: other machines can connect, with a key`,
        "keep it behind a firewall or a proxy with TLS",
      );
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
