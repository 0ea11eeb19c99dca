import { closeSync, openSync, readdirSync, readlinkSync, readSync } from "node:fs";

/** A TCP socket that is listened on, as Linux lists it. */
export interface TcpListener {
  readonly port: number;
  readonly uid: string;
  readonly inode: string;
}

/** Every listening TCP socket of this machine, IPv4 and IPv6; empty anywhere but on Linux. */
export function listTcpListeners(): TcpListener[] {
  return ["/proc/net/tcp", "/proc/net/tcp6"].flatMap((path) => parseProcNetTcp(readListening(path)));
}

/** `0A` in the fourth column: TCP_LISTEN. */
function parseProcNetTcp(text: string): TcpListener[] {
  return text.split("\n").flatMap((line) => {
    const [, local, , state, , , , uid, , inode] = line.trim().split(/\s+/);
    if (state !== "0A" || !local || !uid || !inode) return [];
    return [{ port: Number.parseInt(local.slice(local.lastIndexOf(":") + 1), 16), uid, inode }];
  });
}

/** As much of the list as has the listening sockets: they come first, and ten thousand connections may follow. */
function readListening(path: string): string {
  const piece = Buffer.alloc(16 * 1024);
  let text = "";
  let file: number;
  try {
    file = openSync(path, "r");
  } catch {
    return text; // no Linux, or no IPv6
  }
  try {
    for (;;) {
      const bytes = readSync(file, piece);
      text += piece.toString("latin1", 0, bytes);
      const lastWhole = text.slice(text.lastIndexOf("\n", text.lastIndexOf("\n") - 1) + 1);
      if (bytes === 0 || !/^\s*(sl|\d+: \S+ \S+ 0A) /.test(lastWhole)) return text;
    }
  } finally {
    closeSync(file);
  }
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
