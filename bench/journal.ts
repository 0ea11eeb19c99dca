// How many interactions a second does the journal take, how long does each wait for the disk, and how soon does
// Postgres have them? Rates are offered by callers that each wait for their record before they make the next one.
//
//   node bench/journal.ts [records]
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { newInteraction, silent } from "../src/store/interaction.fixture.ts";
import { openInteractionLog } from "../src/store/interaction-log.ts";
import { openPool, query } from "../src/store/pool.ts";
import { startTestPostgres } from "../test/support/postgres.ts";
import { printMachine, rate, spread } from "./support/report.ts";

const total = Number(process.argv[2] ?? 50_000);
printMachine(`${total.toLocaleString("en")} interactions into the journal, and on into Postgres`);

await using postgres = await startTestPostgres({ durable: true });
const text = "The bird roosted at the north pond, as it did on most nights of that week. ".repeat(12);
const answer = newInteraction(
  {},
  { text, promptJson: JSON.stringify([{ role: "user", content: text }]) },
).content;

for (const [away, url] of [
  ["Postgres away", "postgres://nobody@127.0.0.1:1/nothing"],
  ["Postgres there", postgres.url],
] as const) {
  for (const shared of [true, false]) {
    for (const callers of [1, 64, 1_000]) await measure(away, url, shared, callers);
  }
}

async function measure(away: string, url: string, shared: boolean, callers: number): Promise<void> {
  const count = callers === 1 ? Math.ceil(total / 25) : total;
  const folder = mkdtempSync(join(tmpdir(), "pugmark-journal-"));
  const pool = openPool({ url, name: "bench" });
  const isThere = url === postgres.url;
  if (isThere) await query(pool, "truncate interactions");
  const log = openInteractionLog({ pool, folder, log: silent });
  const samples: number[] = [];
  let made = 0;
  const begun = performance.now();
  const cpu = process.cpuUsage();
  const caller = async () => {
    while (made < count) {
      made += 1;
      const content = shared ? answer : { ...answer };
      const at = performance.now();
      await log.record({ ...newInteraction({ cache: shared ? "HIT" : "MISS" }), content });
      samples.push(performance.now() - at);
    }
  };
  await Promise.all(Array.from({ length: callers }, caller));
  const ms = performance.now() - begun;
  const { user, system } = process.cpuUsage(cpu);
  const what = `${away}, ${shared ? "cache hits" : "new answers"}, ${callers} callers`;
  console.log(
    `${what.padEnd(46)} ${rate(count, ms).toLocaleString("en")}/s; ${spread(samples)}; ` +
      `${((user + system) / count).toFixed(1)} µs of CPU each`,
  );
  if (isThere) {
    const lag = log.status();
    while (log.status().records > 0) await log.settled();
    const all = performance.now() - begun;
    const { rows } = await query<{ n: number }>(pool, "select count(*)::int as n from interactions");
    if (rows[0]?.n !== count) throw new Error(`${rows[0]?.n} of ${count} in Postgres`);
    console.log(
      `${"".padEnd(46)} in Postgres: ${rate(count, all).toLocaleString("en")}/s; ${lag.records} were not yet`,
    );
  }
  await log[Symbol.asyncDispose]();
  await pool.end();
  rmSync(folder, { recursive: true });
}
