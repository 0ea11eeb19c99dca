import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isAlive, kill } from "../processes.ts";
import {
  type Adapter,
  execute,
  firstLineOf,
  type Run,
  shellLine,
  startInBackground,
  until,
} from "./adapter.ts";

const control = async (run: Run, ...args: string[]): Promise<string> =>
  await execute("supervisorctl", ["-c", join(run.folder, "supervisord.conf"), ...args], run);

/** supervisord with group kill, which is off as it comes. */
export const supervisord: Adapter = {
  title: "supervisord",
  probes: false,
  version: async () => await firstLineOf("supervisord", "-v"),
  configure: ({ folder, services }) => {
    const programs = services.map((service) =>
      [
        `[program:${service.name}]`,
        `command=${shellLine(service).replaceAll("%", "%%")}`,
        "autorestart=true",
        "stopwaitsecs=3",
        "stopasgroup=true",
        "killasgroup=true",
        `stdout_logfile=${folder}/${service.name}.log`,
        "redirect_stderr=true",
      ].join("\n"),
    );
    const own = [
      `[unix_http_server]\nfile=${folder}/control.sock`,
      `[supervisorctl]\nserverurl=unix://${folder}/control.sock`,
      `[supervisord]\nnodaemon=true\nlogfile=${folder}/supervisord.log\npidfile=${folder}/supervisord.pid\nuser=root`,
      "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
    ];
    writeFileSync(join(folder, "supervisord.conf"), `${[...own, ...programs].join("\n\n")}\n`);
  },
  start: async (run) => {
    run.mainPid = startInBackground(run, "supervisord", ["-c", join(run.folder, "supervisord.conf")]);
  },
  stop: async ({ mainPid }) => {
    kill(mainPid, "SIGTERM");
    await until(() => !isAlive(mainPid), 30_000);
  },
  logFiles: ({ folder }, name) =>
    readdirSync(folder)
      .filter((file) => file.startsWith(`${name}.log`))
      .map((file) => join(folder, file)),
  restart: async (run, name) => void (await control(run, "restart", name)),
  status: async (run) =>
    (await control(run, "status"))
      .trim()
      .replace(/\s*\n\s*/g, ", ")
      .replace(/ +/g, " "),
};
