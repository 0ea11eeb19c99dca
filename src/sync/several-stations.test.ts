import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startHoldingProxy } from "../../test/support/holding-proxy.ts";
import { type SupabaseProject, startSupabaseProject } from "../../test/support/supabase-project.ts";
import { stateDeployment } from "../store/deployments.ts";
import { openPool, type Pool, query } from "../store/pool.ts";
import { PositionStore } from "../store/positions.ts";
import type { ReportedFix } from "../tracking/fix.ts";
import { startStation, type TestStation, untilEqual } from "./station.fixture.ts";
import { eventually } from "./sync.fixture.ts";

let project: SupabaseProject;
let projectPool: Pool;
let hill: TestStation;
let valley: TestStation;
const troubles: string[] = [];

before(async () => {
  project = await startSupabaseProject();
  projectPool = openPool({ url: project.databaseUrl, name: "test" });
  [hill, valley] = await Promise.all([
    startStation("hill", project, troubles),
    startStation("valley", project, troubles),
  ]);
  // Read as a whole while it is filled, a table may have what those before it had not yet; the feed brings that later.
  await Promise.all([hill.pull(), valley.pull()]);
});
after(async () => {
  await hill[Symbol.asyncDispose]();
  await valley[Symbol.asyncDispose]();
  await projectPool.end();
  await project[Symbol.asyncDispose]();
});

const start = Date.parse("2026-03-01T00:00:00Z");
const series = (device: string, count: number, more: Partial<ReportedFix> = {}): ReportedFix[] =>
  Array.from({ length: count }, (_, minute) => ({
    ...{ device, time: start + minute * 60_000, lat: minute / 1000 + 0.1, lon: -minute / 7 },
    ...more,
  }));

/** A station that nobody here is. */
const third = "00000000-0000-4000-8000-00000000cccc";
/** Resolves once these stations and the project have the same. */
const agree = (...stations: readonly TestStation[]) => untilEqual(projectPool, stations);

async function count(pool: Pool, what: string, values: unknown[] = []): Promise<number> {
  const { rows } = await query<{ count: number }>(pool, `select count(*)::int as count from ${what}`, values);
  return rows[0]?.count ?? 0;
}

test("each station gets what the other one is told, and sends nothing of it back", async () => {
  await new PositionStore(hill.pool).ingest(series("goat", 1_200, { species: "Capra" }));
  await new PositionStore(valley.pool).ingest(series("cow", 300));
  await agree(hill, valley);
  assert.equal(await count(valley.pool, "public.positions"), 1_500);
  assert.equal(await count(valley.pool, "public.last_positions"), 2);
  const changes = await count(projectPool, "sync.changes");
  await agree(hill, valley);
  assert.equal(await count(projectPool, "sync.changes"), changes);
  assert.deepEqual(troubles, []);
});

test("a device that both stations meet is one, and so is each of its fixes", async () => {
  const fixes = series("wanderer", 20);
  await new PositionStore(hill.pool).ingest(fixes.slice(0, 15));
  await new PositionStore(valley.pool).ingest(fixes.slice(5));
  await agree(hill, valley);
  for (const pool of [hill.pool, valley.pool, projectPool]) {
    assert.equal(await count(pool, "public.devices where key = 'wanderer'"), 1);
    assert.equal(
      await count(
        pool,
        "public.positions p join public.devices d on d.id = p.device_id where d.key = 'wanderer'",
      ),
      20,
    );
    assert.equal(await count(pool, "sync.parked_rows"), 0);
  }
});

test("of two edits made apart the later one stays everywhere, and the other one is kept", async () => {
  await hill.disconnect();
  await valley.disconnect();
  await query(valley.pool, "update public.subjects set species = 'Bos' where name = 'cow'");
  await query(hill.pool, "update public.subjects set species = 'Bos taurus' where name = 'cow'");
  await query(hill.pool, "update public.subjects set species = 'Capra h.' where name = 'goat'");
  await query(valley.pool, "update public.subjects set species = 'Capra hircus' where name = 'goat'");
  await hill.connect();
  await valley.connect();
  await agree(hill, valley);
  const { rows } = await query(
    projectPool,
    "select name, species from public.subjects where name in ('cow', 'goat') order by 1",
  );
  assert.deepEqual(rows, [
    { name: "cow", species: "Bos taurus" },
    { name: "goat", species: "Capra hircus" },
  ]);
  const lost = await Promise.all(
    [projectPool, hill.pool, valley.pool].map((pool) =>
      query<{ species: string }>(pool, "select row ->> 'species' as species from sync.overruled_rows"),
    ),
  );
  const kept = new Set(lost.flatMap((each) => each.rows.map(({ species }) => species)));
  assert.ok(kept.has("Bos") && kept.has("Capra h."), [...kept].join());
});

