// How long is a station away when its manager is killed with -9 under its exported systemd unit?
// Beside it, in the same run: the same station from `systemctl start`, where nothing has to be cleared away first.
//
//   node bench/systemd.ts [kills]        as root: it runs a systemd of its own
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { testStation } from "../test/support/station.ts";
import { noSystemd, startSystemd, until } from "../test/support/systemd.ts";
import { printMachine, spread } from "./support/report.ts";

if (noSystemd) throw new Error(noSystemd);
const kills = Number(process.argv[2] ?? 10);
printMachine(`kill -9 of the manager under its systemd unit, ${kills} times`);

await using station = await testStation();
await using systemd = await startSystemd();
const { exitCode, stderr } = await station.pugmark("export", "systemd", "--user", "--output", systemd.units);
if (exitCode !== 0) throw new Error(stderr);
await systemd.systemctl("daemon-reload");
await systemd.systemctl("start", "pugmark.service"); // the first start makes the database
await untilServing();

const starts: number[] = [];
const backs: number[] = [];
for (let index = 0; index < kills; index += 1) {
  await systemd.systemctl("stop", "pugmark.service");
  starts.push(await timed(() => systemd.systemctl("start", "pugmark.service")));
  const pid = managerPid();
  backs.push(
    await timed(async () => {
      process.kill(pid, "SIGKILL");
      // Until then it might be the old servers that answer.
      await until("another manager runs", async () => {
        if (managerPid() === pid) throw new Error("there is none yet");
      });
    }),
  );
}
console.log(`systemctl start → api, agent and chat serve   ${spread(starts)}`);
console.log(`kill -9 of the manager → they serve again     ${spread(backs)}`);

/** From the home: asking systemd again and again would cost the station its processor. */
function managerPid(): number {
  return JSON.parse(readFileSync(join(station.home, "manager.json"), "utf8")).pid;
}

async function timed(begin: () => unknown): Promise<number> {
  const beganAt = performance.now();
  await begin();
  await untilServing();
  return performance.now() - beganAt;
}

/** A new connection each time: one that the old process left half open would tell of that process. */
async function untilServing(): Promise<void> {
  for (const origin of [station.api, station.agent, station.chat])
    await until(`${origin} serves`, async () => {
      const { status } = await fetch(`${origin}/livez`, { headers: { connection: "close" } });
      if (status !== 200) throw new Error(`${origin} answers ${status}`);
    });
  await until("the database answers", async () => {
    const { status } = await fetch(`${station.api}/readyz`, { headers: { connection: "close" } });
    if (status !== 200) throw new Error(`the API server answers ${status}`);
  });
}
