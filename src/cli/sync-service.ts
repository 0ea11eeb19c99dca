import type { Config } from "../config/config.ts";
import { LocalError } from "../http/local-client.ts";
import { localSocketPath } from "../http/local-socket.ts";
import { exitCodes, fail } from "./failure.ts";
import { oneLine } from "./plain-text.ts";

/** The services' own codes that mean a wrong request, or that there is nobody to ask. */
const exitCodeOf: Readonly<Record<string, number>> = {
  "not-running": exitCodes["not-running"] ?? 1,
  "request-invalid": 2,
};

/** Does the work with the socket of the service that mirrors; where none answers, or it refuses, says so and gives the exit code. */
export async function withSync(config: Config, work: (socket: string) => Promise<number>): Promise<number> {
  try {
    return await work(localSocketPath(config.PUGMARK_HOME, "sync"));
  } catch (error) {
    if (!(error instanceof LocalError)) throw error;
    const exitCode = exitCodeOf[error.code] ?? 1;
    if (error.code !== "not-running") return fail([oneLine(error.message)], exitCode);
    const isSet = config.SUPABASE_URL !== undefined && config.SUPABASE_SERVICE_ROLE !== undefined;
    const remedy = isSet
      ? "pugmark status shows whether the station runs; npm start starts it"
      : "set SUPABASE_URL and SUPABASE_SERVICE_ROLE, and restart the station";
    return fail([`nothing mirrors ${config.PUGMARK_HOME}: ${remedy}`], exitCode);
  }
}
