// How long is a service away when it is killed, and how many of its clients are refused?
// Beside it, in the same run: the same program respawned by nothing but `spawn` on `exit`, with its own socket.
//
//   node bench/crash.ts [kills]
import { type ChildProcess, spawn } from "node:child_process";
import { Agent, get } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { projectRoot } from "../src/config/config.ts";
import { freePort } from "../test/support/ports.ts";
import { testStation } from "../test/support/station.ts";
import { percentile, printMachine, spread } from "./support/report.ts";

const kills = Number(process.argv[2] ?? 10);
const clients = 8;
printMachine(`kill -9 of the API server, ${kills} times, under ${clients} clients`);

await using station = await testStation();
await station.start();

const held = await measure(Number(new URL(station.api).port), async () => {
  const before = (await station.services()).find(({ name }) => name === "api");
  if (!before?.pid) throw new Error("the API server does not run");
  process.kill(before.pid, "SIGKILL");
});

const port = await freePort();
const environment = { ...station.environment, API_PORT: String(port), DATABASE_URL: await databaseUrl() };
let bare: ChildProcess = respawn();
let ended = false;
const floor = await measure(port, async () => void bare.kill("SIGKILL"));
ended = true;
bare.kill("SIGKILL");
await station.end("SIGINT");

print("station, socket held", held);
print("bare respawn, own socket", floor);
console.log(
  `\nratio of the medians, kill → serving: ${(percentile(held.outages, 0.5) / percentile(floor.outages, 0.5)).toFixed(2)}`,
);

interface Outcome {
  readonly outages: number[];
  readonly counts: Record<"ok" | "refused" | "reset" | "other", number>;
}

async function measure(target: number, kill: () => Promise<void>): Promise<Outcome> {
  await untilServing(target);
  const counts = { ok: 0, refused: 0, reset: 0, other: 0 };
  const stop = new AbortController();
  const load = Promise.all(
    Array.from({ length: clients }, async () => {
      while (!stop.signal.aborted) {
        counts[await requestOnce(target)] += 1;
        await delay(10);
      }
    }),
  );
  const outages: number[] = [];
  for (let index = 0; index < kills; index += 1) {
    await delay(1_500);
    await kill();
    const begun = performance.now();
    await untilServing(target);
    outages.push(performance.now() - begun);
  }
  stop.abort();
  await load;
  return { outages, counts };
}

/** One request on a connection of its own, as a phone makes it. */
function requestOnce(target: number): Promise<keyof Outcome["counts"]> {
  return new Promise((resolve) => {
    const agent = new Agent({ keepAlive: false });
    const request = get(
      { host: "127.0.0.1", port: target, path: "/livez", agent, timeout: 10_000 },
      (response) => {
        response.resume().on("end", () => resolve(response.statusCode === 200 ? "ok" : "other"));
        response.on("error", () => resolve("reset"));
      },
    );
    request.on("timeout", () => request.destroy(new Error("timeout")));
    request.on("error", (error) => {
      const { code } = error as NodeJS.ErrnoException;
      resolve(code === "ECONNREFUSED" ? "refused" : code === "ECONNRESET" ? "reset" : "other");
    });
  });
}

async function untilServing(target: number): Promise<void> {
  while ((await requestOnce(target)) !== "ok");
}

function respawn(): ChildProcess {
  const child = spawn(process.execPath, ["src/api/main.ts"], {
    cwd: projectRoot,
    env: environment,
    stdio: "ignore",
  });
  child.once("exit", () => {
    if (!ended) bare = respawn();
  });
  return child;
}

async function databaseUrl(): Promise<string> {
  const { embeddedPostgres } = await import("../src/store/embedded-postgres.ts");
  const options = { folder: `${station.home}/database`, port: Number(station.environment.DATABASE_PORT) };
  return embeddedPostgres(options).url("pugmark_app");
}

function print(name: string, { outages, counts }: Outcome): void {
  console.log(`${name.padEnd(26)} kill → serving: ${spread(outages)}`);
  console.log(
    `${"".padEnd(26)} ${counts.ok} answered, ${counts.refused} refused, ${counts.reset} reset, ${counts.other} other`,
  );
}
