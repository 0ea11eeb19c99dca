import assert from "node:assert/strict";
import { test } from "node:test";
import { parseTokensPerDay } from "../config/formats.ts";
import { ChatError } from "./chat-error.ts";
import { TokenBudgets } from "./token-budgets.ts";

const midnight = Date.UTC(2026, 10, 22);
const hourMs = 3_600_000;

/** Budgets over a log that says what it is told to, at a time that is set. */
function budgets(limits: string) {
  const world = { now: midnight + 18 * hourMs, logged: 0, away: false, readings: 0, warned: 0 };
  const made = new TokenBudgets({
    limits: parseTokensPerDay(limits),
    usedSince: async () => {
      world.readings += 1;
      if (world.away) throw new Error("away");
      return world.logged;
    },
    warn: () => {
      world.warned += 1;
    },
    clock: () => world.now,
  });
  return { world, budgets: made };
}

test("a caller is refused once its tokens are used, and told when there are more", async () => {
  const { world, budgets: day } = budgets("100");
  world.logged = 60;
  await day.admit("web");
  assert.deepEqual(await day.of("web"), { limit: 100, remaining: 40, resetS: 6 * 3600 });
  day.spend("web", 50);
  await assert.rejects(
    async () => day.admit("web"),
    (error) => {
      assert.ok(error instanceof ChatError && error.code === "token-budget-spent");
      assert.equal(error.retryAfterS, 6 * 3600);
      assert.match(error.message, /^web has used 110 of its 100 tokens of today .* in 6 h 0 min\.$/);
      return true;
    },
  );
  assert.equal((await day.of("web"))?.remaining, 0);
  await day.admit("other");
  world.now = midnight + 24 * hourMs;
  world.logged = 0;
  await day.admit("web");
  assert.equal((await day.of("web"))?.remaining, 100);
});

test("the log is read once, and again after a minute, on the side: others may have spent", async () => {
  const { world, budgets: day } = budgets("100");
  await Promise.all([day.admit("web"), day.admit("web")]);
  assert.equal(world.readings, 1);
  day.spend("web", 10);
  world.logged = 100;
  assert.equal(day.admit("web"), undefined);
  world.now += 61_000;
  assert.equal(day.admit("web"), undefined, "nobody waits for the second reading");
  await assert.rejects(async () => {
    for (let turn = 0; turn < 10; turn += 1) await day.admit("web");
  }, /has used 100/);
  assert.equal(world.readings, 2);
});

test("a reading that lags behind takes nothing back", async () => {
  const { world, budgets: day } = budgets("100");
  await day.admit("web");
  day.spend("web", 70);
  world.logged = 20;
  world.now += 61_000;
  await day.admit("web");
  await new Promise(setImmediate);
  assert.equal((await day.of("web"))?.remaining, 30);
});

test("while the log cannot be read, what was counted here holds, and it is asked again before long", async () => {
  const { world, budgets: day } = budgets("100");
  world.away = true;
  await day.admit("web");
  day.spend("web", 120);
  await assert.rejects(async () => day.admit("web"), /has used 120/);
  assert.deepEqual([world.readings, world.warned], [1, 1]);
  world.now += 11_000;
  await assert.rejects(async () => day.admit("web"), /has used 120/);
  assert.equal(world.readings, 2);
});

test("names have their own limits, and 0 is none", async () => {
  const { world, budgets: day } = budgets("100,web=5,station=0");
  assert.equal(day.admit("station"), undefined);
  assert.equal(await day.of("station"), undefined);
  assert.equal(world.readings, 0);
  assert.equal((await day.of("web"))?.limit, 5);
  assert.equal((await day.of("constructor"))?.limit, 100);
});
