import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startFaultProxy } from "../../test/support/fault-proxy.ts";
import { type SupabaseProject, startSupabaseProject } from "../../test/support/supabase-project.ts";
import { stateDeployment } from "../store/deployments.ts";
import { openPool, type Pool } from "../store/pool.ts";
import type { Comparison } from "./compare.ts";
import { eventually, fixes, testMirror } from "./sync.fixture.ts";

let project: SupabaseProject;
/** The project's database, as its owner. */
let there: Pool;

before(async () => {
  project = await startSupabaseProject();
  there = openPool({ url: project.databaseUrl, name: "there" });
});
after(async () => {
  await there.end();
  await project[Symbol.asyncDispose]();
});

async function rowsOf(pool: Pool, sql: string, ...values: unknown[]) {
  return (await pool.query(sql, values)).rows;
}

/** How many fixes of these devices the project has. */
async function fixesThere(...devices: string[]): Promise<number> {
  const count = `select count(*)::int as count from positions join devices on devices.id = device_id where key = any($1)`;
  return (await rowsOf(there, count, devices))[0].count;
}

function idOf(status: Record<string, unknown> | undefined): string | undefined {
  return (status?.station as { id: string } | undefined)?.id;
}

test("what is stored is in the project within two seconds, under the station's name", async () => {
  await using mirror = await testMirror(project);
  await mirror.start();
  await eventually(
    () => mirror.ask("GET /status"),
    ([status]) => status?.state === "idle",
  );
  const took: number[] = [];
  for (let round = 0; round < 3; round += 1) {
    const startedAt = performance.now();
    await mirror.positions.ingest(fixes(`prompt-${round}`, 1));
    await eventually(
      () => fixesThere(`prompt-${round}`),
      (count) => count === 1,
    );
    took.push(performance.now() - startedAt);
  }
  assert.ok(Math.min(...took) < 2_000, `took ${took} ms`);
  const [status] = await mirror.ask("GET /status");
  const makers = await rowsOf(
    there,
    "select distinct p.station_id from positions p join devices d on d.id = device_id where key like 'prompt-%'",
  );
  assert.deepEqual(makers, [{ station_id: idOf(status) }]);
  assert.equal(status?.changes_waiting, 0);
  assert.equal(status?.push_error, null);
});

test("edits and deletes are carried, and what belongs together arrives together", async () => {
  await using mirror = await testMirror(project);
  const { pool, positions } = mirror;
  await positions.ingest(fixes("collar", 20));
  await mirror.start();
  await eventually(
    () => fixesThere("collar"),
    (count) => count === 20,
  );
  await pool.query("update subjects set species = 'Panthera onca' where name = 'collar'");
  const [first, , last] = fixes("collar", 20).filter((_, index) => index % 5 === 0);
  const statement = {
    device: "collar",
    subject: "Second",
    firstAt: first?.time ?? 0,
    lastAt: last?.time ?? 0,
  };
  await stateDeployment(pool, statement);
  await pool.query("delete from positions where time >= '2026-03-01T00:00:15Z'");
  const [done] = (await mirror.ask("POST /push", { all: true })).slice(-1);
  const compared = (done?.compared ?? []) as { table: string; same: boolean }[];
  assert.deepEqual(
    compared.filter(({ same }) => !same),
    [],
  );
  assert.equal(await fixesThere("collar"), 15);
  assert.deepEqual(await rowsOf(there, "select species from subjects where name = 'collar'"), [
    { species: "Panthera onca" },
  ]);
  const names =
    "select s.name from deployments d join subjects s on s.id = subject_id join devices v on v.id = device_id where key = 'collar' order by started_at";
  assert.deepEqual(await rowsOf(there, names), await rowsOf(pool, names));
});

test("an outage delays and loses nothing, slows nobody, and is told", async () => {
  await using proxy = await startFaultProxy({ target: project.url, seed: 1, rate: 0 });
  await using mirror = await testMirror({ ...project, url: proxy.url });
  await mirror.start();
  await eventually(
    () => mirror.ask("GET /status"),
    ([status]) => status?.state === "idle",
  );
  await proxy.down();
  const { accepted } = await mirror.positions.ingest(fixes("cut-off", 1_200));
  assert.equal(accepted, 1_200);
  const [status] = await eventually(
    () => mirror.ask("GET /status"),
    ([seen]) => seen?.state === "waiting",
  );
  assert.match(String(status?.push_error), /the project does not answer/);
  assert.ok(Number(status?.changes_waiting) >= 1_200);
  assert.notEqual(status?.error_since, null);
  assert.notEqual(status?.next_try_at, null);
  await assert.rejects(mirror.ask("POST /push"), { code: "project-unreachable" });
  await proxy.up();
  await eventually(
    () => fixesThere("cut-off"),
    (count) => count === 1_200,
  );
  // What is fetched from the project was cut off as well, and has a pace of its own.
  const [after] = await eventually(
    () => mirror.ask("GET /status"),
    ([seen]) => seen?.state === "idle" && seen.error_since === null,
  );
  assert.deepEqual([after?.push_error, after?.pull_error, after?.changes_waiting], [null, null, 0]);
});

