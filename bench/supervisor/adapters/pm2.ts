import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Adapter, execute, firstLineOf, type Run, stopTimeoutMs } from "./adapter.ts";

/** The bin script of the npm package, run with the Node that the services run on; or `pm2` from the PATH. */
const [program, ...before] = process.env.PM2_BIN ? [process.execPath, process.env.PM2_BIN] : ["pm2"];

const pm2 = async (run: Run, ...args: string[]): Promise<string> =>
  await execute(program, [...before, ...args], {
    folder: run.folder,
    env: { ...run.env, PM2_HOME: join(run.folder, "pm2"), PM2_DISABLE_VERSION_CHECK: "true", NO_COLOR: "1" },
  });

/** PM2 in fork mode, its daemon as it comes. */
export const pm2Fork: Adapter = {
  title: "PM2, fork mode",
  probes: false,
  version: async () => await firstLineOf(program, ...before, "--version"),
  configure: ({ folder, services }) => {
    const apps = services.map(({ name, command: [bin, ...args], env }) => ({
      name,
      script: bin === process.execPath ? args[0] : bin,
      args: bin === process.execPath ? args.slice(1) : args,
      interpreter: bin === process.execPath ? bin : "none",
      cwd: folder,
      env,
      kill_timeout: stopTimeoutMs,
      merge_logs: true,
      out_file: join(folder, `${name}.log`),
      error_file: join(folder, `${name}.err`),
    }));
    writeFileSync(join(folder, "bench.config.json"), JSON.stringify({ apps }));
  },
  start: async (run) => {
    await pm2(run, "start", join(run.folder, "bench.config.json"));
    run.mainPid = Number(readFileSync(join(run.folder, "pm2", "pm2.pid"), "utf8"));
  },
  stop: async (run) => void (await pm2(run, "kill")),
  logFiles: ({ folder }, name) => [join(folder, `${name}.log`)],
  restart: async (run, name) => void (await pm2(run, "restart", name)),
  status: async (run) => {
    const text = await pm2(run, "jlist");
    const all = JSON.parse(text.slice(text.indexOf("["))) as { name: string; pm2_env: { status: string } }[];
    return all.map(({ name, pm2_env }) => `${name} ${pm2_env.status}`).join(", ");
  },
};