test("subjects that swap their names have them everywhere", async () => {
  await new PositionStore(hill.pool).ingest([...series("Castor", 2), ...series("Pollux", 2)]);
  await agree(hill, valley);
  await query(
    hill.pool,
    `begin;
     update public.subjects set species = name where name in ('Castor', 'Pollux');
     update public.subjects set name = 'nobody' where name = 'Castor';
     update public.subjects set name = 'Castor' where name = 'Pollux';
     update public.subjects set name = 'Pollux' where name = 'nobody';
     commit`,
  );
  await agree(hill, valley);
  for (const pool of [hill.pool, valley.pool, projectPool]) {
    assert.equal(
      await count(pool, "public.subjects where name in ('Castor', 'Pollux') and species <> name"),
      2,
    );
    assert.equal(await count(pool, "sync.parked_rows"), 0);
  }
});

test("what one station deletes goes everywhere, and comes back when it is made anew", async () => {
  const { rows } = await query<{ id: string }>(hill.pool, "select id from public.devices where key = 'goat'");
  const device = rows[0]?.id;
  await query(hill.pool, "delete from public.positions where device_id = $1 and time < $2", [
    device,
    new Date(start + 600 * 60_000),
  ]);
  await agree(hill, valley);
  assert.equal(await count(valley.pool, "public.positions where device_id = $1", [device]), 600);
  await new PositionStore(hill.pool).ingest(series("goat", 10));
  await agree(hill, valley);
  assert.equal(await count(valley.pool, "public.positions where device_id = $1", [device]), 610);
});

test("a fix that was wrong, deleted and told anew is right everywhere, whoever was away meanwhile", async () => {
  const device = "device_id = (select id from public.devices where key = 'corrected')";
  const placesOf = async (pool: Pool) => {
    const { rows } = await query<{ lat: number }>(pool, `select lat from public.positions where ${device}`);
    return rows.map(({ lat }) => lat);
  };
  const tellAnew = async (lat: number) => {
    await query(hill.pool, `delete from public.positions where ${device}`);
    await new PositionStore(hill.pool).ingest(series("corrected", 1, { lat }));
  };
  await new PositionStore(hill.pool).ingest(series("corrected", 1, { lat: 1 }));
  await agree(hill, valley);
  await valley.disconnect();
  await tellAnew(2);
  await agree(hill);
  await valley.connect();
  await agree(hill, valley);
  assert.deepEqual(await placesOf(valley.pool), [2]);
  await hill.disconnect();
  await tellAnew(3);
  await hill.connect();
  await agree(hill, valley);
  assert.deepEqual(await placesOf(valley.pool), [3]);
});

test("what a station sends while an answer is on its way to it is not undone by that", async () => {
  await using proxy = await startHoldingProxy(project.url);
  await using shore = await startStation("shore", { ...project, url: proxy.url }, troubles);
  await new PositionStore(hill.pool).ingest(series("crossing", 2));
  await agree(hill, shore);
  const places = "public.positions where device_id = (select id from public.devices where key = 'crossing')";
  const first = `${places} and time = '2026-03-01T00:00:00Z'`;
  const answerWith = (words: RegExp) =>
    proxy.hold(({ path, body }) => path.includes("sync_changes") && words.test(body));

  // Told anew here after the project said that it is gone.
  const isGone = answerWith(/"deleted": ?true/);
  await query(hill.pool, `delete from ${first}`);
  await hill.push();
  let asked = shore.pull();
  const letGo = await isGone;
  await query(shore.pool, `delete from ${first}`);
  await new PositionStore(shore.pool).ingest(series("crossing", 1));
  await shore.push();
  letGo();
  await asked;
  await agree(hill, shore);
  assert.equal(await count(shore.pool, first), 1);

  // Deleted here after the project said that it is there.
  await query(hill.pool, "insert into public.subjects (id, name) values (gen_random_uuid(), 'ferry')");
  await agree(hill, shore);
  const isEdited = answerWith(/Ship/);
  await query(hill.pool, "update public.subjects set species = 'Ship' where name = 'ferry'");
  await hill.push();
  asked = shore.pull();
  const letIn = await isEdited;
  await query(shore.pool, "delete from public.subjects where name = 'ferry'");
  await shore.push();
  letIn();
  await asked;
  await agree(hill, shore);
  assert.equal(await count(hill.pool, "public.subjects where name = 'ferry'"), 0);
});

