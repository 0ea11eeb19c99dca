import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isAlive, kill } from "../processes.ts";
import { type Adapter, startInBackground, until } from "./adapter.ts";

const supervisor = fileURLToPath(new URL("floor-supervisor.mjs", import.meta.url));

/** A bare respawn: what this machine and Node allow at best. */
export const floor: Adapter = {
  title: "floor: bare respawn",
  probes: false,
  version: async () => process.version,
  configure: ({ folder, services }) =>
    writeFileSync(join(folder, "services.json"), JSON.stringify({ folder, services })),
  start: async (run) => {
    run.mainPid = startInBackground(run, process.execPath, [supervisor, join(run.folder, "services.json")]);
  },
  stop: async ({ mainPid }) => {
    kill(mainPid, "SIGTERM");
    await until(() => !isAlive(mainPid), 20_000);
  },
  logFiles: ({ folder }, name) => [join(folder, `${name}.log`)],
};
