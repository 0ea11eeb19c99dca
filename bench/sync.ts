// How many rows a second does the mirror carry to a Supabase project, beside supabase-js in a loop in the same run? And what
// does a fix that is taken in pay for the mirror: off, on, and with a project that is down?
//
//   node bench/sync.ts [rounds]
import { fork } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import pg from "pg";
import { embeddedPostgres } from "../src/store/embedded-postgres.ts";
import { closedPort } from "../test/support/ports.ts";
import { type TestStation, testStation } from "../test/support/station.ts";
import { batches, devices, fix, singles } from "./support/fixes.ts";
import { fire, fireAt, type Shot } from "./support/load.ts";
import { percentile, printMachine, rate } from "./support/report.ts";
import type { ProjectAddress } from "./support/supabase-project.ts";

const rounds = Number(process.argv[2] ?? 9);
const singlesLooped = 1_000;
const rowsLooped = 20_000;
const rowsMirrored = 50_000;
/** What one measurement of ingest takes. */
const secondsEach = 4;

printMachine(`the mirror, ${rounds} rounds`);
await using project = await openProject();
const keys = { SUPABASE_SERVICE_ROLE: project.secretKey, LOG_LEVEL: "warn" };
await using on = await openStation("on", { ...keys, SUPABASE_URL: project.url });
await using off = await openStation("off", { LOG_LEVEL: "warn" });
await using down = await openStation("down", { ...keys, SUPABASE_URL: `http://127.0.0.1:${closedPort}` });

await compareRates();
await compareIngest(1, singles);
await compareIngest(100, (count, run, from) => batches(count, 100, run, from));

interface BenchProject extends ProjectAddress {
  readonly supabase: SupabaseClient;
  readonly database: pg.Client;
}

async function openProject(): Promise<BenchProject & AsyncDisposable> {
  // In a session of its own, which is what Linux weighs against others.
  const child = fork(join(import.meta.dirname, "support", "supabase-project.ts"), { detached: true });
  const [address] = (await once(child, "message")) as [ProjectAddress];
  const database = new pg.Client({ connectionString: address.databaseUrl });
  await database.connect();
  return {
    ...address,
    supabase: createClient(address.url, address.secretKey, {
      auth: { persistSession: false, autoRefreshToken: false },
    }),
    database,
    async [Symbol.asyncDispose]() {
      await database.end();
      const exit = once(child, "exit");
      child.disconnect();
      await exit;
    },
  };
}

interface BenchStation {
  readonly mode: "on" | "off" | "down";
  readonly station: TestStation;
  readonly database: pg.Client;
}

async function openStation(
  mode: BenchStation["mode"],
  environment: Readonly<Record<string, string>>,
): Promise<BenchStation & AsyncDisposable> {
  const station = await testStation(environment);
  await station.start("api", ...(mode === "off" ? [] : ["sync"]));
  const folder = join(station.home, "database");
  const port = Number(station.environment.DATABASE_PORT);
  const database = new pg.Client({ connectionString: embeddedPostgres({ folder, port }).url("owner") });
  // Where the run breaks off, the station ends before its connections do.
  database.on("error", () => {});
  await database.connect();
  return {
    mode,
    station,
    database,
    async [Symbol.asyncDispose]() {
      await database.end();
      await station[Symbol.asyncDispose]();
    },
  };
}

/** Loops and the mirror take turns; what each carried is counted in the project before its rate is believed. */
async function compareRates(): Promise<void> {
  const { seconds } = fix(0);
  await project.database.query("select public.ensure_positions_partition(to_timestamp($1))", [seconds]);
  const rates: Record<"one" | "many" | "mirror", number[]> = { one: [], many: [], mirror: [] };
  for (let round = 0; round < Math.min(rounds, 3); round += 1) {
    rates.one.push(await checked(singlesLooped, () => loop(singlesLooped, 1)));
    rates.many.push(await checked(rowsLooped, () => loop(rowsLooped, 500)));
    rates.mirror.push(await checked(rowsMirrored, () => mirror(`mirror${round}`)));
  }
  const slowest = median(rates.one);
  for (const [name, samples] of [
    ["supabase-js, a row each upsert", rates.one],
    ["supabase-js, 500 rows each upsert", rates.many],
    ["the mirror, its backlog", rates.mirror],
  ] as const) {
    const perSecond = median(samples);
    const spread = `${Math.min(...samples)} to ${Math.max(...samples)}`;
    console.log(`${name.padEnd(35)} ${perSecond} rows/s (${spread}), × ${(perSecond / slowest).toFixed(1)}`);
  }
}

/** Rows a second of what `carry` does, which gives the milliseconds that it took for so many positions. */
async function checked(rows: number, carry: () => Promise<number>): Promise<number> {
  const before = await countPositions(project.database);
  const ms = await carry();
  const added = (await countPositions(project.database)) - before;
  if (added !== rows) throw new Error(`${added} of ${rows} rows have arrived`);
  return rate(rows, ms);
}

