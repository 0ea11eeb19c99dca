import assert from "node:assert/strict";
import { test } from "node:test";
import { Breaker } from "./breaker.ts";

function breakerAt() {
  let now = 0;
  const breaker = new Breaker(5, () => now);
  const fail = (times: number) => {
    for (let i = 0; i < times; i += 1) breaker.failed(`failure ${i + 1}`);
  };
  const pass = (ms: number) => {
    now += ms;
  };
  return { breaker, fail, pass };
}

test("so many failures in a row open it, and a success in between starts anew", () => {
  const { breaker, fail } = breakerAt();
  fail(4);
  breaker.succeeded();
  fail(4);
  assert.equal(breaker.state, "closed");
  fail(1);
  assert.deepEqual([breaker.state, breaker.failures, breaker.last], ["open", 5, "failure 1"]);
});

test("it lets one try after a second, and after up to 30 s when that fails again and again", () => {
  const { breaker, fail, pass } = breakerAt();
  fail(5);
  const waits: number[] = [];
  for (let i = 0; i < 7; i += 1) {
    waits.push(breaker.openForMs);
    pass(breaker.openForMs - 1);
    assert.equal(breaker.state, "open");
    pass(1);
    assert.equal(breaker.state, "half-open");
    fail(1);
    assert.equal(breaker.state, "open");
  }
  assert.deepEqual(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
});

test("a try that succeeds closes it, and forgets how long it was open", () => {
  const { breaker, fail, pass } = breakerAt();
  fail(5);
  pass(1_000);
  fail(1);
  pass(2_000);
  breaker.succeeded();
  assert.deepEqual([breaker.state, breaker.failures, breaker.openForMs], ["closed", 0, 0]);
  fail(5);
  assert.equal(breaker.openForMs, 1_000);
});

test("failures of what began before it opened do not keep it open", () => {
  const { breaker, fail, pass } = breakerAt();
  fail(5);
  pass(900);
  fail(3);
  assert.equal(breaker.openForMs, 100);
});
