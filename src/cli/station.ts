import { randomBytes } from "node:crypto";
import { accessSync, constants, mkdirSync } from "node:fs";
import { join } from "node:path";
import { styleText } from "node:util";
import { originOf } from "../config/address.ts";
import { type Config, type LoadedConfig, projectRoot } from "../config/config.ts";
import type { VariableName } from "../config/variables.ts";
import { askLocally } from "../http/local-client.ts";
import { localSocketPath } from "../http/local-socket.ts";
import {
  type ActiveProbe,
  type Definition,
  defineExternal,
  defineService,
  type ServiceDefinition,
} from "../process-manager/definition.ts";
import { ProcessManagerError } from "../process-manager/process-manager-error.ts";
import type { ServiceRecord } from "../process-manager/service-status.ts";
import { type EmbeddedPostgres, embeddedPostgres } from "../store/embedded-postgres.ts";
import { migrate } from "../store/migrate.ts";
import { openPool, ping } from "../store/pool.ts";
import { secretFile } from "../store/secret-file.ts";
import { stopRecording } from "../store/sync-state.ts";
import { startRecording } from "../sync/recording.ts";
import { SyncError } from "../sync/sync-error.ts";
import { edgeService } from "./edge.ts";

/**
 * Everything that a station consists of: what the manager runs, and what it only watches. Makes the home.
 * What `.env` says (`fromFile`) is in the environment of those whom it concerns: only they are restarted for a change
 * of it. Throws `home-unusable` or an `EmbeddedPostgresError`.
 */
export function stationDefinitions(config: Config, fromFile: LoadedConfig["fromFile"] = {}): Definition[] {
  makeHome(config);
  const embedded = config.DATABASE_URL
    ? undefined
    : embeddedPostgres({ folder: join(config.PUGMARK_HOME, "database"), port: config.DATABASE_PORT });
  const env = (role: "pugmark_app" | "pugmark_reader", settings: readonly VariableName[]) => ({
    ...Object.fromEntries(
      [...ofEveryServer, ...settings].flatMap((name) => {
        const text = fromFile[name];
        return text === undefined ? [] : [[name, text]];
      }),
    ),
    PUGMARK_HOME: config.PUGMARK_HOME,
    PUGMARK_INTERNAL_KEY: internalKey(config),
    PUGMARK_DATABASE_ROLE: role,
    DATABASE_URL: config.DATABASE_URL ?? embedded?.url(role) ?? "",
    NODE_COMPILE_CACHE: join(config.PUGMARK_HOME, "compile-cache"),
  });
  return [
    embedded ? embeddedDatabase(config, embedded) : foreignDatabase(config),
    server(config, {
      name: "chat",
      description: "the one door to the language model",
      port: "CHAT_PORT",
      env: env("pugmark_app", ofTheModel),
    }),
    server(config, {
      name: "agent",
      description: "answers questions by calling tools",
      port: "PORT",
      env: env("pugmark_reader", ofTheAgent),
      calls: "chat",
    }),
    server(config, {
      name: "api",
      description: "positions, subjects, tracks",
      port: "API_PORT",
      env: env("pugmark_app", ["SUPABASE_KEY"]),
    }),
    ...(isMirrored(config) ? [mirror(config, env("pugmark_app", ofTheMirror))] : []),
    ...(config.FUNCTIONS_PORT
      ? [edgeService(config, { host: config.HOST, port: config.FUNCTIONS_PORT })]
      : []),
    ...externals(config),
  ];
}

/** Settings that are neither somewhere else in a definition nor another's. */
const ofEveryServer = [
  "PUGMARK_ALLOWED_HOSTS",
  "PUGMARK_API_KEYS",
  "LOG_LEVEL",
  "SUPABASE_URL",
  "SUPABASE_JWT_SECRET",
] as const;
const ofTheAgent = ["DEEPSEEK_MODEL", "CHAT_MAX_TOKENS", "AGENT_TOOL_MODE"] as const;
const ofTheMirror = [
  "SUPABASE_KEY",
  "SUPABASE_MIRROR",
  "SUPABASE_POSITION_PRECISION_M",
  "SUPABASE_PHOTOS_BUCKET",
  "STATION_NAME",
] as const;
const ofTheModel = [
  "DEEPSEEK_API_URL",
  "DEEPSEEK_API_KEY",
  "DEEPSEEK_MODEL",
  "API_TIMEOUT",
  "API_FIRST_TOKEN_TIMEOUT",
  "API_LOAD_TIMEOUT",
  "CACHE_TTL",
  "CACHE_MAX_MB",
  "REDIS_URL",
  "CHAT_MAX_TOKENS",
  "CHAT_LOG_CONTENTS",
  "CHAT_TOKENS_PER_DAY",
  "INTERACTION_RETENTION_DAYS",
  "INTERACTION_REDACT",
] as const;

