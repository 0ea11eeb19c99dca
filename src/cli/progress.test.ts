import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { Progress, progressLine } from "./progress.ts";

test("the bar tells the share, the rate and the time left", () => {
  assert.equal(
    progressLine(250, 1000, 50_000, 2),
    `${"█".repeat(6)}${"░".repeat(18)}  25 %  50,000 rows  25,000/s  6 s left`,
  );
  assert.match(progressLine(0, 0, 0, 0), /100 %/);
});

test("what an earlier run did makes neither the rate higher nor the time left shorter", () => {
  let now = 0;
  const terminal = Object.assign(new PassThrough(), { isTTY: true });
  const bar = new Progress(terminal, 1000, () => now);
  bar.from(900, 900);
  now = 2000;
  bar.update(920, 920);
  assert.match(String(terminal.read()), / {2}92 % {2}920 rows {2}10\/s {2}8 s left$/);
});

test("only a terminal gets a bar, and not more often than it can be read", () => {
  let now = 0;
  const terminal = Object.assign(new PassThrough(), { isTTY: true });
  const bar = new Progress(terminal, 100, () => now);
  for (; now < 1000; now += 10) bar.update(now / 10, now);
  bar.end();
  assert.equal(String(terminal.read()).split("\r").length - 1, 11);
  const file = new PassThrough();
  const silent = new Progress(file, 100);
  silent.update(1, 1);
  silent.end();
  assert.equal(file.read(), null);
});
