import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { ResponseParser } from "./response-parser.ts";

/** Who sent a request, and is told of its answer. */
export interface Requester {
  /** The request is being written: from now on the other side may see it. */
  readonly onSent: () => void;
  readonly onHead: (status: number, headers: ReadonlyMap<string, string>) => void;
  /** A part of the body. The bytes are the requester's only until it returns. */
  readonly onBody: (bytes: Buffer) => void;
  readonly onEnd: () => void;
  /** The answer will not come, or not go on: a Node error, or a `ConnectionError`. */
  readonly onFailure: (error: unknown) => void;
}

/** What is asked: a POST of JSON. */
export interface Post {
  readonly path: string;
  /** Lines of the head, each with its CRLF. */
  readonly headers: string;
  readonly body: string;
}

/** A request under way. */
export interface Sent {
  /** Closes the connection, unless that requester's answer was whole. Nothing is told any more after that. */
  readonly abort: (requester: Requester) => void;
}

export interface ConnectionsOptions {
  readonly connectMs: number;
  /** A connection that was idle for longer is not used again. */
  readonly idleMs: number;
}

/** What becomes of a connection itself. */
export class ConnectionError extends Error {
  readonly code: "connect-timeout" | "closed" | "malformed";
  /** It had carried an answer before this request. */
  readonly wasUsed: boolean;

  constructor(code: ConnectionError["code"], message: string, wasUsed: boolean) {
    super(message);
    this.code = code;
    this.wasUsed = wasUsed;
  }
}

/** Bytes that are read at once. One buffer does for all: what is in it is read before anything else is. */
const readBuffer = Buffer.allocUnsafeSlow(64 * 1024);

/**
 * With more requests than these under way, what comes up in one turn of the event loop is written at its end: the other
 * side wakes up once for all of it, a tenth of what a call costs then. With fewer it would have nothing to do meanwhile.
 */
const fewConnections = 8;

/**
 * Connections to one server over HTTP/1.1, each of which carries one request at a time and is used again. A call to a
 * model costs what its two ends cost, and the client library was the dearest part of that: this one writes a request in
 * one system call and hands out what a read brought in one piece, without a stream between.
 */
export class Connections {
  readonly #open: (wasRead: (bytes: Buffer) => void) => Socket;
  readonly #readyEvent: "connect" | "secureConnect";
  readonly #host: string;
  readonly #options: ConnectionsOptions;
  readonly #all = new Set<Connection>();
  /** The one used last is at the end, and used first. */
  readonly #idle: Connection[] = [];
  /** Those with a request that is to be written at the end of this turn. */
  #unwritten: Connection[] = [];
  #sweep: NodeJS.Timeout | undefined;

  constructor(origin: string, options: ConnectionsOptions) {
    const { protocol, hostname, host: authority, port } = new URL(origin);
    const host = hostname.replace(/^\[|\]$/g, "");
    const isTls = protocol === "https:";
    const address = { host, port: Number(port || (isTls ? 443 : 80)), noDelay: true, keepAlive: true };
    this.#host = authority;
    this.#options = options;
    this.#readyEvent = isTls ? "secureConnect" : "connect";
    this.#open = isTls
      ? (wasRead) =>
          connectTls({ ...address, ALPNProtocols: ["http/1.1"], servername: host }).on("data", wasRead)
      : (wasRead) => connectTcp({ ...address, onread: { buffer: readBuffer, callback: passOn(wasRead) } });
  }

  post({ path, headers, body }: Post, requester: Requester): Sent {
    const length = Buffer.byteLength(body);
    const text = `POST ${path} HTTP/1.1\r\nhost: ${this.#host}\r\n${headers}content-length: ${length}\r\n\r\n${body}`;
    const connection = this.#take();
    // What is all ASCII need not be looked through for what is not.
    connection.take(text, length === body.length ? "latin1" : "utf8", requester);
    if (this.#all.size - this.#idle.length <= fewConnections) connection.write();
    else if (this.#unwritten.push(connection) === 1) setImmediate(() => this.#write());
    return connection;
  }

  #write(): void {
    const unwritten = this.#unwritten;
    this.#unwritten = [];
    for (const connection of unwritten) connection.write();
  }

  /** Closes all of them, whatever they carry. */
  close(): void {
    clearInterval(this.#sweep);
    for (const connection of this.#all) connection.fail(new ConnectionError("closed", "closed here", false));
  }

  #take(): Connection {
    const latest = performance.now() - this.#options.idleMs;
    for (let connection = this.#idle.pop(); connection; connection = this.#idle.pop()) {
      if (connection.idleSince > latest) return connection;
      connection.close();
    }
    const connection = new Connection(this.#open, this.#readyEvent, this.#options.connectMs, {
      idle: () => this.#keep(connection),
      closed: () => this.#forget(connection),
    });
    this.#all.add(connection);
    return connection;
  }

  #keep(connection: Connection): void {
    this.#idle.push(connection);
    this.#sweep ??= setInterval(() => this.#closeIdle(), this.#options.idleMs).unref();
  }

