import { Agent, request } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { clockMs } from "./question.ts";

/** Where questions are sent. */
export interface Target {
  readonly origin: string;
  readonly headers: Readonly<Record<string, string>>;
}

export const path = "/v1/chat/completions";

/** Everything that a caller can see of one answer. */
export interface Observed {
  /** 0: none. */
  status: number;
  ms: number;
  /** Until the first bytes of the body. */
  firstMs: number;
  /** How often bytes came, and the longest wait between two of those times. */
  reads: number;
  largestGapMs: number;
  events: number;
  body: string;
  /** `whole`: ended as HTTP says; `broken`: cut off, or refused; `waited`: not ended after `patienceMs`. */
  end: "whole" | "broken" | "waited" | "left";
}

export interface Asking {
  readonly answer: Promise<Observed>;
  /** Settles with the first bytes of the body, or with the end. */
  readonly begun: Promise<void>;
  /** Closes the connection; gives the moment, by `clockMs`. */
  readonly leave: () => number;
}

const kept = new Agent({ keepAlive: true, maxSockets: 512 });

export interface AskOptions {
  /** Where the answer is given up. */
  readonly patienceMs?: number;
  /** On a connection of its own, that nobody else's answer can disturb. */
  readonly alone?: boolean;
}

/** Asks, and watches the answer come. Never rejects. */
export function ask(target: Target, body: string, options: AskOptions = {}): Asking {
  const { patienceMs = 20_000, alone = false } = options;
  const seen: Observed = {
    status: 0,
    ms: 0,
    firstMs: 0,
    reads: 0,
    largestGapMs: 0,
    events: 0,
    body: "",
    end: "broken",
  };
  const answer = Promise.withResolvers<Observed>();
  const first = Promise.withResolvers<void>();
  const begunAt = performance.now();
  let lastAt = 0;
  const asking = request(`${target.origin}${path}`, {
    method: "POST",
    ...(alone ? { agent: false as const } : { agent: kept }),
    headers: {
      ...target.headers,
      "content-type": "application/json",
      "content-length": Buffer.byteLength(body),
    },
  });
  const patience = setTimeout(() => {
    finish("waited");
    asking.destroy();
  }, patienceMs);
  let finished = false;
  const finish = (end: Observed["end"]): void => {
    // Closing a connection that is given up is heard of as an error, too.
    if (finished) return;
    finished = true;
    clearTimeout(patience);
    seen.ms = performance.now() - begunAt;
    seen.end = end;
    first.resolve();
    answer.resolve(seen);
  };
  asking.on("response", (response) => {
    seen.status = response.statusCode ?? 0;
    response.on("data", (bytes: Buffer) => {
      const at = performance.now();
      if (seen.reads === 0) {
        seen.firstMs = at - begunAt;
        first.resolve();
      } else seen.largestGapMs = Math.max(seen.largestGapMs, at - lastAt);
      lastAt = at;
      seen.reads += 1;
      seen.body += bytes.toString();
    });
    response.on("end", () => {
      seen.events = seen.body.split("\ndata:").length;
      finish(response.complete ? "whole" : "broken");
    });
    response.on("error", () => finish("broken"));
  });
  asking.on("error", () => finish("broken"));
  asking.end(body);
  return {
    answer: answer.promise,
    begun: first.promise,
    leave: () => {
      const leftAt = clockMs();
      asking.destroy();
      finish("left");
      return leftAt;
    },
  };
}

/** Asks and waits for the whole answer. */
export async function askFor(target: Target, body: string, options?: AskOptions): Promise<Observed> {
  return await ask(target, body, options).answer;
}

/** What the model said in an answer, whole or streamed. `undefined` where that cannot be read. */
export function saidIn({ body }: Observed): string | undefined {
  try {
    if (!body.includes("data: {")) return JSON.parse(body).choices[0].message.content;
    return body
      .split("\n")
      .filter((line) => line.startsWith("data: {"))
      .map((line) => JSON.parse(line.slice(6)).choices[0]?.delta.content ?? "")
      .join("");
  } catch {
    return undefined;
  }
}

/** Polls until `look` gives something; `undefined` where it has not within `withinMs`. */
export async function within<T>(
  withinMs: number,
  look: () => Promise<T | undefined>,
): Promise<T | undefined> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const found = await look();
    if (found !== undefined || performance.now() > deadline) return found;
    await delay(5);
  }
}
