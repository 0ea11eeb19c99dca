import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { projectRoot } from "../../src/config/config.ts";
import { freePort } from "./ports.ts";
import { testDatabase } from "./postgres.ts";
import type { SupabaseServerSettings } from "./supabase-server.ts";

/** A Supabase project of one's own: a real database with our migrations behind a real server, a process of its own. */
export interface SupabaseProject extends AsyncDisposable {
  /** What `SUPABASE_URL` is set to. */
  readonly url: string;
  /** `SUPABASE_KEY`: acts as anon, or as the user of a JWT sent with it. */
  readonly publishableKey: string;
  /** `SUPABASE_SERVICE_ROLE`: acts as service_role. */
  readonly secretKey: string;
  /** Signs JWTs of its users (HS256). */
  readonly jwtSecret: string;
  /** Its database, as the owner of the schema. */
  readonly databaseUrl: string;
  /** Where Storage keeps its objects: each is a file in the folder of its bucket. */
  readonly folder: string;
  /** Ends the server with SIGKILL; its database and its objects stay. Resolves when it has gone. */
  readonly kill: () => Promise<void>;
  /** Starts it at the same address, after ending it where it runs. Resolves when it answers. */
  readonly restart: () => Promise<void>;
}

/**
 * Starts one on a fresh database of the run's Postgres. Its roles anon, authenticated and service_role may do what our
 * migrations let them, and nothing else. It keeps the schema in mind that it was started with: restart it after changing that.
 * Given a former one that was ended, it has that one's address and keys.
 */
export async function startSupabaseProject(former?: SupabaseProject): Promise<SupabaseProject> {
  const database = await testDatabase();
  const settings: SupabaseServerSettings = {
    databaseUrl: database.url,
    port: former ? Number(new URL(former.url).port) : await freePort(),
    jwtSecret: former?.jwtSecret ?? randomBytes(32).toString("hex"),
    publishableKey: former?.publishableKey ?? `sb_publishable_${randomBytes(16).toString("hex")}`,
    secretKey: former?.secretKey ?? `sb_secret_${randomBytes(16).toString("hex")}`,
    folder: mkdtempSync(join(tmpdir(), "pugmark-objects-")),
  };
  let server = await startServer(settings);
  return {
    ...settings,
    url: `http://127.0.0.1:${settings.port}`,
    kill: () => end(server),
    restart: async () => {
      await end(server);
      server = await startServer(settings);
    },
    async [Symbol.asyncDispose]() {
      await end(server);
      await database[Symbol.asyncDispose]();
      rmSync(settings.folder, { recursive: true, force: true });
    },
  };
}

async function startServer(settings: SupabaseServerSettings): Promise<ChildProcess> {
  const program = join(projectRoot, "test", "support", "supabase-server.ts");
  const child = spawn(process.execPath, [program], {
    // Nothing of the station's own settings; and it reports nothing to its makers.
    env: { PATH: process.env.PATH, DO_NOT_TRACK: "1" },
    stdio: ["ignore", "ignore", "pipe", "ipc"],
  });
  child.send(settings);
  let errors = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    errors = (errors + text).slice(-4_000);
  });
  await Promise.race([
    once(child, "message"),
    once(child, "exit").then(([code]) => {
      throw new Error(`the project did not start (${code}): ${errors}`);
    }),
  ]);
  return child;
}

async function end(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return;
  server.kill("SIGKILL");
  await once(server, "exit");
}
