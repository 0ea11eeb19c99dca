import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { after, afterEach, before, test } from "node:test";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import { type SupabaseProject, startSupabaseProject } from "../../test/support/supabase-project.ts";
import { openPool, type Pool } from "../store/pool.ts";
import { PositionStore } from "../store/positions.ts";
import { Inbox, type InboxParts } from "./inbox.ts";
import { Project } from "./project.ts";
import { eventually } from "./sync.fixture.ts";

let hosted: SupabaseProject;
let database: Pool;

before(async () => {
  hosted = await startSupabaseProject();
  database = openPool({ url: hosted.databaseUrl, name: "there", max: 1 });
});
afterEach(() => database.query("delete from public.inbox"));
after(async () => {
  await database.end();
  await hosted[Symbol.asyncDispose]();
});

/** A station's database and a way to its project. */
class Station implements AsyncDisposable {
  readonly id = randomUUID();
  readonly log: string[] = [];
  readonly project = new Project({ url: hosted.url, key: hosted.secretKey, timeoutMs: 5_000 });
  readonly database: TestDatabase;
  readonly pool: Pool;

  constructor(own: TestDatabase) {
    this.database = own;
    this.pool = openPool({ url: own.url, role: "pugmark_app", name: "test" });
  }

  static async create(): Promise<Station> {
    return new Station(await testDatabase());
  }

  /** Begins to fetch, as a process that was just started. */
  fetch(other: Partial<InboxParts> = {}): Inbox {
    const line = (fields: object, message: string) =>
      void this.log.push(`${message} ${JSON.stringify(fields)}`);
    return new Inbox({
      pool: this.pool,
      positions: new PositionStore(this.pool),
      project: this.project,
      station: this.id,
      log: { info: line, warn: line, error: line },
      periodMs: 20,
      ...other,
    });
  }

  async positions(): Promise<string[]> {
    const { rows } = await this.pool.query(
      `select key || ' ' || (extract(epoch from time) * 1000)::bigint as fix
       from public.positions join public.devices on devices.id = device_id order by 1`,
    );
    return rows.map(({ fix }) => fix);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.project[Symbol.asyncDispose]();
    await this.pool.end();
    await this.database[Symbol.asyncDispose]();
  }
}

const time = Date.parse("2026-11-22T09:00:00Z");

function fix(device: string, second: number, other: object = {}): object {
  return { device, time: time + second * 1_000, lat: 53, lon: 6.5, ...other };
}

async function leave(...fixes: readonly object[]): Promise<string> {
  const id = randomUUID();
  await database.query("insert into public.inbox (id, device, fixes) values ($1, 'any', $2)", [
    id,
    JSON.stringify(fixes),
  ]);
  return id;
}

async function untaken(): Promise<number> {
  const { rows } = await database.query(
    "select count(*)::int as count from public.inbox where taken_at is null",
  );
  return rows[0].count;
}

const settled = () => eventually(untaken, (count) => count === 0);

test("what phones left is stored in the station, with everything they said, and the inbox is told", async () => {
  await using station = await Station.create();
  await leave(
    fix("phone", 1, { battery: 0.5, attributesJson: '{"hdop":2}', subject: "Jane" }),
    fix("phone", 2),
  );
  await leave(fix("collar", 1));
  await using inbox = station.fetch();
  await settled();
  assert.deepEqual(await station.positions(), [
    `collar ${time + 1_000}`,
    `phone ${time + 1_000}`,
    `phone ${time + 2_000}`,
  ]);
  const { rows } = await station.pool.query(
    `select battery, positions.attributes, subjects.name
     from public.positions join public.deployments using (device_id) join public.subjects on subjects.id = subject_id
     where battery is not null`,
  );
  assert.deepEqual(rows, [{ battery: 0.5, attributes: { hdop: 2 }, name: "Jane" }]);
  const { rows: kept } = await database.query("select distinct taken_by, fixes from public.inbox");
  assert.deepEqual(kept, [{ taken_by: station.id, fixes: [] }]);
  assert.equal(inbox.trouble, null);
});

test("a station that ends before it has told the inbox stores nothing twice", async () => {
  await using station = await Station.create();
  await leave(fix("phone", 1));
  const call: Project["call"] = async (name, parameters, signal) => {
    if (name === "inbox_acknowledge")
      return { status: 0, error: { code: "", message: "fetch failed" }, data: null };
    return station.project.call(name, parameters, signal);
  };
  {
    await using inbox = station.fetch({ project: { call, quietMs: 0 } });
    await eventually(
      async () => inbox.trouble,
      (trouble) => trouble !== null,
    );
    assert.match(String(inbox.trouble), /does not answer/);
  }
  assert.equal(await untaken(), 1);
  // Had it stored the delivery again, this fix would be back.
  await station.pool.query("delete from public.positions");
  await using _ = station.fetch();
  await settled();
  assert.deepEqual(await station.positions(), []);
});

test("a station that ends before it has noted what it stored goes on from there", async () => {
  await using station = await Station.create();
  await leave(fix("phone", 1), fix("phone", 2));
  const store = new PositionStore(station.pool);
  const stored = Promise.withResolvers<void>();
  const ingest: PositionStore["ingest"] = async (fixes) => {
    await store.ingest(fixes);
    stored.resolve();
    throw Object.assign(new Error("killed"));
  };
  {
    await using _ = station.fetch({ positions: { ingest } });
    await stored.promise;
  }
  assert.equal(await untaken(), 1);
  await using _ = station.fetch();
  await settled();
  assert.deepEqual(await station.positions(), [`phone ${time + 1_000}`, `phone ${time + 2_000}`]);
});

