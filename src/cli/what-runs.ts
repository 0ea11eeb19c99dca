import { ConfigError, type LoadedConfig, loadConfig } from "../config/config.ts";
import { ProcessManagerError } from "../process-manager/process-manager-error.ts";
import type { ServiceRecord } from "../process-manager/service-status.ts";
import type { ServicesToRun } from "../process-manager/services-file/services-file.ts";
import type { Place } from "./place.ts";

/** What `pugmark up` runs, and where. */
export interface WhatRuns {
  readonly home: string;
  /** Reads what is written now; throws `definition-invalid`. */
  readonly load: () => Promise<WrittenServices>;
  /** The environment that services start from. */
  readonly environment: NodeJS.ProcessEnv;
}

/** What is written, and what is said of it. */
export interface WrittenServices extends ServicesToRun {
  /** The lines that greet who sees it ready. */
  readonly welcome: (services: readonly ServiceRecord[], tookMs: number) => readonly string[];
}

/** The services of a file, or the tracking station; of the one nothing of the other is loaded. */
export async function whatRuns(place: Place, environment: NodeJS.ProcessEnv): Promise<WhatRuns> {
  const { PUGMARK_HOME: home, file } = place;
  if (file === null) {
    const { stationDefinitions, stationWelcome } = await import("./station.ts");
    return {
      home,
      load: async () => {
        const { config, fromFile } = readSettings({ ...environment, PUGMARK_HOME: home }); // which cannot move
        return {
          definitions: stationDefinitions(config, fromFile),
          welcome: (services, tookMs) => stationWelcome(config, services, tookMs),
        };
      },
      // It may do everything in the project: none but its own service starts with it.
      environment: { ...environment, SUPABASE_SERVICE_ROLE: undefined },
    };
  }
  const { readServicesFile } = await import("../process-manager/services-file/services-file.ts");
  return {
    home,
    load: async () => ({ ...(await readServicesFile(file)), welcome: addresses }),
    environment,
  };
}

/** `.env` as it is now beside the environment that it was started with. Throws `definition-invalid`. */
function readSettings(environment: NodeJS.ProcessEnv): LoadedConfig {
  try {
    return loadConfig(environment);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ProcessManagerError("definition-invalid", error.message, { cause: error });
  }
}

function addresses(services: readonly ServiceRecord[], tookMs: number): string[] {
  const listening = services.flatMap(({ name, port }) => (port === null ? [] : [`  ${name}  port ${port}`]));
  return ["", `Everything is ready (${(tookMs / 1000).toFixed(1)} s).`, ...listening, ""];
}
