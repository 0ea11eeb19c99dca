import { EventEmitter, once } from "node:events";
import { createServer, type IncomingMessage, request, type ServerResponse } from "node:http";
import { buffer } from "node:stream/consumers";
import { Random } from "../../src/process-manager/faults/random.ts";
import { freePort } from "./ports.ts";

/** What may happen to a request on its way. */
export const faults = [
  /** The connection breaks before the server has the request. */
  "kill-before",
  /** The server has done what was asked; the connection breaks in place of its answer. */
  "kill-after",
  "slow",
  /** The server never gets it, and nobody answers. */
  "hang",
  401,
  409,
  413,
  /** With a Retry-After of one second. */
  429,
  500,
  /** As a gateway says it: a page of HTML. */
  502,
  503,
  /** The server has done what was asked; its answer breaks off in the middle. */
  "cut-off",
] as const;
export type Fault = (typeof faults)[number];

export interface FaultProxyOptions {
  /** The server behind it. */
  readonly target: string;
  /** The same seed has the same faults happen to the same requests, in order of their arrival. */
  readonly seed: number;
  /** Which share of the requests meets a fault, 0 to 1. */
  readonly rate: number;
  /** Those to draw from. Default: all. */
  readonly faults?: readonly Fault[];
  /** How long a hanging request is held before its connection breaks, where its client waits as long. Default: for ever. */
  readonly hangMs?: number;
  /** What a slow answer waits at most. Default 300. */
  readonly slowMs?: number;
}

/** An HTTP server that hands every request on to another, unless something happens to it. */
export interface FaultProxy extends AsyncDisposable {
  readonly url: string;
  /** How many requests met what; `none`: how many were handed on and answered as they should be. */
  readonly counts: ReadonlyMap<Fault | "none", number>;
  /** Resolves when so many more requests have arrived, or the signal aborts. */
  readonly arrivals: (count: number, signal?: AbortSignal) => Promise<void>;
  /** From now on this share of the requests meets a fault. */
  readonly storm: (rate: number) => void;
  /** From now on no request meets one. */
  readonly calm: () => void;
  /** Breaks every connection and refuses new ones. */
  readonly down: () => Promise<void>;
  /** Takes connections again, at the same address. */
  readonly up: () => Promise<void>;
}

export async function startFaultProxy(options: FaultProxyOptions): Promise<FaultProxy> {
  const { target, hangMs, slowMs = 300 } = options;
  const random = new Random(options.seed);
  const [first, ...others] = options.faults ?? faults;
  if (first === undefined) throw new Error("no fault to draw from");
  const drawn = [first, ...others] as const;
  let rate = options.rate;
  const counts = new Map<Fault | "none", number>();
  const port = await freePort();
  const arrivals = new EventEmitter();
  const timers = new Set<NodeJS.Timeout>();
  const after = (ms: number, deed: () => void) => {
    const timer = setTimeout(() => {
      timers.delete(timer);
      deed();
    }, ms);
    timers.add(timer);
  };

  const server = createServer(async (asked, answer) => {
    // Both are drawn for each request, so that a change of rate does not shift what the next ones draw.
    const [lot, fault, wait] = [random.below(1_000_000), random.pick(drawn), random.below(slowMs)];
    const met = lot < rate * 1_000_000 ? fault : "none";
    arrivals.emit("request");
    counts.set(met, (counts.get(met) ?? 0) + 1);
    try {
      if (met === "kill-before") return void answer.destroy();
      const body = await buffer(asked);
      if (met === "hang") return void (hangMs === undefined || after(hangMs, () => answer.destroy()));
      if (typeof met === "number") return refuse(answer, met);
      const given = await handOn(target, asked, body);
      if (met === "kill-after") return void answer.destroy();
      if (met === "cut-off") return cutOff(answer, given);
      const reply = () => void answer.writeHead(given.status, given.headers).end(given.body);
      if (met === "slow") after(wait, reply);
      else reply();
    } catch {
      // The client has given up, or the server is away.
      answer.destroy();
    }
  });
  const up = async () => {
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
  };
  const down = async () => {
    if (!server.listening) return;
    server.close();
    server.closeAllConnections();
    await once(server, "close");
  };
  await up();
  return {
    url: `http://127.0.0.1:${port}`,
    counts,
    arrivals: async (count, signal) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      let left = count;
      const arrived = () => {
        left -= 1;
        if (left === 0) resolve();
      };
      arrivals.on("request", arrived);
      signal?.addEventListener("abort", () => resolve(), { once: true });
      await promise;
      arrivals.off("request", arrived);
    },
    storm: (newRate) => {
      rate = newRate;
    },
    calm: () => {
      rate = 0;
    },
    down,
    up,
    async [Symbol.asyncDispose]() {
      await down();
      for (const timer of timers) clearTimeout(timer);
    },
  };
}

interface Answer {
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly body: Buffer;
}

/** Asks the server behind, on a connection of its own, and reads its answer to the end. */
async function handOn(target: string, asked: IncomingMessage, body: Buffer): Promise<Answer> {
  const { host, connection, "transfer-encoding": encoding, ...headers } = asked.headers;
  const handed = request(new URL(asked.url ?? "/", target), {
    method: asked.method,
    headers: { ...headers, "content-length": body.length },
    agent: false,
  });
  handed.end(body);
  const [given] = (await once(handed, "response")) as [IncomingMessage];
  const { connection: itsConnection, "transfer-encoding": itsEncoding, ...itsHeaders } = given.headers;
  return { status: given.statusCode ?? 502, headers: itsHeaders, body: await buffer(given) };
}

function refuse(answer: ServerResponse, status: number): void {
  const headers = status === 429 ? { "retry-after": "1" } : {};
  if (status === 502) {
    answer.writeHead(502, { "content-type": "text/html" });
    answer.end("<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>");
    return;
  }
  answer.writeHead(status, { "content-type": "application/json", ...headers });
  answer.end(JSON.stringify({ code: `FAULT${status}`, message: "made up by the fault proxy" }));
}

/** Promises more than it sends, and hangs up. */
function cutOff(answer: ServerResponse, { status, headers, body }: Answer): void {
  const promised = Buffer.concat([body, Buffer.alloc(100, " ")]);
  // A status that has no body could not be cut off.
  const isEmpty = status === 204 || status === 304;
  answer.writeHead(isEmpty ? 200 : status, { ...headers, "content-length": promised.length });
  answer.write(promised.subarray(0, promised.length / 2), () => answer.destroy());
}
