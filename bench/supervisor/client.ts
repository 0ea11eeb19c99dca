import { get } from "node:http";
import { setTimeout as delay } from "node:timers/promises";

export type Answer = "ok" | "refused" | "reset" | "timed out" | "other";

/** One GET on a connection of its own. */
export function ask(port: number, path = "/", timeoutMs = 1_000): Promise<Answer> {
  return new Promise((resolve) => {
    const request = get({ host: "127.0.0.1", port, path, agent: false, timeout: timeoutMs }, (response) => {
      response.resume();
      response.on("end", () => resolve(response.statusCode === 200 ? "ok" : "other"));
      response.on("error", () => resolve("reset"));
    });
    request.on("timeout", () => {
      resolve("timed out");
      request.destroy();
    });
    request.on("error", (error: NodeJS.ErrnoException) => {
      const known = { ECONNREFUSED: "refused", ECONNRESET: "reset" } as const;
      resolve(known[error.code as keyof typeof known] ?? "other");
    });
  });
}

/** Milliseconds from `since` until the port answers well; null when it does not within the time. */
export async function untilServing(
  port: number,
  withinMs: number,
  since = performance.now(),
): Promise<number | null> {
  while (performance.now() - since < withinMs) {
    if ((await ask(port, "/", 500)) === "ok") return performance.now() - since;
    await delay(2);
  }
  return null;
}

/** Eight clients, each with a new connection for each request, 10 ms after the answer to the one before. */
export function load(port: number): () => Promise<Record<Answer, number>> {
  const counts: Record<Answer, number> = { ok: 0, refused: 0, reset: 0, "timed out": 0, other: 0 };
  let isOver = false;
  const client = async (): Promise<void> => {
    while (!isOver) {
      counts[await ask(port, "/", 2_000)] += 1;
      await delay(10);
    }
  };
  const clients = Promise.all(Array.from({ length: 8 }, client));
  return async () => {
    isOver = true;
    await clients;
    return counts;
  };
}