test("everything that a station sends again brings nothing back that another one has deleted", async () => {
  await using proxy = await startHoldingProxy(project.url);
  await using shore = await startStation("shore again", { ...project, url: proxy.url }, troubles);
  await query(hill.pool, "insert into public.subjects (id, name) values (gen_random_uuid(), 'gone')");
  await agree(hill, shore);
  const isTold = proxy.hold(({ body }) => /"deleted": ?true/.test(body));
  await query(hill.pool, "delete from public.subjects where name = 'gone'");
  await hill.push();
  const asked = shore.pull();
  const letGo = await isTold;
  const everything = shore.push({ all: true });
  // Time enough for what would not wait for the answer.
  for (let round = 0; round < 10; round += 1) await hill.exchange();
  letGo();
  await Promise.all([asked, everything]);
  await agree(hill, shore);
  assert.equal(await count(projectPool, "public.subjects where name = 'gone'"), 0);
});

test("what a station edited, and another one edited later and then deleted, is not brought back by the first", async () => {
  await query(hill.pool, "insert into public.subjects (id, name) values (gen_random_uuid(), 'brief')");
  await agree(hill, valley);
  await valley.disconnect();
  await query(valley.pool, "update public.subjects set species = 'theirs' where name = 'brief'");
  await query(hill.pool, "update public.subjects set species = 'ours' where name = 'brief'");
  await agree(hill);
  // As the valley has it once it has fetched that, with its own edit not yet sent.
  await query(
    valley.pool,
    `begin; set local pugmark.applying = 'on';
     update public.subjects set species = 'ours', changed_at = now(), changed_by = '${hill.id}' where name = 'brief';
     commit`,
  );
  await query(hill.pool, "delete from public.subjects where name = 'brief'");
  await agree(hill);
  await valley.connect();
  await agree(hill, valley);
  assert.equal(await count(projectPool, "public.subjects where name = 'brief'"), 0);
});

test("a subject that one station deleted stays where another has put a device on it, in whatever order that is sent", async () => {
  for (const isDeletedFirst of [true, false]) {
    const name = `worn ${isDeletedFirst}`;
    await query(hill.pool, "insert into public.subjects (id, name) values (gen_random_uuid(), $1)", [name]);
    await new PositionStore(valley.pool).ingest(series(`collar of ${name}`, 1));
    await agree(hill, valley);
    await Promise.all([hill.disconnect(), valley.disconnect()]);
    await query(hill.pool, "delete from public.subjects where name = $1", [name]);
    const worn = { device: `collar of ${name}`, subject: name, firstAt: start, lastAt: start };
    await stateDeployment(valley.pool, worn);
    const order = isDeletedFirst ? [hill, valley] : [valley, hill];
    for (const station of order) {
      await station.connect();
      await station.push();
    }
    await agree(hill, valley);
    const deployments =
      "public.deployments d join public.subjects s on s.id = d.subject_id where s.name = $1";
    for (const pool of [hill.pool, projectPool]) assert.equal(await count(pool, deployments, [name]), 1);
    for (const { pool } of [hill, valley])
      assert.equal(await count(pool, "sync.parked_rows where table_name in ('subjects', 'deployments')"), 0);
  }
});

test("a subject that was deleted, and registered anew by a report, is as bare everywhere", async () => {
  const device = "deleted and anew";
  const deleteAll = async (pool: Pool) => {
    await query(
      pool,
      "delete from public.deployments using public.devices d where d.id = device_id and key = $1",
      [device],
    );
    await query(pool, "delete from public.subjects where name = $1", [device]);
    await query(pool, "delete from public.devices where key = $1", [device]);
  };
  await new PositionStore(hill.pool).ingest(series(device, 1));
  await query(hill.pool, "update public.subjects set species = 'Lynx' where name = $1", [device]);
  await agree(hill, valley);
  await valley.disconnect();
  // Before the project knows of the deletion, and after.
  for (const isKnown of [false, true]) {
    await deleteAll(hill.pool);
    if (isKnown) await agree(hill);
    await new PositionStore(hill.pool).ingest(series(device, 1));
    await agree(hill);
    await valley.connect();
    await agree(hill, valley);
    const named = "public.subjects where name = $1 and species is null";
    assert.equal(await count(valley.pool, named, [device]), 1);
    await query(valley.pool, "update public.subjects set species = 'Lynx' where name = $1", [device]);
    await agree(hill, valley);
    await valley.disconnect();
  }
  await valley.connect();
});

test("what was deleted meanwhile goes also where everything is fetched", async () => {
  await query(hill.pool, "insert into public.subjects (id, name) values (gen_random_uuid(), 'left over')");
  await agree(hill, valley);
  await valley.disconnect();
  await query(hill.pool, "delete from public.subjects where name = 'left over'");
  await agree(hill);
  await valley.connect();
  await valley.pull({ all: true });
  await agree(hill, valley);
});

