import assert from "node:assert/strict";
import { testDatabase } from "../../test/support/postgres.ts";
import type { SupabaseProject } from "../../test/support/supabase-project.ts";
import { openPool, type Pool, query } from "../store/pool.ts";
import { type Sync, startSync } from "./app.ts";
import { startRecording } from "./recording.ts";
import type { PullNews } from "./routes/pull.ts";
import type { PushNews } from "./routes/push.ts";

/** A station of its own database, whose mirror works in this process. */
export interface TestStation extends AsyncDisposable {
  readonly name: string;
  readonly id: string;
  /** Acts as `pugmark_app`. */
  readonly pool: Pool;
  readonly databaseUrl: string;
  /** Connects it to the project, or to another one from then on. */
  readonly connect: (other?: Pick<SupabaseProject, "url" | "secretKey">) => Promise<void>;
  /** Ends the mirror, as without a network; the database stays. */
  readonly disconnect: () => Promise<void>;
  /** Sends all that waits, then fetches all that is there. */
  readonly exchange: () => Promise<void>;
  readonly push: (body?: object) => Promise<Extract<PushNews, { kind: "done" }>>;
  readonly pull: (body?: object) => Promise<Extract<PullNews, { kind: "done" }>>;
  readonly retry: () => Promise<Extract<PushNews, { kind: "done" }>>;
  /** Every row of a table as JSON, its own under the station's id: the same on both sides. */
  readonly rows: (table: string) => Promise<object[]>;
}

/** Makes a station and connects it. Whatever the mirror says of errors is in `troubles`. */
export async function startStation(
  name: string,
  project: Pick<SupabaseProject, "url" | "secretKey">,
  troubles: string[] = [],
): Promise<TestStation> {
  const database = await testDatabase();
  const pool = openPool({ url: database.url, role: "pugmark_app", name: "test" });
  const { rows } = await query<{ id: string }>(pool, "select sync.own_station() as id");
  const id = rows[0]?.id as string;
  let sync: Sync | undefined;
  const say = (fields: object, message: string) => void troubles.push(`${message} ${inspected(fields)}`);
  const log = { info: () => undefined, warn: say, error: say };
  const connect: TestStation["connect"] = async ({ url, secretKey } = project) => {
    const tables = await startRecording(pool, { names: ["all"], precisionM: 0 });
    const access = { url, key: secretKey, timeoutMs: 5_000 };
    sync = await startSync({ pool, project: access, stationName: name, tables, log });
  };
  const disconnect = async () => {
    await sync?.[Symbol.asyncDispose]();
    sync = undefined;
  };
  const last = async <T>(route: string, body: object): Promise<T> => {
    const handler = sync?.routes[route];
    if (!handler) throw new Error(`${name} is not connected`);
    let news: object | undefined;
    const signal = AbortSignal.timeout(30_000);
    const lines = handler({ body, query: new URLSearchParams(), signal });
    if (lines instanceof Promise) throw new Error(`${route} does not answer in lines`);
    for await (const line of lines) news = line;
    signal.throwIfAborted();
    return news as T;
  };
  const push: TestStation["push"] = (body = {}) => last("POST /push", body);
  const pull: TestStation["pull"] = (body = {}) => last("POST /pull", body);
  await connect();
  return {
    name,
    id,
    pool,
    databaseUrl: database.url,
    connect,
    disconnect,
    push,
    pull,
    retry: () => last("POST /retry", {}),
    exchange: async () => {
      await push();
      await pull();
    },
    rows: (table) => readAll(pool, table, id),
    async [Symbol.asyncDispose]() {
      await disconnect();
      await pool.end();
      await database[Symbol.asyncDispose]();
    },
  };
}

const tables = [
  "stations",
  "devices",
  "subjects",
  "deployments",
  "positions",
  "interactions",
  "conversations",
];

/**
 * Resolves once these stations and the project have the same, row by row, and nothing waits. A change comes into the feed
 * when no older transaction is open any more, those of neighbouring tests included.
 */
export async function untilEqual(
  project: Pool,
  stations: readonly TestStation[],
  exchange = (station: TestStation) => station.exchange(),
): Promise<void> {
  const deadline = Date.now() + 20_000;
  for (;;) {
    for (const station of stations) await exchange(station);
    const difference = await differenceOf(project, stations);
    if (difference === undefined) return;
    if (Date.now() > deadline) throw difference;
  }
}

async function differenceOf(project: Pool, stations: readonly TestStation[]): Promise<unknown> {
  const nobody = "00000000-0000-4000-8000-000000000000";
  try {
    for (const table of tables) {
      const rows = await readAll(project, table, nobody);
      for (const { name, ...station } of stations)
        assert.deepEqual(await station.rows(table), rows, `${table} of ${name}`);
    }
    for (const { name, pool } of stations)
      assert.deepEqual((await query(pool, "select * from sync.changes")).rows, [], `waiting at ${name}`);
    return undefined;
  } catch (error) {
    return error;
  }
}

/** Every row of a table, those without a station under this one. */
export async function readAll(pool: Pool, table: string, station: string): Promise<object[]> {
  const { rows } = await query<{ row: object }>(
    pool,
    `select to_jsonb(t) || jsonb_build_object('station_id', coalesce(t.station_id, $1))
       || case when to_jsonb(t) ? 'changed_by'
            then jsonb_build_object('changed_by', coalesce((to_jsonb(t) ->> 'changed_by')::uuid, $1)) else '{}' end as row
     from public.${table} t order by 1`,
    [station],
  );
  return rows.map(({ row }) => row);
}

function inspected(fields: object): string {
  const { err, ...rest } = fields as { err?: unknown };
  return `${JSON.stringify(rest)}${err instanceof Error ? ` ${err.stack}` : ""}`;
}
