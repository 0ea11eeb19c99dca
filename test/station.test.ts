import assert from "node:assert/strict";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import pg from "pg";
import { Pool } from "undici";
import { openPool, query } from "../src/store/pool.ts";
import { startLmStudio } from "./lm-studio/lm-studio.ts";
import { respond } from "./lm-studio/scripts/distance.ts";
import { startTestPostgres, testDatabase } from "./support/postgres.ts";
import { processesOf, testStation } from "./support/station.ts";

test("when the manager itself is killed, nothing outlives it by 2 s, and the next start works", async () => {
  await using station = await testStation();
  await station.start();
  const services = (await station.services()).filter(({ pid }) => pid !== null);
  assert.equal(services.length, 4);

  const killedAt = performance.now();
  await station.end("SIGKILL");
  let left = processesOf(station.home);
  while (left.length > 0 && performance.now() - killedAt < 2_000) left = processesOf(station.home);
  assert.deepEqual(left, []);

  await station.start();
  const { output } = await station.end("SIGTERM");
  assert.match(output, /The station has stopped/);
  assert.deepEqual(processesOf(station.home), []);
});

test("a taken port is reported with who has it, and everything else is stopped again", async () => {
  await using station = await testStation();
  const squatter = createServer().listen(Number(new URL(station.chat).port), "127.0.0.1");
  await once(squatter, "listening");
  await assert.rejects(station.start(), new RegExp(`pid ${process.pid}.*CHAT_PORT`));
  assert.equal(station.manager().exitCode ?? (await once(station.manager(), "exit"))[0], 1);
  assert.deepEqual(processesOf(station.home), []);
  squatter.close();
});

test("a station of API and agent alone brings what they need", async () => {
  await using station = await testStation();
  await station.start("api", "agent");
  const states = Object.fromEntries((await station.services()).map(({ name, state }) => [name, state]));
  assert.equal(states.database, "ready");
  assert.equal(states.chat, "ready");
  assert.equal(states.agent, "ready");
  assert.equal(states.api, "ready");
  const metrics = await fetch(`${station.api}/api/v1/system/metrics`);
  assert.equal(metrics.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  assert.match(await metrics.text(), /^pugmark_service_state\{service="database",state="ready"\} 1$/m);
});

test("a rolling restart fails no request, on new connections and on kept ones", async () => {
  await using station = await testStation();
  await station.start("api");
  const stop = new AbortController();
  let answered = 0;
  const load = [1, 0].map(async (pipelining) => {
    // Undici keeps a connection with pipelining 1, and makes one for each request with 0.
    const pool = new Pool(station.api, { connections: 4, pipelining });
    const clients = [1, 2, 3, 4].map(async () => {
      while (!stop.signal.aborted) {
        const { statusCode, body } = await pool.request({ method: "GET", path: "/livez" });
        await body.dump();
        assert.equal(statusCode, 200);
        answered += 1;
      }
    });
    await Promise.all(clients);
    await pool.close();
  });
  for (let restarts = 0; restarts < 3; restarts += 1) {
    const { exitCode, stderr } = await station.pugmark("restart", "api");
    assert.equal(exitCode, 0, stderr);
  }
  stop.abort();
  await Promise.all(load);
  assert.ok(answered > 100, String(answered));
});

test("a station works on somebody else's Postgres, and shows its password nowhere", async () => {
  await using postgres = await startTestPostgres();
  const url = new URL(postgres.url);
  const admin = new pg.Client({ connectionString: url.href });
  await admin.connect();
  await admin.query("create database theirs");
  await admin.end();
  url.pathname = "/theirs";
  await using station = await testStation({ DATABASE_URL: url.href });
  await station.start();
  const database = await station.until("database", ({ state }) => state === "ready");
  assert.equal(database.kind, "external");

  const position = { device: "collar-7", time: "2026-11-22T09:00:00Z", lat: 53, lon: 6.5 };
  const headers = { "content-type": "application/json" };
  const send = () =>
    fetch(`${station.api}/api/v1/positions`, { method: "POST", headers, body: JSON.stringify(position) });
  assert.deepEqual(await (await send()).json(), { accepted: 1, duplicates: 0, rejected: [] });
  const tool = await fetch(`${station.agent}/tools/list_subjects`, { method: "POST", headers, body: "{}" });
  assert.match(await tool.text(), /collar-7/);

  const shown = await Promise.all([
    station.pugmark("status", "--json"),
    station.pugmark("config"),
    station.pugmark("doctor"),
  ]);
  const { output } = await station.end("SIGTERM");
  const logs = readdirSync(join(station.home, "logs")).map((file) =>
    readFileSync(join(station.home, "logs", file), "utf8"),
  );
  for (const text of [...shown.flatMap(({ stdout, stderr }) => [stdout, stderr]), output, ...logs]) {
    assert.ok(!text.includes(url.password));
  }
});

test("a machine without the project's keys leaves what another one on the same database has to send", async () => {
  await using database = await testDatabase();
  const pool = openPool({ url: database.url, name: "test" });
  const waiting = async (settings: Record<string, string>) => {
    await using station = await testStation({ DATABASE_URL: database.url, ...settings });
    await station.start();
    await station.end("SIGTERM");
    const { rows } = await query<{ changes: number; recorded: number }>(
      pool,
      `select (select count(*)::int from sync.changes) as changes,
         (select count(*)::int from sync.mirrored_tables where is_recorded) as recorded`,
    );
    return rows[0];
  };
  await query(pool, "update sync.mirrored_tables set is_recorded = true where table_name = 'subjects'");
  await query(pool, "insert into public.subjects (id, name) values (gen_random_uuid(), 'unsent')");
  assert.deepEqual(await waiting({}), { changes: 1, recorded: 1 });
  assert.deepEqual(await waiting({ SUPABASE_MIRROR: "none" }), { changes: 0, recorded: 0 });
  await pool.end();
});

test("with keys, nobody reads or writes without one, and the station's own services still work together", async () => {
  await using lmStudio = await startLmStudio({ respond });
  const keys = "phone:0123456789abcdef:ingest,me:fedcba9876543210:admin";
  await using station = await testStation({ PUGMARK_API_KEYS: keys, DEEPSEEK_API_URL: lmStudio.url });
  await station.start();
  assert.equal((await fetch(`${station.api}/api/v1/subjects`)).status, 401);
  assert.equal((await fetch(`${station.api}/api/v1/system/metrics`)).status, 401);
  assert.equal(
    (await fetch(`${station.api}/ingest/osmand?id=p&lat=1&lon=2&key=0123456789abcdef`)).status,
    200,
  );
  assert.equal((await fetch(`${station.api}/api/v1/subjects?key=0123456789abcdef`)).status, 401);
  const { exitCode, stdout, stderr } = await station.pugmark("ask", "How far did p travel");
  assert.equal(exitCode, 0, stderr);
  assert.match(stdout, /p travelled 0 km/);
  const logs = readdirSync(join(station.home, "logs")).map((file) =>
    readFileSync(join(station.home, "logs", file), "utf8"),
  );
  assert.ok(logs.every((text) => !/0123456789abcdef|fedcba9876543210/.test(text)));
});
