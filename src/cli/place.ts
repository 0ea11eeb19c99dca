import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { type Config, loadConfig, projectRoot } from "../config/config.ts";

/** Where a station lives: enough for every verb that talks to one. */
export type Home = Pick<Config, "PUGMARK_HOME">;

/** What a verb is about: a station's home, and the services file that it runs, if it does. */
export interface Place extends Home {
  /** Absolute; null for the tracking station itself. */
  readonly file: string | null;
}

/**
 * The place that a command line means: `PUGMARK_HOME`; else `.pugmark` beside the services file; else, without one, that
 * of the current folder if something ran there; else the tracking station's own. Only for that are the settings read.
 */
export function findPlace(file: string | undefined, environment: NodeJS.ProcessEnv): Place {
  const named = environment.PUGMARK_HOME ? resolve(environment.PUGMARK_HOME) : null;
  if (file !== undefined) {
    const path = resolve(file);
    return { PUGMARK_HOME: named ?? join(dirname(path), ".pugmark"), file: path };
  }
  const here = resolve(".pugmark");
  const hasRunHere = process.cwd() !== projectRoot && existsSync(join(here, "logs"));
  if (named === null && hasRunHere) return { PUGMARK_HOME: here, file: null };
  return { PUGMARK_HOME: loadConfig(environment).config.PUGMARK_HOME, file: null };
}
