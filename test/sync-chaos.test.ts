// A station writes, changes and deletes while the sync process and the project are killed and everything between the two
// goes wrong. Afterwards both sides are equal, row by row; what the project refuses is set aside with its reason.
//
//   SYNC_SEED=1 SYNC_CHANGES=20000 npm test -- test/sync-chaos.test.ts
import assert from "node:assert/strict";
import { randomInt, randomUUID } from "node:crypto";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { LocalError, linesLocally } from "../src/http/local-client.ts";
import { Random } from "../src/process-manager/faults/random.ts";
import { openPool } from "../src/store/pool.ts";
import { type FaultProxy, startFaultProxy } from "./support/fault-proxy.ts";
import { mirrorDifferences } from "./support/mirror-differences.ts";
import { type TestDatabase, testDatabase } from "./support/postgres.ts";
import { StationLife } from "./support/station-life.ts";
import { type SupabaseProject, startSupabaseProject } from "./support/supabase-project.ts";
import { type SyncProcess, syncProcess } from "./support/sync-process.ts";

const seed = Number(process.env.SYNC_SEED ?? randomInt(2 ** 31));
const changes = Number(process.env.SYNC_CHANGES ?? 20_000);
const poisonous = 5;
/** How long the weather lasts when the station has written everything. */
const stormMs = 5_000;
/** After each happening, until the next one: so many requests, where there are as many to make and so much time to. */
const requestsEach = 12;
const requestsMs = 1_500;

test(`whatever happens on the way, a project has every row of its station (SYNC_SEED=${seed})`, {
  timeout: 300_000,
}, async (t) => {
  const random = new Random(seed);
  await using database = await testDatabase();
  await using project = await startSupabaseProject();
  await using proxy = await startFaultProxy({ target: project.url, seed, rate: 0.3, hangMs: 500 });
  await using sync = syncProcess({
    DATABASE_URL: database.url,
    SUPABASE_URL: proxy.url,
    SUPABASE_SERVICE_ROLE: project.secretKey,
  });
  const pool = openPool({ url: database.url, name: "test", role: "pugmark_app" });
  await using _pool = { [Symbol.asyncDispose]: () => pool.end() };
  const owner = new pg.Client(database.url);
  await owner.connect();
  await using _owner = { [Symbol.asyncDispose]: () => owner.end() };
  await execute(project, "alter table public.interactions add constraint poison check (model <> 'poison')");
  await sync.start();

  const life = new StationLife(pool, random);
  const happenings = shuffled(random, disturbances);
  const poison = Array.from({ length: poisonous }, () => randomUUID()).sort();
  for (const [index, disturb] of happenings.entries()) {
    const lived = life.live(Math.ceil((changes * (index + 1)) / happenings.length) - life.changes);
    await Promise.all([lived, disturb({ proxy, project, sync, lived })]);
    await proxy.arrivals(requestsEach, AbortSignal.timeout(requestsMs));
    if (index === 3) await owner.query(insertPoison, [poison]);
  }
  await untilDrained(owner, AbortSignal.timeout(stormMs));
  const left = await state(owner);
  const faulty = [...proxy.counts].reduce((sum, [met, count]) => sum + (met === "none" ? 0 : count), 0);
  t.diagnostic(
    `${life.changes} changes, of which ${left.waiting} entries of the outbox are left when it clears up`,
  );
  t.diagnostic(`${faulty} requests met a fault: ${JSON.stringify(Object.fromEntries(proxy.counts))}`);
  assert.ok(faulty >= happenings.length, "the weather was fair");

  proxy.calm();
  await retry(sync);
  await until(owner, sync, ({ waiting }) => waiting === 0);
  // What was refused by nobody but the weather is taken now.
  await retry(sync);
  const { parked } = await until(
    owner,
    sync,
    ({ waiting, parked }) => waiting === 0 && parked.length === poisonous,
  );
  assert.deepEqual(parked.map(({ row_id }) => row_id).sort(), poison);
  for (const { reason } of parked) assert.match(reason, /violates check constraint "poison"/);
  const differences = await compare(database, project);
  assert.equal(
    differences.filter((one) => one.includes("the project lacks") && one.includes('"poison"')).length,
    poisonous,
  );
  assert.deepEqual(
    differences.filter((one) => !one.includes('"poison"')),
    [],
  );

  await execute(project, "alter table public.interactions drop constraint poison");
  await retry(sync);
  await until(owner, sync, ({ waiting, parked }) => waiting + parked.length === 0);
  assert.deepEqual(await compare(database, project), []);
});