test("one failure is none: what is sent on command is tried once more", async () => {
  await using proxy = await startFaultProxy({ target: project.url, seed: 3, rate: 0, faults: [500] });
  await using mirror = await testMirror({ ...project, url: proxy.url });
  await mirror.start();
  for (let round = 0; round < 5; round += 1) {
    await eventually(
      () => mirror.ask("GET /status"),
      ([status]) => status?.state === "idle",
    );
    proxy.storm(1);
    const isMet = proxy.arrivals(1);
    await mirror.positions.ingest(fixes(`deadlocked-${round}`, 10));
    await isMet;
    const pushed = mirror.ask("POST /push");
    proxy.calm();
    assert.equal((await pushed).at(-1)?.kind, "done");
  }
});

test("a key that the project does not take is an alarm, and nothing is lost until it does", async () => {
  await using mirror = await testMirror(project);
  await mirror.positions.ingest(fixes("keyless", 10));
  await mirror.start({ key: "sb_secret_of_somebody_else" });
  const [status] = await eventually(
    () => mirror.ask("GET /status"),
    ([seen]) => seen?.push_error != null,
  );
  assert.match(
    String(status?.push_error),
    /answers 401.*is SUPABASE_SERVICE_ROLE the project's secret key\?/,
  );
  assert.ok(!JSON.stringify([status, mirror.log]).includes("sb_secret_of_somebody_else"));
  await mirror.stop();
  await mirror.start();
  await eventually(
    () => fixesThere("keyless"),
    (count) => count === 10,
  );
});

test("an alarm that passes by itself is over by itself", async () => {
  await using proxy = await startFaultProxy({ target: project.url, seed: 2, rate: 1, faults: [401] });
  await using mirror = await testMirror({ ...project, url: proxy.url });
  await mirror.positions.ingest(fixes("locked-out", 10));
  await mirror.start();
  await eventually(
    () => mirror.ask("GET /status"),
    ([seen]) => /401/.test(String(seen?.push_error)),
  );
  proxy.calm();
  await eventually(
    () => fixesThere("locked-out"),
    (count) => count === 10,
  );
});

test("a row that the project refuses is set aside with its reason, and goes on command when it can", async () => {
  await using mirror = await testMirror(project);
  const { pool } = mirror;
  await there.query("alter table subjects add constraint tame check (name <> 'poison')");
  await pool.query(
    `insert into subjects (id, name) select gen_random_uuid(), 'herd ' || n from generate_series(1, 300) n
     union all select gen_random_uuid(), 'poison'`,
  );
  await mirror.start();
  const herd = async () =>
    (await rowsOf(there, "select count(*)::int as count from subjects where name like 'herd %'"))[0].count;
  await eventually(herd, (count) => count === 300);
  const [status] = await eventually(
    () => mirror.ask("GET /status"),
    ([seen]) => seen?.changes_waiting === 0,
  );
  const [parked] = (status?.parked ?? []) as Record<string, unknown>[];
  assert.equal(status?.parked_rows, 1);
  assert.equal(parked?.table, "subjects");
  assert.match(String(parked?.reason), /tame/);
  assert.equal(parked?.attempts, 1);

  // Still refused, it stays; and is not a second one.
  assert.partialDeepStrictEqual((await mirror.ask("POST /retry")).at(-1), { retried: 1, parked_rows: 1 });
  await there.query("alter table subjects drop constraint tame");
  assert.partialDeepStrictEqual((await mirror.ask("POST /retry")).at(-1), { retried: 1, parked_rows: 0 });
  assert.deepEqual(await rowsOf(there, "select name from subjects where name = 'poison'"), [
    { name: "poison" },
  ]);
});

