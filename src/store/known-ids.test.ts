import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import { stateDeployment } from "./deployments.ts";
import { photoIdOf } from "./known-ids.ts";
import { openPool, type Pool, query } from "./pool.ts";
import { PositionStore } from "./positions.ts";

let databases: TestDatabase[];
let stations: Pool[];

before(async () => {
  databases = await Promise.all([testDatabase(), testDatabase()]);
  stations = databases.map(({ url }) => openPool({ url, role: "pugmark_app", name: "test" }));
});
after(async () => {
  await Promise.all(stations.map((pool) => pool.end()));
  await Promise.all(databases.map((database) => database[Symbol.asyncDispose]()));
});

const start = Date.parse("2024-03-01T00:00:00Z");
const fix = (device: string, minute: number, subject?: string) => ({
  ...{ device, time: start + minute * 60_000, lat: 1, lon: 2 },
  ...(subject === undefined ? {} : { subject }),
});

async function idsOf(pool: Pool) {
  const { rows } = await query(
    pool,
    `select 'device ' || key as what, id from public.devices union all
     select 'subject ' || name, id from public.subjects union all
     select format('deployment %s %s %s', key, name, started_at), d.id
     from public.deployments d join public.devices v on v.id = device_id join public.subjects s on s.id = subject_id
     order by 1`,
  );
  return rows;
}

test("a photo's id is that of its subject and file, for good", () => {
  const subject = "41635e4d-56fc-5131-a2b4-0820dbe81b87";
  assert.equal(photoIdOf(subject, "0".repeat(64)), "0d6879f6-eb20-5c10-9576-e341c19ede0f");
});

test("stations that meet the same devices make the same rows of them, in whatever order", async () => {
  const [one, two] = stations as [Pool, Pool];
  await new PositionStore(one).ingest([fix("collar", 0, "Ada"), fix("phone", 0)]);
  await new PositionStore(two).ingest([fix("phone", 9)]);
  await new PositionStore(two).ingest([fix("collar", 9, "Ada")]);
  for (const pool of [one, two]) {
    await stateDeployment(pool, {
      ...{ device: "collar", subject: "Bea" },
      ...{ firstAt: start + 6_000_000, lastAt: start + 9_000_000 },
    });
  }
  assert.deepEqual(await idsOf(one), await idsOf(two));
  // Of all versions of the program: what is known by this id in a project stays so.
  const device = (await idsOf(one)).find(({ what }) => what === "device collar");
  assert.equal(device?.id, "41977550-5cf6-55a4-9cfb-6fc34047001e");
});

test("a new subject may bear the name that another one had before", async () => {
  const [pool] = stations as [Pool];
  const store = new PositionStore(pool);
  await store.ingest([fix("first", 0, "Cid")]);
  await query(pool, "update public.subjects set name = 'Cid the Elder' where name = 'Cid'");
  await store.ingest([fix("second", 0, "Cid")]);
  const { rows } = await query<{ key: string; name: string }>(
    pool,
    `select key, name from public.deployments d
     join public.devices v on v.id = device_id join public.subjects s on s.id = subject_id
     where key in ('first', 'second') order by key`,
  );
  assert.deepEqual(
    rows.map(({ key, name }) => [key, name]),
    [
      ["first", "Cid the Elder"],
      ["second", "Cid"],
    ],
  );
});

test("a deployment that stays as it is keeps its version, and one that is cut short has a newer one", async () => {
  const [pool] = stations as [Pool];
  await new PositionStore(pool).ingest([0, 100, 200].map((minute) => fix("tag", minute, "Dan")));
  const versions = async () =>
    (
      await query<{ name: string; changed_at: string }>(
        pool,
        `select name, d.changed_at::text from public.deployments d join public.devices v on v.id = device_id
         join public.subjects s on s.id = subject_id where key = 'tag' order by started_at`,
      )
    ).rows.map(({ name, changed_at }) => [name, changed_at]);
  const future = "2090-01-01 00:00:00+00";
  await query(pool, "update public.deployments set changed_at = $1", [future]);
  const state = (subject: string, minute: number) =>
    stateDeployment(pool, {
      ...{ device: "tag", subject },
      ...{ firstAt: start + minute * 60_000, lastAt: start + (minute + 5) * 60_000 },
    });
  await state("Eve", 100);
  const [cut, added] = await versions();
  assert.deepEqual(cut, ["Dan", "2090-01-01 00:00:00.000001+00"]);
  assert.equal(added?.[0], "Eve");
  await state("Fay", 200);
  assert.deepEqual((await versions())[0], cut);
});
