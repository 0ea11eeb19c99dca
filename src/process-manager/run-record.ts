import { mkdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { keyDifferences } from "./key-differences.ts";
import { randomId } from "./random-id.ts";
import type { ResolvedService } from "./resolve-definitions.ts";

/** What a process was started with, as far as it can explain that the next one fails. Values of variables are hashed. */
interface RunRecord {
  /** ISO time at which the run was found good. */
  readonly at: string;
  readonly salt: string;
  readonly fields: Readonly<Record<string, string>>;
  readonly variables: Readonly<Record<string, string>>;
  /** Path → size and time of change of the program and of the files among its arguments. */
  readonly files: Readonly<Record<string, string>>;
}

/** What differs from the last run that was good. */
export interface RunChanges {
  /** When that run was found good, ISO. */
  readonly since: string;
  readonly changes: readonly string[];
}

/** Made anew for every life: they differ always, and mean nothing. */
const ownVariables = /^(PROCESS_MANAGER_\w+|LISTEN_(FDS|FDNAMES|PID)|NOTIFY_FD|NODE_CHANNEL_\w+)$/;

/** Remembers for each service of a home the last run that was good, across managers. */
export class RunRecords {
  readonly #folder: string;

  constructor(home: string) {
    this.#folder = join(home, "runs");
  }

  /** The service got ready, or its task done, with this environment. */
  async keep(definition: ResolvedService, env: Readonly<Record<string, string>>): Promise<void> {
    const record = await recordOf(definition, env, randomId(8));
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const path = this.#path(definition.name);
    await writeFile(`${path}.new`, JSON.stringify(record), { mode: 0o600 });
    await rename(`${path}.new`, path);
  }

  /** What is different now; null when no run was ever good. */
  async changes(
    definition: ResolvedService,
    env: Readonly<Record<string, string>>,
  ): Promise<RunChanges | null> {
    let before: RunRecord;
    try {
      before = JSON.parse(await readFile(this.#path(definition.name), "utf8"));
    } catch {
      return null; // never good, or cut off by a crash: then there is nothing to compare with
    }
    const now = await recordOf(definition, env, before.salt);
    const changes = [
      ...keyDifferences(before.fields, now.fields, "", "is gone"),
      ...keyDifferences(before.files, now.files, "file ", "is gone"),
      ...keyDifferences(before.variables, now.variables, "variable ", "is gone"),
    ];
    return { since: before.at, changes };
  }

  #path(name: string): string {
    return join(this.#folder, `${name}.json`);
  }
}

async function recordOf(
  { command, cwd, listen, user, readiness }: ResolvedService,
  env: Readonly<Record<string, string>>,
  salt: string,
): Promise<RunRecord> {
  const fields = { command, cwd, listen, user, readiness };
  const variables = Object.entries(env).filter(([name]) => !ownVariables.test(name));
  return {
    at: new Date().toISOString(),
    salt,
    fields: Object.fromEntries(
      Object.entries(fields).map(([name, value]) => [name, hash(JSON.stringify(value), salt)]),
    ),
    variables: Object.fromEntries(variables.map(([name, value]) => [name, hash(value, salt)])),
    files: await filesOf(command, cwd),
  };
}

async function filesOf(command: readonly string[], cwd: string): Promise<Record<string, string>> {
  const found = await Promise.all(
    command.map(async (word) => {
      const path = resolve(cwd, word);
      const facts = await stat(path).catch(() => null);
      return facts?.isFile() ? ([path, `${facts.size} ${facts.mtimeMs}`] as const) : null;
    }),
  );
  return Object.fromEntries(found.filter((one) => one !== null));
}

function hash(value: string | undefined, salt: string): string {
  const { createHash } = process.getBuiltinModule("node:crypto");
  return createHash("sha256").update(`${salt}${value}`).digest("base64url").slice(0, 16);
}
