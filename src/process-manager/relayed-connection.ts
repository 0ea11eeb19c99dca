import net from "node:net";

/** What a connection asks and tells its relay. */
export interface ConnectionHost {
  /** Where connections go by now, or null. */
  readonly nextTarget: () => number | null;
  /** Nobody took it where it was to go. */
  readonly refused: () => void;
  /** It left its program for another. */
  readonly left: () => void;
  readonly closed: () => void;
}

/**
 * One client's connection and the one to the program that serves it. What comes from either side is read only as fast as
 * the other takes it, an end is passed on by itself, and so is a break.
 *
 * An HTTP client keeps its connection for many requests. It begins the next one only when it has the answer to the last,
 * and each stands for itself: so where another program is to be used by then, that request goes there.
 */
export class RelayedConnection {
  readonly #client: net.Socket;
  readonly #host: ConnectionHost;
  #program: net.Socket | null = null;
  #port: number | null = null;
  #isConnected = false;
  /** What was read from the client and belongs to a program that is not connected yet. */
  #pending: Buffer | null = null;
  /** The program spoke last, or nobody did: what the client says next may be a new request. */
  #isAnswered = true;
  /** It was heard to begin a request before it had the answer to the last: it stays, for more answers may be due. */
  #isImpatient = false;
  #waitsUntil: number | null = null;

  constructor(client: net.Socket, host: ConnectionHost) {
    this.#client = client;
    this.#host = host;
    client.on("data", (chunk) => this.#fromClient(chunk));
    client.on("drain", () => this.#program?.resume());
    client.on("end", () => this.#isConnected && this.#program?.end());
    client.on("error", () => undefined); // what it means is told by the close
    client.on("close", (isBroken) => {
      if (isBroken) breakOff(this.#program);
      else this.#program?.destroySoon();
      host.closed();
    });
  }

  /** The port of the program that it is connected to, or being connected. */
  get port(): number | null {
    return this.#port;
  }

  /** Until when it may wait: so long after it first had to. In the time of `performance.now()`. */
  waitUntil(timeMaxMs: number): number {
    this.#waitsUntil ??= performance.now() + timeMaxMs;
    return this.#waitsUntil;
  }

  /** Goes to that program. */
  connect(port: number): void {
    const program = net.connect({ host: "127.0.0.1", port, allowHalfOpen: true, noDelay: true });
    this.#program = program;
    this.#port = port;
    this.#isConnected = false;
    program.on("connect", () => {
      this.#isConnected = true;
      this.#waitsUntil = null;
      if (this.#pending) program.write(this.#pending);
      this.#pending = null;
      if (this.#client.readableEnded) program.end();
      else this.#client.resume();
    });
    program.on("data", (chunk) => {
      this.#isAnswered = true;
      if (!this.#client.write(chunk)) program.pause();
    });
    program.on("drain", () => this.#client.resume());
    program.on("end", () => this.#client.end());
    program.on("error", () => undefined);
    program.on("close", (isBroken) => {
      if (this.#program !== program) return;
      if (!this.#isConnected && !this.#client.destroyed) {
        this.#program = null;
        this.#port = null;
        this.#host.refused();
      } else if (isBroken) breakOff(this.#client);
      else this.#client.destroySoon();
    });
  }

  /** The program is gone: what it said goes to the client, and the connection ends. */
  endWithProgram(): void {
    const program = this.#program;
    if (!program || program.connecting) return;
    if (program.readableEnded) this.#client.destroySoon();
    else program.once("end", () => this.#client.destroySoon());
  }

  destroy(): void {
    breakOff(this.#client);
    this.#program?.destroy();
  }

  #fromClient(chunk: Buffer): void {
    const next = this.#host.nextTarget();
    const mayMove = this.#isAnswered && !this.#isImpatient && next !== this.#port;
    if (!this.#isAnswered && isRequest(chunk)) this.#isImpatient = true;
    this.#isAnswered = false;
    if (mayMove && next !== null && isRequest(chunk)) this.#moveTo(next, chunk);
    else if (!this.#program?.write(chunk)) this.#client.pause();
  }

  #moveTo(port: number, chunk: Buffer): void {
    const left = this.#program;
    this.#client.pause(); // it was read up to the end of this chunk, and goes on when the other is there
    this.#pending = chunk;
    this.connect(port);
    for (const event of ["data", "drain", "end"]) left?.removeAllListeners(event);
    left?.resume();
    left?.destroySoon();
    this.#host.left();
  }
}

/** Whether this is the beginning of an HTTP/1 request, by its first line. */
function isRequest(chunk: Buffer): boolean {
  const end = chunk.subarray(0, 8_192).indexOf("\n");
  return end > 0 && /^[A-Z]{3,20} \S+ HTTP\/1\.[01]\r?$/.test(chunk.toString("latin1", 0, end));
}

/** The other side sees a break, not an end. Where it was sent the end already, a reset would leave Node's handle open. */
function breakOff(socket: net.Socket | null): void {
  if (socket?.writableEnded) socket.destroy();
  else socket?.resetAndDestroy();
}