test("of two stations on one project never both take a delivery, and together they take all", async () => {
  await using here = await Station.create();
  await using there = await Station.create();
  for (let index = 0; index < 150; index += 1) await leave(fix(`phone-${index % 7}`, index));
  {
    await using _here = here.fetch();
    await using _there = there.fetch();
    await settled();
  }
  const taken = [...(await here.positions()), ...(await there.positions())];
  assert.equal(taken.length, 150);
  assert.equal(new Set(taken).size, 150);
});

test("what a station took and never stored is another's after two minutes, and not before", async () => {
  await using gone = await Station.create();
  await using station = await Station.create();
  await leave(fix("phone", 1));
  await gone.project.call("inbox_take", { station: gone.id, row_limit: 10 }, new AbortController().signal);
  const later = await leave(fix("phone", 2));
  await using _ = station.fetch();
  const isLaterTaken = "select from public.inbox where taken_at is not null and id = $1";
  await eventually(
    async () => (await database.query(isLaterTaken, [later])).rowCount,
    (count) => count === 1,
  );
  assert.equal(await untaken(), 1);
  await database.query(
    "update public.inbox set leased_until = now() - interval '1 s' where taken_at is null",
  );
  await settled();
  assert.deepEqual(await station.positions(), [`phone ${time + 1_000}`, `phone ${time + 2_000}`]);
});

test("what cannot be stored is set aside with its reason and its contents, and the rest is stored", async () => {
  await using station = await Station.create();
  const broken = fix("phone", 1, { lat: 95 });
  await leave(broken, fix("phone", 2));
  await leave("no object" as unknown as object);
  await leave(fix("phone", 3), { ...fix("phone", 4), time: -1 });
  await leave(fix("phone", 5));
  await using inbox = station.fetch();
  await settled();
  assert.equal((await station.positions()).length, 3);
  const parked =
    "select code, reason, row -> 'fixes' as fixes from sync.parked_rows where direction = 'inbox' order by code";
  const { rows } = await station.pool.query(parked);
  assert.deepEqual(
    rows.map(({ code, fixes }) => [code, fixes]),
    [
      ["item-invalid", ["no object"]],
      ["latitude-out-of-range", [broken]],
      ["time-too-early", [{ ...fix("phone", 4), time: -1 }]],
    ],
  );
  assert.equal(inbox.trouble, null);

  assert.equal(await inbox.retry(), 0);
  await station.pool.query(
    "update sync.parked_rows set row = jsonb_set(row, '{fixes,0,lat}', '9.5') where code = 'latitude-out-of-range'",
  );
  assert.equal(await inbox.retry(), 1);
  assert.equal((await station.positions()).length, 4);
  assert.equal((await station.pool.query(parked)).rowCount, 2);
});

test("to a station whose clock is behind, what phones report is no future", async () => {
  await using station = await Station.create();
  const days = (count: number) => count * 86_400;
  const nowS = Math.floor((Date.now() - time) / 1_000);
  const ids = [
    await leave(fix("phone", nowS + days(3)), fix("phone", nowS + days(5))),
    await leave(fix("collar", nowS + days(3))),
  ];
  await database.query("update public.inbox set received_at = now() + interval '3 days' where id = $1", [
    ids[0],
  ]);
  await using _ = station.fetch();
  await settled();
  assert.deepEqual(await station.positions(), [`phone ${time + (nowS + days(3)) * 1_000}`]);
  const { rows } = await station.pool.query("select row_id, code from sync.parked_rows");
  assert.deepEqual(
    new Map(rows.map(({ row_id, code }) => [row_id, code])),
    new Map(ids.map((id) => [id, "time-in-future"])),
  );
});

test("a delivery that the database itself refuses keeps no other from being stored", async () => {
  await using station = await Station.create();
  await leave(fix("bad", 1));
  await leave(fix("good", 1));
  const owner = openPool({ url: station.database.url, name: "owner", max: 1 });
  await owner.query("alter table public.devices add constraint only_good check (key <> 'bad')");
  await using inbox = station.fetch();
  await settled();
  assert.deepEqual(await station.positions(), [`good ${time + 1_000}`]);
  assert.match(station.log.join("\n"), /delivery set aside .*23514/);
  await owner.query("alter table public.devices drop constraint only_good");
  await owner.end();
  assert.equal(await inbox.retry(), 1);
  assert.equal((await station.positions()).length, 2);
});

test("where the line is too slow for many deliveries at once, fewer are asked for", async () => {
  await using station = await Station.create();
  for (let index = 0; index < 30; index += 1) await leave(fix("phone", index));
  const asked: number[] = [];
  const call: Project["call"] = async (name, parameters, signal) => {
    const { row_limit: limit = 0 } = parameters as { row_limit?: number };
    if (limit > 0) asked.push(limit);
    if (Math.min(limit, await untaken()) > 16) await once(signal, "abort");
    return station.project.call(name, parameters, signal);
  };
  await using inbox = station.fetch({ project: { call, quietMs: 0 }, leaseMs: 1_000 });
  await eventually(
    async () => inbox.trouble,
    (trouble) => trouble !== null,
  );
  assert.match(String(inbox.trouble), /with up to 32 deliveries took longer than 1 s/);
  await settled();
  assert.equal((await station.positions()).length, 30);
  assert.deepEqual(asked.slice(0, 2), [32, 16]);
});

test("while the project is away the station says so, and goes on when it is back", async () => {
  await using station = await Station.create();
  await hosted.kill();
  await using inbox = station.fetch();
  await eventually(
    async () => inbox.trouble,
    (trouble) => trouble !== null,
  );
  await hosted.restart();
  await leave(fix("phone", 1));
  await settled();
  await eventually(
    async () => inbox.trouble,
    (trouble) => trouble === null,
  );
  assert.equal((await station.positions()).length, 1);
});