test("a deletion that the project refuses is set aside once, also of a row that was edited before", async () => {
  await using mirror = await testMirror(project);
  const { pool } = mirror;
  await pool.query("insert into subjects (id, name) values (gen_random_uuid(), 'still there')");
  await mirror.start();
  const count = "select count(*)::int as count from subjects where name = 'still there'";
  await eventually(
    () => rowsOf(there, count),
    ([row]) => row.count === 1,
  );
  await mirror.stop();
  await there.query(
    `create function public.keep() returns trigger language plpgsql as $$
     begin raise exception 'nothing is deleted here' using errcode = '22023'; end $$;
     create trigger keep before delete on subjects for each row when (old.name = 'still there') execute function public.keep()`,
  );
  await pool.query("update subjects set species = 'Martes' where name = 'still there'");
  await pool.query("delete from subjects where name = 'still there'");
  await pool.query("insert into subjects (id, name) values (gen_random_uuid(), 'behind it')");
  await mirror.start();
  await eventually(
    () => rowsOf(there, "select count(*)::int as count from subjects where name = 'behind it'"),
    ([row]) => row.count === 1,
  );
  const [status] = await eventually(
    () => mirror.ask("GET /status"),
    ([seen]) => seen?.changes_waiting === 0,
  );
  const parked = (status?.parked ?? []) as Record<string, unknown>[];
  assert.deepEqual(
    parked.filter(({ direction }) => direction === "push").map(({ table, deleted }) => [table, deleted]),
    [["subjects", true]],
  );
  await there.query("drop trigger keep on subjects; drop function public.keep()");
  await mirror.ask("POST /retry");
  assert.deepEqual(await rowsOf(there, count), [{ count: 0 }]);
});

test("the history of before is sent on command, goes on where it was, and is compared", async () => {
  await using mirror = await testMirror(project, { names: ["none"] });
  for (const part of [0, 1, 2]) await mirror.positions.ingest(fixes(`old-${part}`, 3_000));
  await mirror.reopen({ names: ["all"] });
  await mirror.start();
  const [before] = await mirror.ask("GET /status");
  assert.equal(before?.history_sent_at, null);
  // Broken off in the middle, as a restart does.
  const stopped = mirror.ask("POST /push", { all: true }).catch(() => undefined);
  await eventually(
    () => fixesThere("old-0", "old-1", "old-2"),
    (count) => count > 0,
  );
  await mirror.stop();
  await stopped;
  await mirror.start();
  const [, ...news] = await mirror.ask("POST /push", { all: true });
  assert.ok(news.some((line) => line.kind === "progress" && Number(line.rows_total) >= 9_000));
  const compared = (news.at(-1)?.compared ?? []) as {
    table: string;
    same: boolean;
    here: { rows: number };
  }[];
  assert.deepEqual(
    compared.filter(({ same }) => !same),
    [],
  );
  assert.equal(compared.find(({ table }) => table === "positions")?.here.rows, 9_000);
  const [status] = await mirror.ask("GET /status");
  assert.notEqual(status?.history_sent_at, null);
});

test("only the chosen tables are recorded and sent", async () => {
  await using mirror = await testMirror(project, { names: ["devices"] });
  await mirror.positions.ingest(fixes("secret-place", 5));
  const recorded = await rowsOf(mirror.pool, "select distinct table_name from sync.changes");
  assert.deepEqual(recorded, [{ table_name: "devices" }]);
  await mirror.start();
  const known = () => rowsOf(there, "select key from devices where key = 'secret-place'");
  await eventually(known, (rows) => rows.length === 1);
  assert.equal(await fixesThere("secret-place"), 0);
});

test("positions alone are chosen with what they are meaningless without", async () => {
  await using mirror = await testMirror(project, { names: ["positions"] });
  await mirror.positions.ingest(fixes("chosen", 5));
  await mirror.start();
  const named = () =>
    rowsOf(
      there,
      `select s.name, count(*)::int as fixes from positions p join deployments using (device_id)
       join subjects s on s.id = subject_id where s.name = 'chosen' group by 1`,
    );
  assert.deepEqual(await eventually(named, ([found]) => found?.fixes === 5), [{ name: "chosen", fixes: 5 }]);
});

test("rows that were set aside are let go with the choice of their table, and those of others stay", async () => {
  await using mirror = await testMirror(project);
  await mirror.pool.query(
    `insert into sync.parked_rows (direction, table_name, row_id, reason)
     select direction, table_name, gen_random_uuid(), 'refused'
     from unnest('{push,pull}'::text[]) direction, unnest('{devices,interactions}'::text[]) table_name`,
  );
  await mirror.reopen({ names: ["devices"] });
  const left = "select direction, table_name from sync.parked_rows order by 1, 2";
  assert.deepEqual(await rowsOf(mirror.pool, left), [
    { direction: "pull", table_name: "devices" },
    { direction: "pull", table_name: "interactions" },
    { direction: "push", table_name: "devices" },
  ]);
});