/** The same columns as the mirror sends: an upsert costs the server by the value. */
async function loop(count: number, size: number): Promise<number> {
  const [device, station] = [randomUUID(), randomUUID()];
  const rows = Array.from({ length: count }, (_, index) => {
    const { seconds, lat, lon } = fix(index * devices);
    const time = new Date(seconds * 1000).toISOString();
    const known = { altitude_m: 12, accuracy_m: 5, speed_mps: 1.6, heading_deg: 45 };
    const unknown = { battery: null, outlier: null, segment: null, attributes: null };
    return {
      device_id: device,
      time,
      lat,
      lon,
      ...known,
      ...unknown,
      received_at: time,
      station_id: station,
    };
  });
  const begun = performance.now();
  for (let from = 0; from < count; from += size) {
    const { error } = await project.supabase
      .from("positions")
      .upsert(rows.slice(from, from + size), { onConflict: "device_id,time", ignoreDuplicates: true });
    if (error) throw new Error(error.message);
  }
  return performance.now() - begun;
}

/** From the first row of a backlog that arrives to the last. */
async function mirror(run: string): Promise<number> {
  const { station, database } = on;
  await station.pugmark("stop", "sync");
  await fire(station.api, 4, batches(rowsMirrored, 1_000, run));
  const before = await feedEnd();
  const started = station.pugmark("start", "sync");
  let begun = performance.now();
  while ((await feedEnd()) === before) begun = performance.now();
  await drained(database);
  const ms = performance.now() - begun;
  await started;
  return ms;
}

type ShotsOf = (fixes: number, run: string, from: number) => Shot[];

/** Each mode in turn, several times, so that what else the machine does meets all of them. */
async function compareIngest(size: number, shotsOf: ShotsOf): Promise<void> {
  const run = `steady${size}`;
  // Half of what one client alone gets out of a station: about half a core. It makes the devices known, too.
  for (const { station } of [on, down]) await fire(station.api, 1, shotsOf(200 * size, run, 0));
  const { ms } = await fire(off.station.api, 1, shotsOf(200 * size, run, 0));
  const perSecond = Math.max(1, Math.round(rate(200, ms) / 2));
  const fixesEach = perSecond * secondsEach * size;
  const p99s: Record<BenchStation["mode"], number[]> = { off: [], on: [], down: [] };
  const medians: Record<BenchStation["mode"], number[]> = { off: [], on: [], down: [] };
  for (let round = -1; round < rounds; round += 1) {
    for (const { mode, station, database } of rotated([off, on, down], round)) {
      const shots = shotsOf(fixesEach, run, 200 * size + (round + 1) * fixesEach);
      const { samples, failed } = await fireAt(station.api, perSecond, shots);
      if (failed > 0) throw new Error(`${run}, mirror ${mode}: ${failed} failed`);
      if (mode === "on") await drained(database);
      // The first round warms up.
      if (round < 0) continue;
      p99s[mode].push(percentile(samples, 0.99));
      medians[mode].push(percentile(samples, 0.5));
    }
  }
  const backlog = await waiting(down.database);
  if (backlog === 0) throw new Error("with the project down, nothing waits for it");
  console.log(`\n${size} a request, ${perSecond} requests a second`);
  for (const mode of ["off", "on", "down"] as const) {
    const p99 = median(p99s[mode]);
    const ratio = median(p99s[mode].map((value, round) => value / (p99s.off[round] as number)));
    const spread = `${Math.min(...p99s[mode]).toFixed(2)} to ${Math.max(...p99s[mode]).toFixed(2)}`;
    console.log(
      `  mirror ${mode.padEnd(5)} p50 ${median(medians[mode]).toFixed(2)} ms, ` +
        `p99 ${p99.toFixed(2)} ms (${spread}), × ${ratio.toFixed(3)} of off`,
    );
  }
}

function rotated<T>(items: readonly T[], by: number): T[] {
  const from = ((by % items.length) + items.length) % items.length;
  return [...items.slice(from), ...items.slice(0, from)];
}

function median(samples: readonly number[]): number {
  return percentile(samples, 0.5);
}

async function countPositions(client: pg.Client): Promise<number> {
  const { rows } = await client.query("select count(*)::int as count from public.positions");
  return rows[0].count;
}

/** Of the project's record of changes, which is quicker to look at than the rows. */
async function feedEnd(): Promise<string> {
  const { rows } = await project.database.query("select max(seq)::text as end from sync.changes");
  return rows[0].end;
}

async function waiting(database: pg.Client): Promise<number> {
  const { rows } = await database.query("select count(*)::int as count from sync.changes");
  return rows[0].count;
}

async function drained(database: pg.Client): Promise<void> {
  while ((await waiting(database)) > 0) await delay(5);
}
