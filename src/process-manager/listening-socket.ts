import { once } from "node:events";
import net from "node:net";
import { getSystemErrorName } from "node:util";
import { ProcessManagerError, systemCodeOf } from "./process-manager-error.ts";
import type { TcpAddress } from "./resolve-definitions.ts";

/**
 * Node's own way to bind a socket without listening on it, used by `node:cluster` for the same purpose.
 * Undocumented, present since Node 0.11; returns a negative errno when it fails.
 */
type CreateServerHandle = (
  address: string,
  port: number,
  addressType: 4 | 6,
  fd: undefined,
  flags: number,
) => BoundHandle | number;

interface BoundHandle {
  readonly fd: number;
  getsockname(out: { port?: number }): number;
  close(): void;
}

const { _createServerHandle: createServerHandle } = net as unknown as {
  readonly _createServerHandle?: CreateServerHandle;
};

/** Whether sockets can be bound here and handed to children as descriptors. */
export const canHoldSockets = process.platform !== "win32" && createServerHandle !== undefined;

/**
 * A socket that the manager binds and its children listen on, one after the other or two at a time. From
 * the first child's `listen()` on nobody is refused: who comes while no child runs waits in the kernel's backlog.
 */
export class ListeningSocket {
  readonly #handle: BoundHandle;

  private constructor(handle: BoundHandle) {
    this.#handle = handle;
  }

  /** Binds. Throws `port-taken`, naming who has the port. */
  static async bind(listen: TcpAddress, portHint?: string): Promise<ListeningSocket> {
    await assertPortFree(listen, portHint);
    const { address, family } = await addressOf(listen.host);
    const handle = createServerHandle?.(address, listen.port, family === 6 ? 6 : 4, undefined, 0) ?? 0;
    if (typeof handle === "number") throw unbindable(listen, getSystemErrorName(handle));
    const bound: { port?: number } = {};
    handle.getsockname(bound);
    // libuv keeps an EADDRINUSE of bind for listen(), which we never call: the socket then has no port.
    if (bound.port !== listen.port) {
      handle.close();
      throw await portTaken(listen, portHint);
    }
    return new ListeningSocket(handle);
  }

  /** The descriptor to hand to a child. */
  get fd(): number {
    return this.#handle.fd;
  }

  /** From now on, and once no child has it, clients are refused. */
  close(): void {
    this.#handle.close();
  }
}

/** The address that the host is or has. Names are the exception, and so is what looks them up. */
async function addressOf(host: string): Promise<{ readonly address: string; readonly family: number }> {
  const family = net.isIP(host);
  if (family !== 0) return { address: host, family };
  const dns = await import("node:dns/promises");
  return await dns.lookup(host);
}

/** Resolves when the port can be listened on; throws `port-taken`, naming who has it. */
export async function assertPortFree(listen: TcpAddress, portHint?: string): Promise<void> {
  // Only trying tells: a look-up does not see the listeners of other users.
  const server = net.createServer();
  try {
    server.listen({ host: listen.host, port: listen.port, exclusive: true });
    await once(server, "listening");
  } catch (error) {
    const code = systemCodeOf(error);
    throw code === "EADDRINUSE" ? await portTaken(listen, portHint) : unbindable(listen, code, error);
  } finally {
    if (server.listening) {
      server.close();
      await once(server, "close");
    }
  }
}

async function portTaken(listen: TcpAddress, portHint?: string): Promise<ProcessManagerError> {
  const { describeConflict, findPortOwner } = await import("./port-owner.ts");
  const owner = await findPortOwner(listen.port);
  return new ProcessManagerError("port-taken", describeConflict(listen, owner, portHint));
}

function unbindable({ host, port }: TcpAddress, code: string, cause?: unknown): ProcessManagerError {
  const why =
    code === "EACCES"
      ? "this user may not bind it (EACCES)"
      : code === "EADDRNOTAVAIL"
        ? `${host} is no address of this machine`
        : code;
  return new ProcessManagerError("port-taken", `port ${port} on ${host} cannot be bound: ${why}`, { cause });
}
