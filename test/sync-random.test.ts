// Three stations store, edit and delete the same few things, connected and not, and send and fetch at any moment. In whatever
// order that meets in the project, all have the same in the end.
//
//   STATIONS_SEED=1 STATIONS_HISTORIES=100 npm test -- test/sync-random.test.ts
import { randomInt } from "node:crypto";
import { test } from "node:test";
import { Random } from "../src/process-manager/faults/random.ts";
import { stateDeployment } from "../src/store/deployments.ts";
import { openPool, query, transaction } from "../src/store/pool.ts";
import { PositionStore } from "../src/store/positions.ts";
import { startStation, type TestStation, untilEqual } from "../src/sync/station.fixture.ts";
import { startSupabaseProject } from "./support/supabase-project.ts";

const first = Number(process.env.STATIONS_SEED ?? randomInt(2 ** 31));
const histories = Number(process.env.STATIONS_HISTORIES ?? 4);
const steps = 80;
const devices = ["d1", "d2", "d3"] as const;
const start = Date.parse("2026-03-01T00:00:00Z");

interface Step {
  readonly number: number;
  readonly station: TestStation;
  /** Has no project now; it stores and edits as ever. */
  readonly isAway: boolean;
  readonly device: string;
  /** Epoch milliseconds. */
  readonly at: number;
  readonly subject: string;
  readonly conversation: string;
}

/** How often of a hundred times, and what. */
const actions: readonly (readonly [often: number, what: string, act: (step: Step) => unknown])[] = [
  [25, "stores a fix", ({ station, device, at }) => storeFix(station, device, at)],
  [8, "deletes fixes", ({ station, device, at }) => deleteFixes(station, device, at)],
  [17, "edits the subject", ({ station, device, number }) => edit(station, device, `s${number}`)],
  [7, "deletes the subject", ({ station, device }) => deleteSubject(station, device)],
  [3, "moves its device", ({ station, at, subject }) => moveDevice(station, at, subject)],
  [8, "talks", ({ station, conversation, number }) => talk(station, conversation, `t${number}`)],
  [4, "forgets a talk", ({ station, conversation }) => forget(station, conversation)],
  [10, "goes, or comes back", ({ station, isAway }) => (isAway ? station.connect() : station.disconnect())],
  [8, "sends", ({ station, isAway }) => isAway || station.push()],
  [6, "fetches", ({ station, isAway }) => isAway || station.pull()],
  [1, "sends everything", ({ station, isAway }) => isAway || station.push({ all: true })],
  [2, "fetches everything", ({ station, isAway }) => isAway || station.pull({ all: true })],
  [1, "retries", ({ station, isAway }) => isAway || station.retry()],
];
const chances = actions.flatMap(([often, what, act]) =>
  Array.from({ length: often }, () => ({ what, act })),
) as [{ what: string; act: (step: Step) => unknown }];

for (let seed = first; seed < first + histories; seed += 1) {
  test(`whatever three stations do, they end with the same (STATIONS_SEED=${seed})`, {
    timeout: 120_000,
  }, async () => {
    await using project = await startSupabaseProject();
    await using a = await startStation("a", project);
    await using b = await startStation("b", project);
    await using c = await startStation("c", project);
    const told: string[] = [];
    const pool = openPool({ url: project.databaseUrl, name: "test" });
    try {
      await live([a, b, c], new Random(seed), told);
      // What was refused for a moment, as a deployment where another station's was, goes when somebody asks for it.
      await untilEqual(pool, [a, b, c], async (station) => {
        await station.exchange();
        await station.retry();
      });
    } catch (error) {
      throw new Error(`after ${told.join(", ")}`, { cause: error });
    } finally {
      await pool.end();
    }
  });
}

/** All are connected at the end. */
async function live(
  stations: readonly [TestStation, ...TestStation[]],
  random: Random,
  told: string[],
): Promise<void> {
  const away = new Set<TestStation>();
  for (let number = 0; number < steps; number += 1) {
    const station = random.pick(stations);
    const device = random.pick(devices);
    const step: Step = {
      number,
      station,
      isAway: away.has(station),
      device,
      at: start + random.below(6) * 60_000,
      subject: random.pick(["s1", "s2", "s3"]),
      conversation: random.pick(["x", "y"]),
    };
    const { what, act } = random.pick(chances);
    told.push(`${station.name} ${what} (${device})`);
    await act(step);
    if (what === "goes, or comes back" && !away.delete(station)) away.add(station);
  }
  for (const station of away) await station.connect();
}

/** The same from whomever: of what differs, each station keeps what it was told. */
async function storeFix({ pool }: TestStation, device: string, time: number): Promise<void> {
  await new PositionStore(pool).ingest([{ device, time, lat: (time / 60_000) % 80, lon: 1 }]);
}

async function deleteFixes({ pool }: TestStation, device: string, before: number): Promise<void> {
  await query(
    pool,
    "delete from public.positions using public.devices d where d.id = device_id and key = $1 and time < $2",
    [device, new Date(before)],
  );
}

async function edit({ pool }: TestStation, name: string, species: string): Promise<void> {
  await query(pool, "update public.subjects set species = $2 where name = $1", [name, species]);
}

/** With the deployments of the device that bears its name; not where another device is on it. */
async function deleteSubject({ pool }: TestStation, name: string): Promise<void> {
  await transaction(pool, async (client) => {
    await client.query(
      "delete from public.deployments using public.devices d where d.id = device_id and key = $1",
      [name],
    );
    await client.query(
      `delete from public.subjects s where name = $1
         and not exists (select from public.deployments where subject_id = s.id)`,
      [name],
    );
  });
}

/** Each its own: of overlapping deployments that two stations state, the second one is set aside for good. */
async function moveDevice({ pool, name }: TestStation, at: number, subject: string): Promise<void> {
  const device = devices["abc".indexOf(name)] ?? "d1";
  await stateDeployment(pool, { device, subject, firstAt: at, lastAt: at });
}

async function talk({ pool }: TestStation, id: string, title: string): Promise<void> {
  await query(
    pool,
    `insert into public.conversations (caller, id, title, created_at, last_used_at)
     values ('local', $1, $2, now(), now())
     on conflict (caller, id) where station_id is null do update set title = $2, last_used_at = now()`,
    [id, title],
  );
}

async function forget({ pool }: TestStation, id: string): Promise<void> {
  await query(pool, "delete from public.conversations where id = $1 and station_id is null", [id]);
}
