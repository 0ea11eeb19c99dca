import { type Pool, query } from "./pool.ts";

/** A lock that one session of the database holds, until it is disposed of or its connection ends. */
export interface AdvisoryLock extends AsyncDisposable {
  /** Aborts when the connection that held it is gone, and with it the lock. */
  readonly lost: AbortSignal;
}

/** Takes the lock of that number, or gives undefined where another session has it. Throws `database-away`. */
export async function tryLock(pool: Pool, number: number): Promise<AdvisoryLock | undefined> {
  const client = await pool.connect();
  const lost = new AbortController();
  const lose = () => lost.abort(new Error("the lock's connection to the database has ended"));
  client.on("error", lose);
  client.on("end", lose);
  const close = () => {
    client.off("end", lose);
    // Closed, not given back: a session that lives on would keep the lock.
    client.release(true);
  };
  try {
    const { rows } = await query<{ taken: boolean }>(
      client,
      "select pg_try_advisory_lock(7203, $1) as taken",
      [number],
    );
    if (!rows[0]?.taken) {
      close();
      return undefined;
    }
  } catch (error) {
    close();
    throw error;
  }
  return { lost: lost.signal, [Symbol.asyncDispose]: async () => close() };
}