  #forget(connection: Connection): void {
    this.#all.delete(connection);
    const index = this.#idle.indexOf(connection);
    if (index >= 0) this.#idle.splice(index, 1);
  }

  /** Those that nobody used for long are at the front. */
  #closeIdle(): void {
    const latest = performance.now() - this.#options.idleMs;
    for (let first = this.#idle[0]; first && first.idleSince <= latest; first = this.#idle[0]) first.close();
  }
}

function passOn(wasRead: (bytes: Buffer) => void) {
  return (count: number, buffer: Uint8Array) => {
    wasRead((buffer as Buffer).subarray(0, count));
    // False would stop the reading.
    return true;
  };
}

/** By the code of Node's error: the other side closed while we wrote or waited. */
export function isReset(code: string | undefined): boolean {
  return code === "ECONNRESET" || code === "EPIPE";
}

/** One connection, which carries one request after the other. */
class Connection implements Sent {
  /** `performance.now()` of its last answer. */
  idleSince = 0;
  readonly #socket: Socket;
  readonly #told: { readonly idle: () => void; readonly closed: () => void };
  readonly #connecting: NodeJS.Timeout;
  #isReady = false;
  #wasUsed = false;
  /** What is to be written: at the end of this turn, or once it is connected. */
  #unsent: { readonly text: string; readonly encoding: "latin1" | "utf8" } | undefined;
  #requester: Requester | undefined;
  #parser: ResponseParser | undefined;

  constructor(
    open: (wasRead: (bytes: Buffer) => void) => Socket,
    readyEvent: "connect" | "secureConnect",
    connectMs: number,
    told: { readonly idle: () => void; readonly closed: () => void },
  ) {
    this.#told = told;
    this.#socket = open((bytes) => this.#read(bytes))
      .once(readyEvent, () => this.#ready())
      .on("error", (error: NodeJS.ErrnoException) =>
        this.fail(isReset(error.code) ? this.#broken("closed", error.message) : error),
      )
      // Without a listener for data, the end of one that is idle would not be seen.
      .on("end", () => this.#ended())
      .on("close", () => this.fail(this.#broken("closed", "the other side closed the connection")));
    this.#connecting = setTimeout(
      () => this.fail(this.#broken("connect-timeout", `no connection within ${connectMs} ms`)),
      connectMs,
    );
  }

  /** Takes on a request. It is written with `write`. */
  take(text: string, encoding: "latin1" | "utf8", requester: Requester): void {
    this.#requester = requester;
    this.#parser = new ResponseParser(requester);
    this.#unsent = { text, encoding };
  }

  /** Writes what is to be written, as soon as it is connected. */
  write(): void {
    const unsent = this.#unsent;
    if (!this.#isReady || !unsent) return;
    this.#unsent = undefined;
    this.#requester?.onSent();
    this.#socket.write(unsent.text, unsent.encoding);
  }

  abort(requester: Requester): void {
    if (this.#requester === requester) this.close();
  }

  /** Ends it in silence. */
  close(): void {
    this.#requester = undefined;
    this.fail(undefined);
  }

  /** Ends it, and tells whoever waits for an answer on it. */
  fail(error: unknown): void {
    clearTimeout(this.#connecting);
    const requester = this.#requester;
    this.#requester = undefined;
    this.#parser = undefined;
    this.#unsent = undefined;
    this.#socket.destroy();
    this.#told.closed();
    requester?.onFailure(error);
  }

  #ready(): void {
    clearTimeout(this.#connecting);
    this.#isReady = true;
    this.write();
  }

  #read(bytes: Buffer): void {
    const parser = this.#parser;
    // Nobody asked: whatever this is, no answer can be trusted to be the next request's.
    if (!parser) {
      this.close();
      return;
    }
    try {
      parser.push(bytes);
    } catch (error) {
      this.fail(this.#broken("malformed", error instanceof Error ? error.message : String(error)));
      return;
    }
    // Who was told may have had enough of it.
    if (parser === this.#parser && parser.isOver) this.#answered(parser);
  }

  #ended(): void {
    const parser = this.#parser;
    if (parser?.closed()) this.#answered(parser);
    else this.fail(this.#broken("closed", "the other side closed the connection"));
  }

  #answered(parser: ResponseParser): void {
    const requester = this.#requester;
    this.#requester = undefined;
    this.#parser = undefined;
    this.#wasUsed = true;
    // Answered before it was asked in full: what is left of the question would be taken for the next one.
    if (parser.keepsAlive && this.#socket.writableLength === 0) {
      this.idleSince = performance.now();
      this.#told.idle();
    } else this.fail(undefined);
    requester?.onEnd();
  }

  #broken(code: ConnectionError["code"], message: string): ConnectionError {
    return new ConnectionError(code, message, this.#wasUsed);
  }
}
