import { setTimeout as delay } from "node:timers/promises";
import { Pool } from "undici";

export interface Shot {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

export interface LoadResult {
  readonly ms: number;
  /** Milliseconds of each answered request. */
  readonly samples: readonly number[];
  /** Answers that were not 2xx, and requests that got none. */
  readonly failed: number;
}

/** Sends the shots over so many keep-alive connections, each with one request in flight, as fast as it goes. */
export async function fire(origin: string, connections: number, shots: readonly Shot[]): Promise<LoadResult> {
  const pool = new Pool(origin, { connections, pipelining: 1 });
  const samples: number[] = [];
  let failed = 0;
  let next = 0;
  const begun = performance.now();
  await Promise.all(
    Array.from({ length: connections }, async () => {
      for (let shot = shots[next++]; shot; shot = shots[next++]) {
        const at = performance.now();
        try {
          const { statusCode, body } = await pool.request(shot as Parameters<typeof pool.request>[0]);
          await body.text();
          if (statusCode >= 200 && statusCode < 300) samples.push(performance.now() - at);
          else failed += 1;
        } catch {
          failed += 1;
        }
      }
    }),
  );
  const ms = performance.now() - begun;
  await pool.close();
  return { ms, samples, failed };
}

/**
 * Sends so many shots a second at even distances, whether or not earlier ones are answered. A sample is what passed since
 * its shot was due, so that one slow answer cannot hide those that waited behind it.
 */
export async function fireAt(origin: string, perSecond: number, shots: readonly Shot[]): Promise<LoadResult> {
  const pool = new Pool(origin, { connections: 64, pipelining: 1 });
  const samples: number[] = [];
  let failed = 0;
  const begun = performance.now();
  const answers: Promise<void>[] = [];
  for (const [index, shot] of shots.entries()) {
    const dueAt = begun + (index / perSecond) * 1000;
    const earlyMs = dueAt - performance.now();
    if (earlyMs > 0) await delay(earlyMs);
    answers.push(
      answered(pool, shot).then((isTaken) => {
        if (isTaken) samples.push(performance.now() - dueAt);
        else failed += 1;
      }),
    );
  }
  await Promise.all(answers);
  const ms = performance.now() - begun;
  await pool.close();
  return { ms, samples, failed };
}

function answered(pool: Pool, shot: Shot): Promise<boolean> {
  return pool.request(shot as Parameters<typeof pool.request>[0]).then(
    async ({ statusCode, body }) => {
      await body.text();
      return statusCode >= 200 && statusCode < 300;
    },
    () => false,
  );
}
