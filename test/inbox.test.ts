import assert from "node:assert/strict";
import { createHash, randomBytes, randomUUID } from "node:crypto";
import { test } from "node:test";
import { openPool } from "../src/store/pool.ts";
import { eventually } from "../src/sync/sync.fixture.ts";
import { startEdgeRuntime } from "./support/edge-runtime.ts";
import { testDatabase } from "./support/postgres.ts";
import { startSupabaseProject } from "./support/supabase-project.ts";
import { syncProcess } from "./support/sync-process.ts";

const uploads = 40;
const perUpload = 3;

test("what phones send to the project is in the station once, though the station is killed again and again", async () => {
  await using project = await startSupabaseProject();
  await using database = await testDatabase();
  await using edge = await startEdgeRuntime({
    SUPABASE_URL: project.url,
    SUPABASE_SECRET_KEYS: JSON.stringify({ default: project.secretKey }),
  });
  await using station = syncProcess({
    DATABASE_URL: database.url,
    SUPABASE_URL: project.url,
    SUPABASE_SERVICE_ROLE: project.secretKey,
  });
  const [here, there] = [database.url, project.databaseUrl].map((url) =>
    openPool({ url, name: "test", max: 2 }),
  );
  assert.ok(here && there);
  const key = `pmk_${randomBytes(32).toString("base64url")}`;
  await there.query("insert into public.device_keys (id, device, key_hash) values ($1, '*', $2)", [
    randomUUID(),
    createHash("sha256").update(key).digest("hex"),
  ]);
  const send = async (upload: number) => {
    const positions = Array.from({ length: perUpload }, (_, index) => ({
      device: `phone-${upload % 5}`,
      time: Date.parse("2026-11-01T00:00:00Z") + (upload * perUpload + index) * 1_000,
      lat: 50 + upload / 1_000,
      lon: 6,
    }));
    const response = await fetch(`${edge.url}/functions/v1/ingest/positions`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-api-key": key },
      body: JSON.stringify(positions),
    });
    assert.equal(response.status, 200);
  };
  const count = async (pool: typeof here, what: string) =>
    (await pool.query(`select count(*)::int as count from ${what}`)).rows[0].count as number;
  const until = (pool: typeof here, what: string, isSo: (seen: number) => boolean) =>
    eventually(() => count(pool, what), isSo);

  await station.start();
  for (let upload = 0; upload < uploads; upload += 1) {
    // A third is sent again, as by a phone that has heard no answer.
    await Promise.all([send(upload), ...(upload % 3 === 0 ? [send(upload)] : [])]);
    if (upload % 20 !== 19) continue;
    // In the middle of its work: something of the last twenty is taken, and perhaps not all of it.
    await until(there, "public.inbox where taken_at is not null", (taken) => taken > upload - 19);
    await station.kill();
    await there.query("update public.inbox set leased_until = now() where taken_at is null");
    await station.start();
  }
  await until(there, "public.inbox where taken_at is null", (waiting) => waiting === 0);
  assert.equal(await count(there, "public.inbox"), uploads);
  assert.equal(await count(here, "sync.inbox_taken"), uploads);
  assert.equal(await count(here, "public.positions"), uploads * perUpload);
  assert.equal(await count(here, "sync.parked_rows"), 0);
  // And from the station they go the way of all positions.
  await until(there, "public.positions", (mirrored) => mirrored === uploads * perUpload);
  assert.ok(!station.output().includes(project.secretKey) && !edge.log().includes(key));
  await Promise.all([here.end(), there.end()]);
});
