import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { promisify } from "node:util";
import { currentHolder } from "./home-lock.ts";
import {
  parseLsofOwner,
  parseNetstatOwner,
  parsePsProcess,
  parseTasklist,
  variableIn,
} from "./port-listings.ts";
import { startedAtMsOf } from "./process-facts.ts";
import type { TcpAddress } from "./resolve-definitions.ts";
import { listTcpListeners, socketInodesOf } from "./tcp-listeners.ts";

const run = promisify(execFile);

/** Who listens on a port, as far as this user may know. */
export interface PortOwner {
  readonly pid: number | null;
  readonly command: string | null;
  readonly user: string | null;
  readonly startedAt: Date | null;
  /** Set where it carries the mark of a manager. */
  readonly station?: StationOfOwner;
}

/** The station that started a process. */
interface StationOfOwner {
  readonly home: string;
  readonly service: string;
  /** Who manages that home now; null when nobody does. */
  readonly managerPid: number | null;
  /** Whether that manager started it; an earlier one did otherwise. */
  readonly isCurrent: boolean;
}

/** Looks up who listens on the port; null when nobody is found. */
export async function findPortOwner(port: number): Promise<PortOwner | null> {
  if (process.platform === "linux") return await ownerFromProc(port);
  return process.platform === "win32" ? await ownerFromNetstat(port) : await ownerFromLsof(port);
}

/** The sentence for a person whose port is taken, with what to do. */
export function describeConflict(listen: TcpAddress, owner: PortOwner | null, portHint?: string): string {
  const advice = portHint ? `set ${portHint} to another port` : "choose another port";
  const who = `port ${listen.port} on ${listen.host} is held by ${describeOwner(owner)}`;
  return `${who}${describeRemedy(listen.port, owner)}, or ${advice}`;
}

function describeOwner(owner: PortOwner | null): string {
  if (!owner) return "a process that could not be found";
  const { pid, command, user, startedAt } = owner;
  const facts = [
    command && shorten(command),
    user && `user ${user}`,
    startedAt && `since ${startedAt.toLocaleString("sv-SE")}`, // a local time that reads like an ISO one
  ].filter((fact) => fact !== null);
  const who = pid === null ? "a process that this user may not see" : `pid ${pid}`;
  return facts.length > 0 ? `${who} (${facts.join(", ")})` : who;
}

function describeRemedy(port: number, owner: PortOwner | null): string {
  // lsof shows nine letters of a name.
  const isAirPlay = (port === 5000 || port === 7000) && /(^|\/)ControlCe(nter)?$/.test(owner?.command ?? "");
  if (isAirPlay) {
    const place = "System Settings → General → AirDrop & Handoff → AirPlay Receiver";
    return `, which is the AirPlay Receiver of macOS; turn it off in ${place}`;
  }
  if (!owner?.station) return "; stop it";
  const { home, service, managerPid, isCurrent } = owner.station;
  if (managerPid === process.pid) {
    return isCurrent
      ? `, which is ${service} of this very station; stop that`
      : `, a leftover of this very station: an earlier manager started it as ${service}; kill ${owner.pid} ends it`;
  }
  return managerPid !== null && isCurrent
    ? `, which is ${service} of the station in ${home}, whose manager (pid ${managerPid}) still runs; pugmark down there`
    : `, a leftover of ${service} of the station in ${home}, whose manager is gone; kill ${owner.pid} ends it`;
}

function shorten(command: string): string {
  return command.length > 120 ? `${command.slice(0, 119)}…` : command;
}

async function ownerFromProc(port: number): Promise<PortOwner | null> {
  const listener = listTcpListeners().find((one) => one.port === port);
  if (!listener) return null;
  const user = userName(listener.uid);
  const pids = readdirSync("/proc").filter(
    (name) => /^\d+$/.test(name) && socketInodesOf(name).includes(listener.inode),
  );
  // A manager that holds a socket has it too: the service says more.
  const pid = pids.find((one) => variableIn(environmentOf(one), "PROCESS_MANAGER_MARK") !== null) ?? pids[0];
  if (pid === undefined) return { pid: null, command: null, user, startedAt: null };
  const startedAtMs = startedAtMsOf(Number(pid));
  return {
    pid: Number(pid),
    command: readText(`/proc/${pid}/cmdline`).replaceAll("\0", " ").trim() || null,
    user,
    startedAt: startedAtMs === null ? null : new Date(startedAtMs),
    ...(await stationOf(environmentOf(pid))),
  };
}

function environmentOf(pid: string): string {
  return readText(`/proc/${pid}/environ`);
}

async function stationOf(environment: string): Promise<Pick<PortOwner, "station">> {
  const [mark, home, service] = ["MARK", "HOME", "SERVICE"].map((name) =>
    variableIn(environment, `PROCESS_MANAGER_${name}`),
  );
  if (!mark || !home || !service) return {};
  const holder = await currentHolder(home);
  return {
    station: { home, service, managerPid: holder?.pid ?? null, isCurrent: holder?.mark === mark },
  };
}

function userName(uid: string): string {
  const line = readText("/etc/passwd")
    .split("\n")
    .find((one) => one.split(":")[2] === uid);
  return line?.split(":")[0] ?? uid;
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

async function ownerFromLsof(port: number): Promise<PortOwner | null> {
  const owner = parseLsofOwner(await output("lsof", ["-nP", `-iTCP:${port}`, "-sTCP:LISTEN", "-FpcL"]));
  if (!owner) return null;
  const pid = String(owner.pid);
  const started = parsePsProcess(
    await output("env", ["LC_ALL=C", "ps", "-ww", "-o", "lstart=,command=", "-p", pid]),
  );
  const environment = await output("ps", ["-wwE", "-o", "command=", "-p", pid]);
  return { ...owner, startedAt: null, ...started, ...(await stationOf(environment)) };
}

async function ownerFromNetstat(port: number): Promise<PortOwner | null> {
  const pid = parseNetstatOwner(await output("netstat", ["-ano"]), port);
  if (pid === null) return null;
  const list = await output("tasklist", ["/fi", `PID eq ${pid}`, "/v", "/fo", "csv", "/nh"]);
  return { pid, ...parseTasklist(list), startedAt: null };
}

/** What a program prints; nothing where there is no such program, or it finds nothing. */
async function output(program: string, args: readonly string[]): Promise<string> {
  return (await run(program, args).catch(() => ({ stdout: "" }))).stdout;
}
