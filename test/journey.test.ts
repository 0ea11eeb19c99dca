import assert from "node:assert/strict";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { projectRoot } from "../src/config/config.ts";
import { type LmStudio, startLmStudio } from "./lm-studio/lm-studio.ts";
import { respond } from "./lm-studio/scripts/distance.ts";
import { processesOf, type TestStation, testStation } from "./support/station.ts";

// The main job, from an empty home to nothing left: the tests below are steps of one journey, in this order.

const data = join(projectRoot, "test", "data");
let lmStudio: LmStudio;
let station: TestStation;

before(async () => {
  lmStudio = await startLmStudio({ respond });
  station = await testStation({ DEEPSEEK_API_URL: `${lmStudio.url}/v1/completions` });
});
after(async () => {
  await station[Symbol.asyncDispose]();
  await lmStudio[Symbol.asyncDispose]();
});

async function getJson(url: string) {
  const response = await fetch(url);
  assert.equal(response.status, 200, url);
  return JSON.parse(await response.text());
}

test("a station starts from nothing and says where it is", async () => {
  await station.start();
  const services = await station.services();
  assert.deepEqual(
    services.map(({ name, state }) => [name, state]),
    ["database", "chat", "agent", "api", "lm-studio"].map((name) => [name, "ready"]),
  );
});

test("the Movebank file goes in: every row is stored or named, the outliers flagged", async () => {
  const file = join(data, "movebank-oystercatcher-O_ASSEN-2019.csv");
  const { exitCode, stdout, stderr } = await station.pugmark("import", file, "--json");
  assert.equal(exitCode, 0, stderr);
  const { read, stored, duplicates, outliers, rejected } = JSON.parse(stdout);
  assert.deepEqual(
    { read, stored, duplicates, outliers, rejected },
    { read: 5263, stored: 5263, duplicates: 0, outliers: 4, rejected: [] },
  );
});

test("the same file again changes nothing", async () => {
  const file = join(data, "movebank-oystercatcher-O_ASSEN-2019.csv");
  const { exitCode, stdout } = await station.pugmark("import", file, "--json");
  assert.equal(exitCode, 0);
  const { stored, duplicates } = JSON.parse(stdout);
  assert.deepEqual({ stored, duplicates }, { stored: 0, duplicates: 5263 });
});

test("a GPX file goes in, and its distance is what its source says", async () => {
  const { exitCode, stdout, stderr } = await station.pugmark("import", join(data, "bus-304-limerick.gpx"));
  assert.equal(exitCode, 0, stderr);
  assert.match(stdout, /2,?144/);
  const summary = await getJson(`${station.api}/api/v1/subjects/bus-304-limerick/summary`);
  assert.equal(summary.fixes, 2144);
  assert.ok(Math.abs(summary.distance_m - 14_190.1) < 0.1, String(summary.distance_m));
});

test("the birds have their fixes, and the outliers are there for who asks", async () => {
  const summary = async (query: string) => getJson(`${station.api}/api/v1/subjects/5515879/summary${query}`);
  const clean = await summary("");
  const whole = await summary("?include_outliers=true");
  assert.equal(whole.fixes, 1194);
  assert.ok(clean.fixes < whole.fixes);
  assert.ok(
    clean.max_speed_mps < 50 && whole.max_speed_mps > 100,
    `${clean.max_speed_mps} ${whole.max_speed_mps}`,
  );
});

test("the latest positions and a track come out", async () => {
  const { data: latest } = await getJson(`${station.api}/api/v1/positions/latest`);
  assert.equal(latest.length, 3);
  const track = await fetch(`${station.api}/api/v1/subjects/5515867/track?format=csv&limit=10000`);
  const lines = (await track.text()).trim().split(/\r?\n/);
  const { fixes } = await getJson(`${station.api}/api/v1/subjects/5515867/summary`);
  assert.equal(lines.length, fixes + 1);
});

test("a question is answered from the data, with its evidence, and the interactions are in the history", async () => {
  const { exitCode, stdout, stderr } = await station.pugmark("ask", "How far did 5515867 travel?", "--json");
  assert.equal(exitCode, 0, stderr);
  const { answer, grounded, evidence, unsupported, interaction_ids } = JSON.parse(stdout);
  const { distance_m } = await getJson(`${station.api}/api/v1/subjects/5515867/summary`);
  const [, kilometres] = /([\d.]+) km/.exec(answer) ?? [];
  assert.ok(Math.abs(Number(kilometres) * 1000 - distance_m) < 1, answer);
  assert.equal(grounded, true);
  assert.deepEqual(unsupported, []);
  assert.equal(evidence[0].tool, "track_summary");
  assert.equal(interaction_ids.length, 2);
  for (const id of interaction_ids) {
    const interaction = await getJson(`${station.chat}/interactions/${id}`);
    assert.equal(interaction.outcome, "ok");
    assert.match(JSON.stringify(interaction), /How far did 5515867 travel/);
  }
});

for (const name of ["api", "chat", "database"]) {
  test(`${name} is back by itself after kill -9, and nothing is lost`, async () => {
    const before = await station.until(name, ({ state }) => state === "ready");
    assert.ok(before.pid);
    process.kill(before.pid, "SIGKILL");
    await station.until(name, ({ pid, state }) => state === "ready" && pid !== null && pid !== before.pid);
    await station.until("api", ({ state }) => state === "ready");
    await station.until("chat", ({ state }) => state === "ready");
    const { fixes } = await getJson(`${station.api}/api/v1/subjects/5515867/summary?include_outliers=true`);
    assert.equal(fixes, 4069);
    const { data: history } = await getJson(`${station.chat}/interactions`);
    assert.equal(history.length, 2);
  });
}

test("a second station on the same home is told who holds it", async () => {
  const { exitCode, stderr } = await station.pugmark("up");
  assert.equal(exitCode, 1);
  assert.match(stderr, new RegExp(`managed by pid ${station.manager().pid}`));
});

test("Ctrl+C stops everything: no process is left, and no port is taken", async () => {
  const { exitCode, output } = await station.end("SIGINT");
  assert.equal(exitCode, 0, output);
  assert.match(output, /API +http:\S+\/docs/);
  assert.deepEqual(processesOf(station.home), []);
  for (const port of station.ports) await listens(port);
});

/** Takes the port and lets it go; throws where somebody has it. */
function listens(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = createServer().once("error", reject);
    server.listen(port, "127.0.0.1", () => server.close(() => resolve()));
  });
}