test("coarse positions are coarse in the project, and exact here", async () => {
  await using mirror = await testMirror(project, { precisionM: 1_000 });
  await mirror.positions.ingest(fixes("shy", 3));
  await mirror.start();
  await eventually(
    () => fixesThere("shy"),
    (count) => count === 3,
  );
  const rows = await rowsOf(
    there,
    "select distinct lat, lon, accuracy_m, attributes from positions join devices on devices.id = device_id where key = 'shy'",
  );
  assert.equal(rows.length, 1);
  assert.deepEqual([rows[0].accuracy_m, rows[0].attributes], [1_000, null]);
  const exact = await rowsOf(mirror.pool, "select count(distinct lat)::int as places from positions");
  assert.deepEqual(exact, [{ places: 3 }]);
});

test("that positions went over rounded is said of a comparison, also when they no longer do", async () => {
  await using mirror = await testMirror(project, { precisionM: 1_000 });
  await mirror.positions.ingest(fixes("once-shy", 3));
  for (const precisionM of [1_000, 0]) {
    await mirror.stop();
    await mirror.reopen({ precisionM });
    await mirror.start();
    const [done] = (await mirror.ask("POST /push", { all: true })).slice(-1);
    const compared = (done?.compared ?? []) as Comparison[];
    const positions = compared.find(({ table }) => table === "positions");
    assert.deepEqual([positions?.same, positions?.project?.rows], [null, 3]);
    assert.match(positions?.problem ?? "", /rounded/);
  }
});

test("a field of many megabytes is cut on its way, and says so; it is whole here", async () => {
  await using mirror = await testMirror(project);
  const id = "01930000-0000-7000-8000-000000000001";
  await mirror.pool.query(
    `insert into interactions (id, created_at, route, caller, request_id, model, prompt, response, outcome, processing_time_ms)
     values ($1, now(), '/chat', 'local', 'r', 'm', '[]', repeat('x', 5000000), 'ok', 1)`,
    [id],
  );
  await mirror.start();
  const sent = () =>
    rowsOf(
      there,
      "select length(response) as length, right(response, 70) as end from interactions where id = $1",
      id,
    );
  const [cut] = await eventually(sent, (rows) => rows.length === 1);
  assert.ok(cut.length < 200_000);
  assert.match(cut.end, /cut by Pugmark's mirror: 5000002 bytes in all\]$/);
  const [whole] = await rowsOf(mirror.pool, "select length(response) as length from interactions");
  assert.equal(whole.length, 5_000_000);
});

test("where another project comes to the same address, the station makes itself known there, and nothing is set aside", async () => {
  await using former = await startSupabaseProject();
  await using mirror = await testMirror(former);
  await mirror.start();
  await mirror.positions.ingest(fixes("moved", 5));
  await mirror.ask("POST /push");
  await former.kill();
  await using fresh = await startSupabaseProject(former);
  // Of a month that the former project had a partition for.
  await mirror.positions.ingest(fixes("arrived", 5));
  const pool = openPool({ url: fresh.databaseUrl, name: "there", max: 1 });
  const met = () =>
    rowsOf(
      pool,
      `select is_feed, (select count(*)::int from positions) as fixes, array(select id from stations) as stations
       from sync.state`,
    );
  const [found] = await eventually(met, ([seen]) => seen?.is_feed && seen.fixes === 5).finally(() =>
    pool.end(),
  );
  const [status] = await mirror.ask("GET /status");
  assert.deepEqual([found.stations, status?.parked_rows], [[idOf(status)], 0]);
});

test("of two processes on one database one pushes, and the other takes over when it ends", async () => {
  await using mirror = await testMirror(project);
  await mirror.start();
  await eventually(
    () => mirror.ask("GET /status"),
    ([status]) => status?.state === "idle",
  );
  await using second = await mirror.second();
  await eventually(
    () => second.ask("GET /status"),
    ([status]) => status?.state === "standby",
  );
  await assert.rejects(second.ask("POST /push"), { code: "mirror-elsewhere" });
  await mirror.stop();
  await mirror.positions.ingest(fixes("taken-over", 5));
  await eventually(
    () => fixesThere("taken-over"),
    (count) => count === 5,
  );
});