/** What greets who sees the station ready: where it is, and what it misses. */
export function stationWelcome(
  config: Config,
  services: readonly ServiceRecord[],
  tookMs: number,
): readonly string[] {
  const address = (port: number) => originOf({ host: config.HOST, port });
  const runs = (name: string) =>
    services.some((service) => service.name === name && service.state === "ready");
  const lmStudio = services.find(({ name }) => name === "lm-studio");
  return [
    "",
    styleText("bold", `The station is ready (${(tookMs / 1000).toFixed(1)} s).`),
    ...(runs("api") ? [`  API    ${address(config.API_PORT)}/docs`] : []),
    ...(runs("agent") ? [`  Agent  ${address(config.PORT)}/docs`] : []),
    ...(runs("chat") ? [`  Chat   ${address(config.CHAT_PORT)}/docs`] : []),
    ...(lmStudio && lmStudio.state !== "ready"
      ? [
          `  LM Studio is away (${lmStudio.reason}): tracking works, questions wait for it. pugmark doctor helps.`,
        ]
      : []),
    "",
  ];
}

function embeddedDatabase(config: Config, postgres: EmbeddedPostgres): ServiceDefinition {
  return defineService({
    name: "database",
    description: "embedded Postgres",
    command: postgres.command,
    cwd: projectRoot,
    ...(postgres.user ? { user: postgres.user } : {}),
    listen: { host: "127.0.0.1", port: config.DATABASE_PORT },
    portHint: "DATABASE_PORT",
    prepare: postgres.prepare,
    readiness: { kind: "check", check: postgres.check, periodMs: 5_000, timeoutMs: 3_000 },
    afterReady: async () => {
      await postgres.createDatabase();
      await migrate(postgres.url("owner"), migrations);
      await postgres.grantLogins();
      await switchRecording(config, postgres.url("owner"));
    },
    // Fast shutdown: sessions are ended, everything committed is on disk.
    stop: { signal: "SIGINT", timeoutMs: 30_000 },
  });
}

function foreignDatabase(config: Config): Definition {
  const url = config.DATABASE_URL ?? "";
  return defineExternal({
    kind: "external",
    name: "database",
    description: "Postgres at DATABASE_URL",
    probe: { kind: "check", check: () => answersSql(url), periodMs: 5_000, timeoutMs: 5_000 },
    afterReady: async () => {
      await migrate(url, migrations);
      await switchRecording(config, url);
    },
  });
}

/**
 * Before anybody writes: has changes recorded where there is a project to carry them to, or stops that where there is none any
 * more, since the outbox would grow for ever. In a database that others may use as well, they may have the project's keys:
 * there it stops only when that is said.
 */
async function switchRecording(config: Config, url: string): Promise<void> {
  const pool = openPool({ url, name: "manager", max: 1 });
  try {
    if (!isMirrored(config)) {
      const isOver = config.DATABASE_URL === undefined || config.SUPABASE_MIRROR.includes("none");
      return isOver ? await stopRecording(pool) : undefined;
    }
    const choice = { names: config.SUPABASE_MIRROR, precisionM: config.SUPABASE_POSITION_PRECISION_M };
    await startRecording(pool, choice);
  } catch (error) {
    // The mirror's own start says that, and the station works without it.
    if (!(error instanceof SyncError)) throw error;
  } finally {
    await pool.end();
  }
}

/** Only with its service-role key can anything be written to a project. */
function isMirrored(config: Config): boolean {
  return config.SUPABASE_URL !== undefined && config.SUPABASE_SERVICE_ROLE !== undefined;
}

/** Carries changes to the Supabase project. It alone is handed the key that may do everything there. */
function mirror(config: Config, env: Readonly<Record<string, string>>): ServiceDefinition {
  const socket = localSocketPath(config.PUGMARK_HOME, "sync");
  return defineService({
    name: "sync",
    description: "mirror to the Supabase project",
    command: [process.execPath, join(projectRoot, "src", "sync", "main.ts")],
    cwd: projectRoot,
    // Both, also where they are the shell's: an export has to carry them along.
    env: {
      ...env,
      SUPABASE_URL: config.SUPABASE_URL ?? "",
      SUPABASE_SERVICE_ROLE: config.SUPABASE_SERVICE_ROLE ?? "",
    },
    dependsOn: { database: "ready" },
    readiness: { kind: "notify" },
    liveness: {
      kind: "check",
      check: async (signal) => void (await askLocally(socket, { method: "GET", path: "/livez", signal })),
      periodMs: 2_000,
      timeoutMs: 2_000,
      failureThreshold: 5,
    },
    // It gives way to everybody: on a busy machine the little that is left to do takes its time.
    stop: { timeoutMs: 30_000 },
  });
}