interface Stage {
  readonly proxy: FaultProxy;
  readonly project: SupabaseProject;
  readonly sync: SyncProcess;
  /** Resolves when the station has written what it writes meanwhile. */
  readonly lived: Promise<void>;
}

const disturbances: readonly ((stage: Stage) => Promise<void>)[] = [
  ...Array(3).fill(killSync),
  ...Array(2).fill(killProject),
  ...Array(2).fill(cutOff),
  ...Array(2).fill(tryAgain),
];

/** In the middle of a request, where there is one. */
async function killSync({ proxy, sync, lived }: Stage): Promise<void> {
  await Promise.race([proxy.arrivals(1), lived]);
  await sync.kill();
  await sync.start();
}

async function killProject({ proxy, project, lived }: Stage): Promise<void> {
  await Promise.race([proxy.arrivals(1), lived]);
  await project.kill();
  await lived;
  await project.restart();
}

async function cutOff({ proxy, lived }: Stage): Promise<void> {
  await proxy.down();
  await lived;
  await proxy.up();
}

async function tryAgain({ sync }: Stage): Promise<void> {
  await retry(sync);
}

const insertPoison = `
  insert into public.interactions (id, created_at, route, caller, request_id, model, prompt, outcome, processing_time_ms)
  select id, now(), '/chat', 'local', 'poison', 'poison', '[]', 'ok', 1 from unnest($1::uuid[]) as id`;

function shuffled<T>(random: Random, items: readonly T[]): T[] {
  const left = [...items];
  return items.flatMap(() => left.splice(random.below(left.length), 1));
}

/** What a person does who has seen the alarm. Says no more than that it was asked: what follows is awaited elsewhere. */
async function retry(sync: SyncProcess): Promise<void> {
  const enough = new AbortController();
  try {
    for await (const _ of linesLocally(sync.socket, {
      method: "POST",
      path: "/retry",
      signal: enough.signal,
    })) {
      enough.abort();
    }
  } catch (error) {
    if (!enough.signal.aborted && !(error instanceof LocalError)) throw error;
  }
}

interface MirrorState {
  /** Entries of the outbox. */
  readonly waiting: number;
  readonly parked: readonly { readonly row_id: string; readonly reason: string }[];
}

async function state(owner: pg.Client): Promise<MirrorState> {
  const { rows: changes } = await owner.query("select count(*)::int as waiting from sync.changes");
  const { rows: parked } = await owner.query("select row_id, reason from sync.parked_rows");
  return { waiting: changes[0].waiting, parked };
}

async function until(
  owner: pg.Client,
  sync: SyncProcess,
  holds: (state: MirrorState) => boolean,
): Promise<MirrorState> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const seen = await state(owner);
    if (holds(seen)) return seen;
    if (Date.now() > deadline) throw new Error(`last seen: ${JSON.stringify(seen)}\n${sync.output()}`);
    await delay(50);
  }
}

/** Or until the signal aborts. */
async function untilDrained(owner: pg.Client, signal: AbortSignal): Promise<void> {
  while (!signal.aborted && (await state(owner)).waiting > 0) await delay(50);
}

/** The differences that remain: what comes from the project, such as the station's own row there, comes when it is looked for. */
async function compare(database: TestDatabase, project: SupabaseProject): Promise<string[]> {
  const deadline = Date.now() + 20_000;
  for (;;) {
    const differences = await mirrorDifferences(database.url, project.databaseUrl);
    if (!differences.some((one) => one.includes("the project alone has")) || Date.now() > deadline)
      return differences;
    await delay(200);
  }
}

async function execute(project: SupabaseProject, statement: string): Promise<void> {
  const client = new pg.Client(project.databaseUrl);
  await client.connect();
  await client.query(statement).finally(() => client.end());
}