test("a row that a station cannot take is set aside there, and is tried again when that is asked for", async () => {
  // A name that the hill has given to a subject of its own, with an id of its own.
  const id = "00000000-0000-4000-8000-0000000000aa";
  await hill.disconnect();
  await query(hill.pool, "insert into public.subjects (id, name) values (gen_random_uuid(), 'disputed')");
  await query(
    projectPool,
    "insert into public.subjects (id, name, station_id, changed_by) values ($1, 'disputed', $2, $2)",
    [id, third],
  );
  await hill.connect();
  const parked = () => count(hill.pool, "sync.parked_rows where direction = 'pull' and row_id = $1", [id]);
  await eventually(
    () => hill.pull().then(parked),
    (rows) => rows === 1,
  );
  await query(hill.pool, "delete from public.subjects where name = 'disputed' and id <> $1", [id]);
  await hill.retry();
  assert.equal(await parked(), 0);
  await agree(hill, valley);
});

/** What a station, or the project, says of a device: whom it was on, from when. */
async function deploymentsOf(pool: Pool, device: string): Promise<unknown[]> {
  const { rows } = await query<{ said: unknown }>(
    pool,
    `select json_build_array(s.name, s.species, d.started_at) as said
     from public.deployments d
     join public.subjects s on s.id = d.subject_id join public.devices v on v.id = d.device_id
     where v.key = $1 order by d.started_at`,
    [device],
  );
  return rows.map(({ said }) => said);
}

/** A station that has not heard of the others yet. */
const newStation = (name: string) => startStation(name, { ...project, url: "http://127.0.0.1:1" }, []);

test("what a new station guesses of a device that it does not know yet gives way to what others know", async () => {
  await new PositionStore(hill.pool).ingest([
    ...series("known", 1, { species: "Lynx" }),
    ...series("collar", 2, { subject: "Anna" }),
  ]);
  await query(hill.pool, "update public.subjects set attributes = '{\"ring\":\"A1\"}' where name = 'known'");
  const later = start + 60_000;
  await stateDeployment(hill.pool, { device: "collar", subject: "Berta", firstAt: later, lastAt: later });
  await agree(hill, valley);
  const known = await deploymentsOf(hill.pool, "collar");
  assert.equal(known.length, 2);

  await using ridge = await newStation("ridge");
  const next = start + 120_000;
  await new PositionStore(ridge.pool).ingest([
    ...series("known", 1).map((fix) => ({ ...fix, time: next })),
    ...series("collar", 1).map((fix) => ({ ...fix, time: next })),
  ]);
  await ridge.disconnect();
  await ridge.connect(project);
  await agree(hill, valley, ridge);
  for (const pool of [projectPool, hill.pool, valley.pool, ridge.pool]) {
    assert.deepEqual(await deploymentsOf(pool, "collar"), known);
    assert.equal(await count(pool, "public.subjects where name = 'collar'"), 0);
    assert.equal(
      await count(pool, "public.subjects where species = 'Lynx' and attributes ->> 'ring' = 'A1'"),
      1,
    );
    assert.equal(await count(pool, "sync.parked_rows"), 0);
  }
});

test("it gives way as well where it was in the project first", async () => {
  await hill.disconnect();
  await new PositionStore(hill.pool).ingest(series("early", 2, { subject: "Cora" }));
  const later = start + 60_000;
  await stateDeployment(hill.pool, { device: "early", subject: "Dora", firstAt: later, lastAt: later });
  await new PositionStore(valley.pool).ingest(series("early", 1));
  await agree(valley);
  assert.equal((await deploymentsOf(projectPool, "early")).length, 1);
  const known = await deploymentsOf(hill.pool, "early");
  await hill.connect();
  await agree(hill, valley);
  for (const pool of [projectPool, valley.pool, hill.pool])
    assert.deepEqual(await deploymentsOf(pool, "early"), known);
  assert.equal(await count(hill.pool, "sync.parked_rows"), 0);
});

test("a new station gets everything, and what it has lost when it asks for everything again", async () => {
  await using island = await startStation("island", project, troubles);
  await agree(hill, valley, island);
  // As a database that comes from a backup.
  await query(
    island.pool,
    "begin; set local pugmark.applying = 'on'; delete from public.positions where lon = -1; commit",
  );
  const { compared = [], parked_rows } = await island.pull({ all: true });
  assert.deepEqual(
    compared.filter(({ same }) => same !== true),
    [],
  );
  assert.ok(compared.some(({ table, here }) => table === "positions" && here.rows > 900));
  assert.equal(parked_rows, 0);
  await agree(hill, valley, island);
});
