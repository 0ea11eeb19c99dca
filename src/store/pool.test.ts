import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import { openPool, ping, query, transaction } from "./pool.ts";

let database: TestDatabase;
before(async () => {
  database = await testDatabase();
});
after(() => database[Symbol.asyncDispose]());

test("a pool acts as its role from its first statement on", async () => {
  const pool = openPool({ url: database.url, name: "test", role: "pugmark_reader" });
  const { rows } = await query<{ role: string }>(pool, "select current_user as role");
  assert.equal(rows[0]?.role, "pugmark_reader");
  await assert.rejects(query(pool, "insert into subjects (id, name) values (gen_random_uuid(), 'x')"), {
    code: "42501",
  });
  await pool.end();
});

test("a connection that cannot take its role is never used", async () => {
  const owner = openPool({ url: database.url, name: "owner" });
  const name = `outsider_${process.pid}`;
  await query(owner, `create role ${name} login password 'outsider'`);
  const url = new URL(database.url);
  url.username = name;
  url.password = "outsider";
  const pool = openPool({ url: url.href, name: "test", role: "pugmark_app" });
  await assert.rejects(query(pool, "select 1"), { code: "42501" });
  await pool.end();
  await query(owner, `drop role ${name}`);
  await owner.end();
});

test("a database that is away is told as such, and without its address or password", async () => {
  const pool = openPool({ url: "postgres://u:hidden@127.0.0.1:1/nothing", name: "test" });
  await assert.rejects(ping(pool), (error: Error & { code?: string }) => {
    assert.equal(error.code, "database-away");
    assert.doesNotMatch(error.message, /hidden|127/);
    return true;
  });
  await pool.end();
});

test("a database whose disk is full is told apart from one that does not answer", async () => {
  const pool = openPool({ url: database.url, name: "test" });
  // A disk cannot be filled for a test; what Postgres says then can.
  const write = "do $$ begin raise exception 'could not extend file' using errcode = 'disk_full'; end $$";
  await assert.rejects(query(pool, write), {
    code: "database-away",
    message: /disk of the database is full/,
  });
  await ping(pool);
  await pool.end();
});

test("a transaction that throws leaves nothing behind, and its connection is used again", async () => {
  const pool = openPool({ url: database.url, name: "test", max: 1 });
  const insert = "insert into devices (id, key) values (gen_random_uuid(), 'gone')";
  const failing = transaction(pool, async (client) => {
    await client.query(insert);
    throw new Error("changed my mind");
  });
  await assert.rejects(failing, /changed my mind/);
  const { rows } = await query<{ count: number }>(
    pool,
    "select count(*)::int as count from devices where key = 'gone'",
  );
  assert.equal(rows[0]?.count, 0);
  await pool.end();
});

test("a connection that is lost between two statements fails its transaction, and nothing else", async () => {
  const pool = openPool({ url: database.url, name: "test", max: 2 });
  const failing = transaction(pool, async (client) => {
    const { rows } = await query<{ pid: number }>(client, "select pg_backend_pid() as pid");
    const { promise: lost, resolve } = Promise.withResolvers<void>();
    client.once("end", resolve);
    await query(pool, "select pg_terminate_backend($1)", [rows[0]?.pid]);
    await lost;
    await query(client, "select 1");
  });
  await assert.rejects(failing, { code: "database-away" });
  await ping(pool);
  await pool.end();
});
