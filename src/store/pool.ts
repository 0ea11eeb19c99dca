import pg from "pg";
import { isConnectionError, StoreError } from "./errors.ts";

export type Pool = pg.Pool;
/** What the work of a transaction is handed. */
export type Client = pg.PoolClient;

export interface PoolOptions {
  readonly url: string;
  /** Shown in pg_stat_activity. */
  readonly name: string;
  /** Role to act as; absent: whoever the URL logs in as. */
  readonly role?: "pugmark_app" | "pugmark_reader" | undefined;
  /** Connections at most. Default 8. */
  readonly max?: number;
  /** Milliseconds after which the database gives up on a statement. Default 30,000. */
  readonly statementTimeoutMs?: number;
}

/** Opens the one pool of a service. Connects when first asked to; close it with `end()`. */
export function openPool(options: PoolOptions): Pool {
  const { role } = options;
  const pool = new pg.Pool({
    connectionString: options.url,
    application_name: `pugmark-${options.name}`,
    max: options.max ?? 8,
    connectionTimeoutMillis: 5_000,
    idleTimeoutMillis: 60_000,
    statement_timeout: options.statementTimeoutMs ?? 30_000,
    keepAlive: true,
    // Awaited before the connection is handed out: one that cannot take the role is closed, not used as it is.
    ...(role
      ? { onConnect: async (client: pg.ClientBase) => void (await client.query(`set role ${role}`)) }
      : {}),
  });
  // An idle connection that breaks is replaced by the next query; without a listener it would end the process.
  pool.on("error", () => {});
  return pool;
}

/** Resolves when the database answers. Throws `StoreError` `database-away`. */
export async function ping(pool: Pool): Promise<void> {
  await query(pool, "select 1");
}

/** Runs one statement. Throws `StoreError` `database-away` where the database cannot be reached, or its disk is full. */
export async function query<Row extends pg.QueryResultRow>(
  runner: Pool | pg.PoolClient,
  statement: string | pg.QueryConfig,
  values?: unknown[],
): Promise<pg.QueryResult<Row>> {
  try {
    return await runner.query<Row>(statement as string, values);
  } catch (error) {
    throw translate(error);
  }
}

/** Runs `work` in one transaction, which is rolled back when it throws. */
export async function transaction<T>(pool: Pool, work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect().catch((error: unknown) => {
    throw translate(error);
  });
  // The pool listens only to idle connections: one that breaks between two statements would end the process.
  const ignore = () => {};
  client.on("error", ignore);
  try {
    await client.query("begin");
    const result = await work(client);
    await client.query("commit");
    client.off("error", ignore);
    client.release();
    return result;
  } catch (error) {
    // A connection whose rollback fails is broken: drop it rather than hand it to the next caller.
    const isBroken = await client.query("rollback").then(
      () => false,
      () => true,
    );
    client.release(isBroken);
    if (!isBroken) client.off("error", ignore);
    throw translate(error);
  }
}

/** SQLSTATE of a database that cannot write any more. */
const diskFull = "53100";
const awayMessage = "The database does not answer; try again in a moment.";
const fullMessage = "The disk of the database is full: nothing more is stored until there is room on it.";

function translate(error: unknown): unknown {
  if (error instanceof StoreError || !isConnectionError(error)) return error;
  const isFull = (error as { code?: unknown }).code === diskFull;
  return new StoreError("database-away", isFull ? fullMessage : awayMessage, { cause: error });
}
