import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { testDatabase } from "../../test/support/postgres.ts";
import { newInteraction, silent } from "./interaction.fixture.ts";
import { openInteractionLog } from "./interaction-log.ts";
import { openPool } from "./pool.ts";
import { tokensUsedSince } from "./token-use.ts";

test("a caller's tokens count once where the model was asked, and not for answers it had already", async () => {
  await using database = await testDatabase();
  const pool = openPool({ url: database.url, name: "test", role: "pugmark_app" });
  const folder = mkdtempSync(join(tmpdir(), "pugmark-token-use-"));
  const usage = { prompt_tokens: 30, completion_tokens: 4 };
  {
    await using log = openInteractionLog({ pool, folder, log: silent });
    for (const cache of ["MISS", "BYPASS", "HIT", "JOINED"] as const) {
      await log.record(newInteraction({ cache, createdAt: new Date(5_000) }, { usage }));
    }
    await log.record(newInteraction({ createdAt: new Date(4_999) }, { usage }));
    await log.record(newInteraction({ caller: "somebody", createdAt: new Date(5_000) }, { usage }));
    await log.record(newInteraction({ createdAt: new Date(5_000), outcome: "client-gone" }));
    const elsewhere = newInteraction({ createdAt: new Date(5_000) }, { usage });
    await log.record(elsewhere);
    await log.settled();
    await pool.query("update interactions set station_id = $2 where id = $1", [elsewhere.id, randomUUID()]);
  }
  assert.equal(await tokensUsedSince(pool, "local", new Date(5_000)), 68);
  assert.equal(await tokensUsedSince(pool, "nobody", new Date(0)), 0);
  await pool.end();
  rmSync(folder, { recursive: true });
});
