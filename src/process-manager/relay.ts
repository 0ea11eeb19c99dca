import { EventEmitter, once } from "node:events";
import net from "node:net";
import { assertPortFree } from "./listening-socket.ts";
import { messageOf } from "./process-manager-error.ts";
import { RelayedConnection } from "./relayed-connection.ts";
import type { TcpAddress } from "./resolve-definitions.ts";

/** How many connections may wait while no program takes them, and how long each may. */
export interface WaitingBound {
  readonly connectionsMax: number;
  readonly timeMaxMs: number;
}

const defaultWaiting: WaitingBound = { connectionsMax: 256, timeMaxMs: 10_000 };

/** Each takes two descriptors of the manager's; whoever is more is closed at once. */
const connectionsMax = 4_000;

/** A program that runs but refuses is asked again after this. */
const retryMs = 50;

/** How long the news of turned away clients is gathered, so that a flood of them is one line in the log. */
const complaintIntervalMs = 1_000;

/**
 * Holds a port for programs that cannot take a socket: each connection is passed on to the port on 127.0.0.1 where the
 * program listens. While there is none, connections wait; what waits too long or is too many is closed, and told.
 */
export class Relay {
  readonly #server: net.Server;
  readonly #complain: (text: string) => void;
  readonly #connections = new Set<RelayedConnection>();
  readonly #waiting = new Map<RelayedConnection, NodeJS.Timeout>();
  readonly #closings = new EventEmitter<{ closed: [] }>().setMaxListeners(0);
  readonly #turnedAway = { tooMany: 0, tooLong: 0 };
  readonly #bound: WaitingBound;
  #complaint: NodeJS.Timeout | null = null;
  #target: number | null = null;

  private constructor(server: net.Server, complain: (text: string) => void, bound: WaitingBound) {
    this.#server = server;
    this.#complain = complain;
    this.#bound = bound;
  }

  /** Listens. Throws `port-taken`, naming who has the port. `complain` is told of connections that were closed. */
  static async listen(
    address: TcpAddress,
    portHint: string | undefined,
    complain: (text: string) => void,
    bound = defaultWaiting,
  ): Promise<Relay> {
    await assertPortFree(address, portHint);
    // Nothing is read before the program is there: what a client sends meanwhile stays in the kernel, which bounds it.
    const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true });
    const relay = new Relay(server, complain, bound);
    server.maxConnections = connectionsMax;
    server.on("connection", (client) => relay.#accept(client));
    server.on("drop", () => relay.#countTurnedAway("tooMany"));
    server.on("error", (error) => complain(messageOf(error))); // of one accept: the others go on
    server.listen({ host: address.host, port: address.port, exclusive: true });
    await once(server, "listening");
    return relay;
  }

  /** Where new connections go from now on, and those that wait; null: all wait. Others stay where they are. */
  passTo(port: number | null): void {
    this.#target = port;
    if (port !== null) for (const connection of [...this.#waiting.keys()]) this.#pass(connection, port);
  }

  /** A port on 127.0.0.1 that nobody has at the moment, for a program to listen on. */
  async freePort(): Promise<number> {
    const server = net.createServer().listen({ host: "127.0.0.1", port: 0, exclusive: true });
    await once(server, "listening");
    const { port } = server.address() as net.AddressInfo;
    server.close();
    await once(server, "close");
    return port;
  }

  /** Resolves when no connection to that port is open, or the signal aborts. HTTP clients move on by themselves. */
  async drained(port: number, signal: AbortSignal): Promise<void> {
    while (!signal.aborted && [...this.#connections].some((connection) => connection.port === port))
      await once(this.#closings, "closed", { signal }).catch(() => undefined);
  }

  /** The program on that port has ended: its clients get what it still said, and then the end. */
  cut(port: number): void {
    if (this.#target === port) this.#target = null;
    for (const connection of this.#connections) if (connection.port === port) connection.endWithProgram();
  }

  /** Clients are refused from now on; every connection is closed. */
  close(): void {
    this.#server.close();
    for (const connection of this.#connections) connection.destroy();
    this.#tellTurnedAway();
  }

  #accept(client: net.Socket): void {
    const connection = new RelayedConnection(client, {
      nextTarget: () => this.#target,
      refused: () => this.#wait(connection, true),
      left: () => this.#closings.emit("closed"),
      closed: () => {
        this.#endWait(connection);
        this.#connections.delete(connection);
        this.#closings.emit("closed");
      },
    });
    this.#connections.add(connection);
    if (this.#target === null) this.#wait(connection, false);
    else this.#pass(connection, this.#target);
  }

  #pass(connection: RelayedConnection, port: number): void {
    this.#endWait(connection);
    connection.connect(port);
  }

  /** Waits for the next target; after a refusal, the same one is tried again as well. */
  #wait(connection: RelayedConnection, isRefused: boolean): void {
    const leftMs = connection.waitUntil(this.#bound.timeMaxMs) - performance.now();
    const isTooMany = this.#waiting.size >= this.#bound.connectionsMax;
    if (isTooMany || leftMs <= 0) {
      this.#turnAway(connection, isTooMany ? "tooMany" : "tooLong");
      return;
    }
    const next = (): void => {
      this.#waiting.delete(connection);
      if (isRefused && this.#target !== null) this.#pass(connection, this.#target);
      else this.#wait(connection, isRefused);
    };
    this.#waiting.set(connection, setTimeout(next, isRefused ? Math.min(retryMs, leftMs) : leftMs));
  }

  #endWait(connection: RelayedConnection): void {
    clearTimeout(this.#waiting.get(connection));
    this.#waiting.delete(connection);
  }

  #turnAway(connection: RelayedConnection, why: "tooMany" | "tooLong"): void {
    connection.destroy();
    this.#countTurnedAway(why);
  }

  #countTurnedAway(why: "tooMany" | "tooLong"): void {
    this.#turnedAway[why] += 1;
    this.#complaint ??= setTimeout(() => this.#tellTurnedAway(), complaintIntervalMs);
  }

  #tellTurnedAway(): void {
    if (this.#complaint) clearTimeout(this.#complaint);
    this.#complaint = null;
    const { tooMany, tooLong } = this.#turnedAway;
    const { connectionsMax: waitingMax, timeMaxMs } = this.#bound;
    if (tooLong > 0)
      this.#complain(`closed ${tooLong} connections: no program took them within ${timeMaxMs / 1000} s`);
    if (tooMany > 0)
      this.#complain(`closed ${tooMany} connections: ${waitingMax} waited, or ${connectionsMax} were open`);
    Object.assign(this.#turnedAway, { tooMany: 0, tooLong: 0 });
  }
}