interface Server {
  readonly name: "api" | "agent" | "chat";
  readonly description: string;
  readonly port: "API_PORT" | "PORT" | "CHAT_PORT";
  readonly env: Readonly<Record<string, string>>;
  readonly calls?: string;
}

/** One of our own servers: its socket is held, it says itself when it is ready, and its health is asked. */
function server(config: Config, { name, description, port, env, calls }: Server): ServiceDefinition {
  const address = { host: config.HOST, port: config[port] };
  const base = originOf(address);
  return defineService({
    name,
    description,
    command: [process.execPath, join(projectRoot, "src", name, "main.ts")],
    cwd: projectRoot,
    // PORT is the agent's, whoever reads it.
    env: { ...env, PORT: String(config.PORT), [port]: String(config[port]) },
    listen: { ...address, hold: true },
    portHint: port,
    // A server that only calls another one may start beside it: it says so itself while the other is away.
    dependsOn: { database: "ready", ...(calls ? { [calls]: "started" as const } : {}) },
    readiness: { kind: "notify", watch: { kind: "http", url: `${base}/readyz`, timeoutMs: 3_000 } },
    liveness: { kind: "http", url: `${base}/livez`, periodMs: 1_000, timeoutMs: 1_000, failureThreshold: 3 },
    stop: { timeoutMs: 10_000 },
  });
}

/** What others run and we only watch. Supabase and Redis are there only where they are set. */
function externals(config: Config): Definition[] {
  const [lmStudio] = config.DEEPSEEK_API_URL;
  const token: Record<string, string> = config.DEEPSEEK_API_KEY
    ? { authorization: `Bearer ${config.DEEPSEEK_API_KEY}` }
    : {};
  const external = (name: string, description: string, probe: ActiveProbe) =>
    defineExternal({
      kind: "external",
      name,
      description,
      probe: { periodMs: 5_000, timeoutMs: 3_000, ...probe },
    });
  return [
    external("lm-studio", `LM Studio at ${lmStudio}`, {
      kind: "check",
      check: (signal) => answersHttp(`${lmStudio}/v1/models`, token, signal),
    }),
    ...(config.SUPABASE_URL
      ? [
          external("supabase", "Supabase project", {
            kind: "check",
            check: (signal) =>
              answersHttp(
                `${config.SUPABASE_URL}/auth/v1/health`,
                { apikey: config.SUPABASE_KEY ?? "" },
                signal,
              ),
          }),
        ]
      : []),
    ...(config.REDIS_URL ? [external("redis", "Redis", redisProbe(config.REDIS_URL))] : []),
  ];
}

function redisProbe(url: string): ActiveProbe {
  const { hostname, port } = new URL(url);
  return { kind: "tcp", host: hostname, port: Number(port || 6379) };
}

async function answersHttp(url: string, headers: Record<string, string>, signal: AbortSignal): Promise<void> {
  const response = await fetch(url, { headers, signal }).catch(() => {
    throw new Error(`nothing answers at ${new URL(url).origin}`);
  });
  await response.body?.cancel();
  // Whoever refuses us is there all the same; only a broken server is away.
  if (response.status >= 500) throw new Error(`${new URL(url).origin} answers ${response.status}`);
}

async function answersSql(url: string): Promise<void> {
  const pool = openPool({ url, name: "manager", max: 1 });
  await ping(pool).finally(() => pool.end());
}

/** The key by which the station's own programs know each other; made once, readable by its owner alone. */
export function internalKey({ PUGMARK_HOME }: Config): string {
  const file = join(PUGMARK_HOME, "internal.key");
  try {
    return secretFile(file, () => randomBytes(32).toString("base64url"));
  } catch (cause) {
    throw homeUnusable(PUGMARK_HOME, cause);
  }
}

/** Made before anything is planned in it: whether Postgres's user gets to its files depends on every folder above. */
function makeHome({ PUGMARK_HOME }: Config): void {
  // As root, Postgres's other user has to pass through, and sees nothing there.
  const mode = process.getuid?.() === 0 ? 0o711 : 0o700;
  try {
    mkdirSync(PUGMARK_HOME, { recursive: true, mode });
    accessSync(PUGMARK_HOME, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (cause) {
    throw homeUnusable(PUGMARK_HOME, cause);
  }
}

function homeUnusable(home: string, cause: unknown): ProcessManagerError {
  const why = cause instanceof Error ? cause.message : String(cause);
  const message = `${home} cannot be used as a home (${why}): set PUGMARK_HOME to a folder of your own`;
  return new ProcessManagerError("home-unusable", message, { cause });
}

const migrations = join(projectRoot, "supabase", "migrations");
