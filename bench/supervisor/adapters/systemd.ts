import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isAlive, kill, supervisorPids } from "../processes.ts";
import {
  type Adapter,
  type BenchService,
  execute,
  firstLineOf,
  type Run,
  startInBackground,
  until,
} from "./adapter.ts";

/** A user manager of its own, in a private mount namespace: also where process 1 is not systemd. Needs root. */
function environmentOf(run: Run): NodeJS.ProcessEnv {
  return {
    ...run.env,
    HOME: run.folder,
    XDG_RUNTIME_DIR: join(run.folder, "run"),
    XDG_CONFIG_HOME: join(run.folder, "config"),
    XDG_DATA_HOME: join(run.folder, "data"),
    XDG_STATE_HOME: join(run.folder, "state"),
    DBUS_SESSION_BUS_ADDRESS: "",
    SYSTEMD_COLORS: "0",
  };
}

const control = async (run: Run, ...args: string[]): Promise<string> =>
  await execute("systemctl", ["--user", ...args], { folder: run.folder, env: environmentOf(run) });

const quoted = (text: string): string =>
  `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("%", "%%").replaceAll("$", "$$$$")}"`;

function unitOf({ name, command, env, port }: BenchService, folder: string): string {
  const variables = Object.entries(env).map(([key, value]) => `Environment=${quoted(`${key}=${value}`)}`);
  return [
    "[Unit]",
    "DefaultDependencies=no",
    "StartLimitIntervalSec=10",
    "StartLimitBurst=10",
    "[Service]",
    "Type=exec",
    `ExecStart=${command.map(quoted).join(" ")}`,
    ...variables,
    "Restart=always",
    ...(port === undefined ? [] : [`Sockets=${name}.socket`]),
    "TimeoutStopSec=3",
    `StandardOutput=append:${folder}/${name}.log`,
    "StandardError=inherit",
    "",
  ].join("\n");
}

/** systemd with socket units: the one peer that holds the listening sockets. */
export const systemdHeld: Adapter = {
  title: "systemd, held sockets",
  probes: false,
  version: async () =>
    process.getuid?.() === 0
      ? (await firstLineOf("systemctl", "--version")) === null
        ? null
        : "252 or later"
      : null,
  configure: ({ folder, services }) => {
    const units = join(folder, "config", "systemd", "user");
    mkdirSync(units, { recursive: true });
    mkdirSync(join(folder, "run"), { recursive: true, mode: 0o700 });
    for (const service of services)
      writeFileSync(join(units, `${service.name}.service`), unitOf(service, folder));
    const held = services.filter(({ port }) => port !== undefined);
    for (const { name, port } of held)
      writeFileSync(
        join(units, `${name}.socket`),
        `[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=127.0.0.1:${port}\n`,
      );
    const wanted = [
      ...services.map(({ name }) => `${name}.service`),
      ...held.map(({ name }) => `${name}.socket`),
    ];
    writeFileSync(
      join(units, "bench.target"),
      `[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\nWants=${wanted.join(" ")}\n`,
    );
  },
  start: async (run) => {
    const systemd =
      "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && " +
      "exec /lib/systemd/systemd --user --unit=bench.target --log-target=console";
    const args = ["-m", "sh", "-c", systemd];
    run.mainPid = startInBackground({ ...run, env: environmentOf(run) }, "unshare", args);
  },
  stop: async (run) => {
    await control(run, "stop", ...run.services.map(({ name }) => `${name}.service`));
    kill(run.mainPid, "SIGTERM");
    if (!(await until(() => !isAlive(run.mainPid), 3_000)))
      for (const pid of supervisorPids(run.id)) kill(pid);
  },
  logFiles: ({ folder }, name) => [join(folder, `${name}.log`)],
  restart: async (run, name) => void (await control(run, "restart", `${name}.service`)),
  status: async (run) => {
    const units = run.services.map(({ name }) => `${name}.service`);
    return (await control(run, "show", "-p", "Id,ActiveState,Result", ...units)).trim().replaceAll("\n", " ");
  },
};
