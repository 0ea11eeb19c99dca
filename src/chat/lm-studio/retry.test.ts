import assert from "node:assert/strict";
import { test } from "node:test";
import { type ChatErrorCode, chatStatusOf } from "../chat-error.ts";
import { type Attempt, nextStep } from "./retry.ts";

const failed = (code: ChatErrorCode, more: Partial<Attempt> = {}): Attempt => ({
  code,
  isSent: true,
  isPassedOn: false,
  retryAfterS: undefined,
  ...more,
});
const codes = Object.keys(chatStatusOf) as ChatErrorCode[];

test("what has begun to arrive is never asked for again", () => {
  for (const code of codes)
    assert.deepEqual(nextStep(failed(code, { isPassedOn: true }), 0), { step: "give-up" });
});

test("a crash and a broken connection are tried once more, a busy one twice, nothing else", () => {
  const again = (retries: number) => codes.filter((code) => nextStep(failed(code), retries).step === "again");
  assert.deepEqual(again(0).sort(), ["model-crashed", "upstream-busy", "upstream-cut"]);
  assert.deepEqual(again(1), ["upstream-busy"]);
  assert.deepEqual(again(2), []);
});

test("what was never sent, or has no such model, goes elsewhere at once", () => {
  assert.equal(nextStep(failed("lm-studio-away", { isSent: false }), 0).step, "elsewhere");
  assert.equal(nextStep(failed("upstream-timeout", { isSent: false }), 0).step, "elsewhere");
  assert.equal(nextStep(failed("model-not-found"), 0).step, "elsewhere");
  assert.equal(nextStep(failed("no-model-loaded"), 0).step, "elsewhere");
});

test("the pause doubles, and differs from one call to the next", () => {
  const pauses = [0, 1].flatMap((retries) =>
    [0, 1].map((random) => nextStep(failed("upstream-busy"), retries, () => random)),
  );
  assert.deepEqual(
    pauses.map((next) => next.step === "again" && next.afterMs),
    [100, 200, 200, 400],
  );
});

test("a busy one is asked again when it says, unless that is too far off", () => {
  const busy = (retryAfterS: number) => nextStep(failed("upstream-busy", { retryAfterS }), 0);
  assert.deepEqual(busy(3), { step: "again", afterMs: 3_000 });
  assert.deepEqual(busy(60), { step: "give-up" });
});
