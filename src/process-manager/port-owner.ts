import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { promisify } from "node:util";
import type { TcpAddress } from "./resolve-definitions.ts";
import { listTcpListeners, socketInodesOf } from "./tcp-listeners.ts";

const run = promisify(execFile);

/** Who listens on a port, as far as this user may know. */
export interface PortOwner {
  readonly pid: number | null;
  readonly command: string | null;
  readonly user: string | null;
}

/** Looks up who listens on the port; null when nobody is found. */
export async function findPortOwner(port: number): Promise<PortOwner | null> {
  if (process.platform === "linux") return ownerFromProc(port);
  return process.platform === "win32" ? await ownerFromNetstat(port) : await ownerFromLsof(port);
}

/** The sentence for a person whose port is taken, with what to do. */
export function describeConflict(listen: TcpAddress, owner: PortOwner | null, portHint?: string): string {
  const advice = portHint ? `set ${portHint} to another port` : "choose another port";
  return `port ${listen.port} on ${listen.host} is held by ${describeOwner(owner)}; stop it, or ${advice}`;
}

function describeOwner(owner: PortOwner | null): string {
  if (!owner) return "a process that could not be found";
  const facts = [owner.command, owner.user ? `user ${owner.user}` : null].filter((fact) => fact !== null);
  const who = owner.pid === null ? "a process that this user may not see" : `pid ${owner.pid}`;
  return facts.length > 0 ? `${who} (${facts.join(", ")})` : who;
}

function ownerFromProc(port: number): PortOwner | null {
  const listener = listTcpListeners().find((one) => one.port === port);
  if (!listener) return null;
  const pid = pidOfSocket(listener.inode);
  const command = pid === null ? null : commandOf(pid);
  return { pid, command, user: userName(listener.uid) };
}

function pidOfSocket(inode: string): number | null {
  const pid = readdirSync("/proc").find((name) => /^\d+$/.test(name) && socketInodesOf(name).includes(inode));
  return pid === undefined ? null : Number(pid);
}

function commandOf(pid: number): string | null {
  const command = readText(`/proc/${pid}/cmdline`).replaceAll("\0", " ").trim();
  return command === "" ? null : shorten(command);
}

function shorten(command: string): string {
  return command.length > 120 ? `${command.slice(0, 119)}…` : command;
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
  const { stdout } = await run("lsof", ["-nP", `-iTCP:${port}`, "-sTCP:LISTEN", "-FpcL"]).catch(nothing);
  const field = (letter: string): string | null =>
    new RegExp(`^${letter}(.+)$`, "m").exec(stdout)?.[1] ?? null;
  const pid = field("p");
  return pid ? { pid: Number(pid), command: field("c"), user: field("L") } : null;
}

async function ownerFromNetstat(port: number): Promise<PortOwner | null> {
  const { stdout } = await run("netstat", ["-ano", "-p", "TCP"]).catch(nothing);
  const pid = new RegExp(`^\\s*TCP\\s+\\S+:${port}\\s+\\S+\\s+LISTENING\\s+(\\d+)`, "m").exec(stdout)?.[1];
  if (!pid) return null;
  const list = await run("tasklist", ["/fi", `PID eq ${pid}`, "/fo", "csv", "/nh"]).catch(nothing);
  return { pid: Number(pid), command: /^"([^"]+)"/.exec(list.stdout)?.[1] ?? null, user: null };
}

function nothing(): { stdout: string } {
  return { stdout: "" };
}
