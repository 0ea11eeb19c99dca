import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** A TCP socket that is listened on, as Linux lists it. */
export interface TcpListener {
  readonly port: number;
  readonly uid: string;
  readonly inode: string;
}

/** Every listening TCP socket of this machine, IPv4 and IPv6; empty anywhere but on Linux. */
export function listTcpListeners(): TcpListener[] {
  return ["/proc/net/tcp", "/proc/net/tcp6"].flatMap((path) => parseProcNetTcp(readOrEmpty(path)));
}

/** The listening sockets in the text of `/proc/net/tcp` or `tcp6`. */
function parseProcNetTcp(text: string): TcpListener[] {
  return text
    .split("\n")
    .slice(1)
    .flatMap((line) => {
      const [, local, , state, , , , uid, , inode] = line.trim().split(/\s+/);
      if (state !== "0A" || !local || !uid || !inode) return []; // 0A: TCP_LISTEN
      return [{ port: Number.parseInt(local.slice(local.lastIndexOf(":") + 1), 16), uid, inode }];
    });
}

/** A server listens before it takes clients: its sockets are among the first, however many connections it has. */
const descriptorsMax = 256;

/** The inodes of the sockets that a Linux process has open; empty where we may not look. */
export function socketInodesOf(pid: number | string): string[] {
  try {
    return readdirSync(`/proc/${pid}/fd`)
      .slice(0, descriptorsMax)
      .flatMap((fd) => /^socket:\[(\d+)\]$/.exec(linkOf(`/proc/${pid}/fd/${fd}`))?.[1] ?? []);
  } catch {
    return []; // another user's, or gone
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return ""; // closed meanwhile
  }
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}
