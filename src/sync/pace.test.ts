import assert from "node:assert/strict";
import { test } from "node:test";
import { Pace } from "./pace.ts";

test("waits double from failure to failure, up to a bound, and begin anew after a success", (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: 1_000_000 });
  const pace = new Pace({ firstMs: 100, mostMs: 1_000, random: () => 1 });
  const waits = Array.from({ length: 6 }, () => {
    pace.failed();
    const waitMs = pace.nextTryAt - Date.now();
    t.mock.timers.setTime(pace.nextTryAt);
    return waitMs;
  });
  assert.deepEqual(waits, [100, 200, 400, 800, 1_000, 1_000]);
  pace.succeeded();
  assert.equal(pace.nextTryAt, 0);
  pace.failed();
  assert.equal(pace.nextTryAt - Date.now(), 100);
});

test("jitter takes off up to half of a wait", (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: 1_000_000 });
  const pace = new Pace({ firstMs: 100, mostMs: 1_000, random: () => 0 });
  pace.failed();
  assert.equal(pace.nextTryAt - Date.now(), 50);
});

test("what fails while all wait already counts once, but a longer wish of the other side holds", (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: 1_000_000 });
  const pace = new Pace({ firstMs: 100, mostMs: 1_000, random: () => 1 });
  for (let sender = 0; sender < 4; sender += 1) pace.failed();
  assert.equal(pace.nextTryAt - Date.now(), 100);
  pace.failed(5_000);
  assert.equal(pace.nextTryAt - Date.now(), 5_000);
});

test("a wait ends at once when it is told to hurry, and with the reason of a signal that aborts", async () => {
  const pace = new Pace({ firstMs: 60_000, mostMs: 60_000 });
  pace.failed();
  const waiting = pace.wait(new AbortController().signal);
  pace.hurry();
  await waiting;
  pace.failed();
  const stop = new AbortController();
  const stopped = pace.wait(stop.signal);
  stop.abort(new Error("over"));
  await assert.rejects(stopped, { message: "over" });
});
