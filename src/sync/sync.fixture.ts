import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import type { SupabaseProject } from "../../test/support/supabase-project.ts";
import { openPool, type Pool } from "../store/pool.ts";
import { PositionStore } from "../store/positions.ts";
import type { ReportedFix } from "../tracking/fix.ts";
import { type Sync, type SyncParts, startSync } from "./app.ts";
import type { MirrorChoice } from "./mirror-choice.ts";
import { startRecording } from "./recording.ts";

/** The mirror of a station's database; nothing goes over before `start`, but changes are recorded. */
export interface TestMirror extends AsyncDisposable {
  readonly database: TestDatabase;
  /** Acts as `pugmark_app`. */
  readonly pool: Pool;
  readonly positions: PositionStore;
  /** Log messages, each with its fields as JSON. */
  readonly log: readonly string[];
  /** What the mirror that runs answers. */
  readonly routes: () => Sync["routes"];
  /** Asks a route, as over the socket, and gives its answer, or its lines. */
  readonly ask: (route: string, body?: object) => Promise<Record<string, unknown>[]>;
  /** Ends the mirror; the database stays as it is. */
  readonly stop: () => Promise<void>;
  /** Starts it, again too, with another key where one is given, and files of photos where they are to be copied. */
  readonly start: (other?: { readonly key?: string; readonly photos?: SyncParts["photos"] }) => Promise<void>;
  /** Chooses anew what is mirrored. */
  readonly reopen: (choice: Partial<MirrorChoice>) => Promise<void>;
  /** A second one on the same database, started. */
  readonly second: () => Promise<TestMirror>;
}

/** Makes one, on a fresh database, for a project. */
export async function testMirror(
  { url, secretKey }: Pick<SupabaseProject, "url" | "secretKey">,
  choice: Partial<MirrorChoice> = {},
  given?: TestDatabase,
): Promise<TestMirror> {
  const database = given ?? (await testDatabase());
  const pool = openPool({ url: database.url, role: "pugmark_app", name: "test" });
  const choose = (chosen: Partial<MirrorChoice>) =>
    startRecording(pool, { names: ["all"], precisionM: 0, ...chosen });
  let tables = await choose(choice);
  const log: string[] = [];
  const line = (fields: object, message: string) => {
    const shown = (_key: string, value: unknown) => (value instanceof Error ? String(value) : value);
    log.push(`${message} ${JSON.stringify(fields, shown)}`);
  };
  let sync: Sync | undefined;
  const stop = async () => {
    await sync?.[Symbol.asyncDispose]();
    sync = undefined;
  };
  const routes = () => sync?.routes ?? {};
  return {
    database,
    pool,
    positions: new PositionStore(pool),
    log,
    stop,
    start: async ({ key = secretKey, photos } = {}) => {
      const project = { url, key, timeoutMs: 5_000 };
      sync = await startSync({
        pool,
        project,
        stationName: "test",
        tables,
        photos,
        log: { info: line, warn: line, error: line },
      });
    },
    reopen: async (chosen) => {
      tables = await choose(chosen);
    },
    second: async () => {
      const second = await testMirror({ url, secretKey }, choice, database);
      await second.start();
      return second;
    },
    routes,
    ask: async (route, body) => {
      const handler = routes()[route];
      if (!handler) throw new Error(`nothing answers ${route}`);
      const answer = handler({ body, query: new URLSearchParams(), signal: new AbortController().signal });
      const items = answer instanceof Promise ? [await answer] : await Array.fromAsync(answer);
      return items as Record<string, unknown>[];
    },
    async [Symbol.asyncDispose]() {
      await stop();
      await pool.end();
      if (!given) await database[Symbol.asyncDispose]();
    },
  };
}

/** So many fixes of a device, a second apart. */
export function fixes(
  device: string,
  count: number,
  from = Date.parse("2026-03-01T00:00:00Z"),
): ReportedFix[] {
  return Array.from({ length: count }, (_, index) => ({
    device,
    time: from + index * 1_000,
    lat: 51.5 + index / 100_000,
    lon: 4.5 - index / 100_000,
    accuracyM: 5,
    attributesJson: `{"sequence":${index}}`,
  }));
}

/** Resolves when it is so; looks again and again, with a deadline, and says what it last saw. */
export async function eventually<T>(look: () => Promise<T>, isSo: (seen: T) => boolean): Promise<T> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const seen = await look();
    if (isSo(seen)) return seen;
    if (Date.now() > deadline) throw new Error(`never came true; last seen: ${JSON.stringify(seen)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
