import assert from "node:assert/strict";
import { test } from "node:test";
import type { RestartPolicy } from "./definition.ts";
import { decideRestart, noRestarts, type RestartHistory } from "./restart-decision.ts";

const policy: RestartPolicy = {
  policy: "always",
  intensity: 5,
  periodMs: 60_000,
  backoffBaseMs: 100,
  backoffCapMs: 500,
  stableMs: 5_000,
  successExitCodes: [0],
};
const crash = { clean: false, readyForMs: 0 };

/** The delays of one crash after the other, each at the given time. */
function delays(times: readonly number[], random: number, readyForMs = 0): (number | string)[] {
  let history: RestartHistory = noRestarts;
  return times.map((now) => {
    const decision = decideRestart(policy, history, { clean: false, readyForMs }, now, random);
    if (decision.kind !== "retry") return decision.kind;
    history = decision.history;
    return decision.delayMs;
  });
}

test("the first restart is at once, the next wait up to a doubling bound that is capped", () => {
  assert.deepEqual(delays([0, 1, 2, 3, 4], 1), [0, 100, 200, 400, 500]);
  assert.deepEqual(delays([0, 1, 2, 3, 4], 0.5), [0, 50, 100, 200, 250]);
});

test("more restarts than the intensity within the period give up, spread over more time they do not", () => {
  assert.deepEqual(delays([0, 1, 2, 3, 4, 5], 0).at(-1), "give-up");
  assert.deepEqual(
    delays([0, 20_000, 40_000, 60_000, 80_000, 100_000, 120_000], 0).includes("give-up"),
    false,
  );
});

test("a service that was ready for a stable while is started again at once", () => {
  assert.deepEqual(delays([0, 1, 2], 1, 5_000), [0, 0, 0]);
  assert.deepEqual(delays([0, 1, 2], 1, 4_999), [0, 100, 200]);
});

test("a clean end is final unless the policy is always", () => {
  const clean = { clean: true, readyForMs: 0 };
  const decide = (of: RestartPolicy["policy"]): string =>
    decideRestart({ ...policy, policy: of }, noRestarts, clean, 0, 0).kind;
  assert.deepEqual([decide("always"), decide("on-failure"), decide("never")], ["retry", "finish", "finish"]);
});

test("a crash is final when the policy is never", () => {
  assert.equal(decideRestart({ ...policy, policy: "never" }, noRestarts, crash, 0, 0).kind, "give-up");
});
