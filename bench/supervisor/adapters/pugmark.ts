import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { projectRoot } from "../../../src/config/config.ts";
import { isAlive, kill } from "../processes.ts";
import {
  type Adapter,
  execute,
  firstLineOf,
  type Run,
  startInBackground,
  stopTimeoutMs,
  until,
} from "./adapter.ts";

const command = join(projectRoot, "bin", "main.mjs");
const pugmark = async (run: Run, ...args: string[]): Promise<string> =>
  await execute(process.execPath, [command, ...args, "-f", join(run.folder, "services.json")], run);

/** Ours, on a plain file: sockets held, readiness by `process.send`, everything else as it comes. */
export const ours: Adapter = {
  title: "Pugmark",
  probes: true,
  version: async () => await firstLineOf(process.execPath, command, "--version"),
  configure: ({ folder, services }) => {
    const entries = services.map(({ name, command: argv, env, port, isProbed }) => {
      const liveness = { kind: "http", url: "/", periodMs: 1_000, timeoutMs: 1_000, failureThreshold: 3 };
      const served = port === undefined ? {} : { listen: { port, hold: true }, readiness: { kind: "ipc" } };
      const definition = { command: argv, env, ...served, stop: { timeoutMs: stopTimeoutMs } };
      // As many old files as the flood needs: nothing of it may be rotated away before it is counted.
      const logs = { files: 40 };
      return [name, isProbed ? { ...definition, liveness, logs } : { ...definition, logs }] as const;
    });
    writeFileSync(join(folder, "services.json"), JSON.stringify({ services: Object.fromEntries(entries) }));
  },
  start: async (run) => {
    const args = [command, "up", "--quiet", "-f", join(run.folder, "services.json")];
    run.mainPid = startInBackground(run, process.execPath, args);
  },
  stop: async (run) => {
    kill(run.mainPid, "SIGTERM");
    await until(() => !isAlive(run.mainPid), 30_000);
  },
  logFiles: ({ folder }, name) => {
    const logs = join(folder, ".pugmark", "logs");
    if (!existsSync(logs)) return [];
    return readdirSync(logs)
      .filter((file) => new RegExp(`^${name}\\.log(\\.\\d+)?$`).test(file))
      .map((file) => join(logs, file));
  },
  restart: async (run, name) => void (await pugmark(run, "restart", name)),
  status: async (run) => {
    const { services } = JSON.parse(await pugmark(run, "status", "--json")) as {
      services: { name: string; state: string }[];
    };
    return services.map(({ name, state }) => `${name} ${state}`).join(", ");
  },
};
