// How many positions a second does a station take, one by one and in batches, each answered after its commit?
// Beside it, in the same run: raw COPY of the same rows into the same Postgres.
//
//   node bench/ingest.ts [fixes]
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import pg from "pg";
import { from as copyFrom } from "pg-copy-streams";
import { embeddedPostgres } from "../src/store/embedded-postgres.ts";
import { testStation } from "../test/support/station.ts";
import { batches, devices, fix, singles } from "./support/fixes.ts";
import { fire, type Shot } from "./support/load.ts";
import { printMachine, rate, spread } from "./support/report.ts";

const total = Number(process.argv[2] ?? 100_000);
printMachine(`${total.toLocaleString("en")} fixes of ${devices} devices`);

await using station = await testStation({ LOG_LEVEL: "warn" });
await station.start("api");
const database = embeddedPostgres({
  folder: `${station.home}/database`,
  port: Number(station.environment.DATABASE_PORT),
});
const client = new pg.Client({ connectionString: database.url("owner") });
await client.connect();

const limit = await copyLimit();
console.log(`limit: COPY, one connection         ${limit.toLocaleString("en")} fixes/s`);
for (const connections of [1, 16, 64]) {
  const count = connections === 1 ? Math.ceil(total / 20) : Math.ceil(total / 4);
  await measure(`OsmAnd GET, ${connections} connections`, connections, singles(count, `s${connections}`), 1);
}
for (const size of [100, 1_000]) {
  await measure(`batches of ${size}, 4 connections`, 4, batches(total, size, `b${size}`), size);
}
await measure("the same batches again", 4, batches(total, 1_000, "b1000"), 1_000, 0);
await client.end();
await station.end("SIGINT");

async function measure(
  name: string,
  connections: number,
  shots: readonly Shot[],
  size: number,
  stored = shots.length * size,
): Promise<void> {
  const before = await countPositions();
  const { ms, samples, failed } = await fire(station.api, connections, shots);
  const added = (await countPositions()) - before;
  // A rate of lost positions is worth nothing.
  if (failed > 0 || added !== stored)
    throw new Error(`${name}: ${failed} failed, ${added} of ${stored} stored`);
  const perSecond = rate(shots.length * size, ms);
  const share = ((perSecond / limit) * 100).toFixed(1);
  console.log(
    `${name.padEnd(35)} ${perSecond.toLocaleString("en")} fixes/s (${share} % of COPY); ${spread(samples)}`,
  );
}

async function countPositions(): Promise<number> {
  const { rows } = await client.query("select count(*)::int as count from positions");
  return rows[0].count;
}

async function copyLimit(): Promise<number> {
  await client.query(
    "create unlogged table bench_ids as select gen_random_uuid() as id, n from generate_series(0, 99) n",
  );
  const ids: string[] = (await client.query("select id from bench_ids order by n")).rows.map(({ id }) => id);
  await client.query(
    "create table bench_copy (like public.positions including defaults, primary key (device_id, time))",
  );
  const rows = Array.from({ length: total }, (_, index) => {
    const { device, seconds, lat, lon } = fix(index);
    return `${ids[device]}\t${new Date(seconds * 1000).toISOString()}\t${lat}\t${lon}\t12\t5\t1.6\t45\n`;
  });
  const columns = "device_id, time, lat, lon, altitude_m, accuracy_m, speed_mps, heading_deg";
  const begun = performance.now();
  await pipeline(Readable.from(rows), client.query(copyFrom(`copy bench_copy (${columns}) from stdin`)));
  const ms = performance.now() - begun;
  await client.query("drop table bench_copy, bench_ids");
  return rate(total, ms);
}
