import { type Config, ConfigError, loadConfig } from "./config.ts";

/** The settings of a server, which cannot do without a database. */
export type ServiceSettings = Config & { readonly DATABASE_URL: string };

/**
 * The settings for a server's `main.ts`. Where they are wrong, or no database is named, it says so, a line
 * each, and ends the process with exit code 2. The project's service-role key is left out, and so nowhere in the process,
 * unless it is asked for.
 */
export function serviceSettings(secret?: "SUPABASE_SERVICE_ROLE"): ServiceSettings {
  try {
    const { config } = loadConfig();
    const { DATABASE_URL } = config;
    const SUPABASE_SERVICE_ROLE = secret && config.SUPABASE_SERVICE_ROLE;
    if (DATABASE_URL !== undefined) return { ...config, DATABASE_URL, SUPABASE_SERVICE_ROLE };
    throw new ConfigError([
      "DATABASE_URL is not set: start the station with `npm start`, or name a Postgres",
    ]);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(2);
  }
}
