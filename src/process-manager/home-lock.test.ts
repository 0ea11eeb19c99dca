import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { currentHolder, HomeLock } from "./home-lock.ts";

async function temporaryHome(t: TestContext): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), "home-lock-"));
  t.after(() => rm(home, { recursive: true, force: true }));
  return home;
}

async function takeAtOnce(home: string, takers: number): Promise<HomeLock[]> {
  const results = await Promise.allSettled(Array.from({ length: takers }, () => HomeLock.take(home, "test")));
  for (const result of results)
    if (result.status === "rejected") assert.equal(result.reason.code, "home-held");
  return results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
}

/** What a killed manager leaves: a lock whose process is gone, or whose pid is another process's by now. */
async function leaveStale(home: string, generation: number, mark: string, pid = process.pid): Promise<void> {
  await mkdir(join(home, "lock"), { recursive: true });
  const holder = { pid, startTime: "another boot:1", mark, since: "2026-01-01T00:00:00.000Z", command: "" };
  await writeFile(join(home, "lock", String(generation)), JSON.stringify(holder));
  await writeFile(join(home, "manager.json"), JSON.stringify(holder));
}

test("of many who take a free home at once, exactly one gets it", async (t) => {
  const home = await temporaryHome(t);
  assert.equal((await takeAtOnce(home, 20)).length, 1);
});

test("of many who take over from a dead manager at once, exactly one gets it, round after round", async (t) => {
  const home = await temporaryHome(t);
  for (let round = 0; round < 10; round += 1) {
    const winners = await takeAtOnce(home, 10);
    assert.equal(winners.length, 1);
    await winners[0]?.forgetStale();
    await winners[0]?.release();
    assert.equal(await currentHolder(home), null);
  }
});

test("a lock whose pid belongs to another process by now is taken over, and its mark is handed on", async (t) => {
  const home = await temporaryHome(t);
  await leaveStale(home, 3, "mark-of-old");
  assert.equal(await currentHolder(home), null);
  const [lock] = await takeAtOnce(home, 5);
  assert.ok(lock);
  assert.deepEqual(lock.staleMarks, ["mark-of-old"]);
  await lock.forgetStale();
  assert.deepEqual(await readdir(join(home, "lock")), ["4"]);
  assert.equal((await currentHolder(home))?.mark, lock.holder.mark);
});

test("marks are handed on until somebody has ended what carries them", async (t) => {
  const home = await temporaryHome(t);
  await leaveStale(home, 1, "older");
  await leaveStale(home, 2, "newer");
  const lock = await HomeLock.take(home, "test");
  assert.deepEqual(lock.staleMarks, ["older", "newer"]);
});

test("a lock that a crash of the machine left empty holds nobody up", async (t) => {
  const home = await temporaryHome(t);
  await mkdir(join(home, "lock"));
  await writeFile(join(home, "lock", "1"), "");
  assert.equal((await takeAtOnce(home, 3)).length, 1);
});
