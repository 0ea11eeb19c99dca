import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { noSystemdAnalyze } from "../../test/support/systemd.ts";
import { nextRunAfter } from "../process-manager/schedule.ts";
import { calendarExpressions, plainCron } from "./calendar.ts";

process.env.TZ = "UTC"; // the manager goes by local time

const schedules = [
  "0 3 * * *",
  "*/15 9-17 * JAN-MAR MON-FRI",
  "5,35 */6 1 * *",
  "0 0 13 * 5",
  "0 0 */10 * 1",
  "10-50/20 0 * 2-12/5 *",
  "0 12 * * 7",
  "0 12 ? * 5-7",
  "59 23 31 12 *",
];

test("systemd comes at the very times that the manager comes at", { skip: noSystemdAnalyze }, () => {
  const from = new Date("2026-11-22T10:07:00Z");
  for (const schedule of schedules) {
    const expressions = calendarExpressions(schedule);
    assert.ok(expressions, schedule);
    const theirs = expressions.flatMap((expression) => comings(expression, from)).sort((a, b) => a - b);
    assert.deepEqual([...new Set(theirs)].slice(0, 5), next(schedule, from), schedule);
  }
});

test("what systemd has no words for is not guessed at", () => {
  for (const schedule of ["0 0 L * *", "0 0 * * MON#1", "0 0 15W * *", "@daily", "0 0 * *"])
    assert.equal(calendarExpressions(schedule), null, schedule);
});

/** The next five times of the schedule, in ms. */
function next(schedule: string, from: Date): number[] {
  const times: number[] = [];
  for (let at: Date | null = from; times.length < 5; ) {
    at = nextRunAfter(schedule, at);
    assert.ok(at);
    times.push(at.getTime());
  }
  return times;
}

/** The next five times that systemd says, in ms; it begins to look a second after `from`. */
function comings(expression: string, from: Date): number[] {
  const base = `@${from.getTime() / 1000}`;
  const args = ["calendar", "--iterations=5", `--base-time=${base}`, expression];
  const text = execFileSync("/usr/bin/systemd-analyze", args, {
    encoding: "utf8",
    env: { ...process.env, TZ: "UTC" },
  });
  return [...text.matchAll(/^ *(?:Next elapse|Iter\. #\d+): \w+ (\S+) (\S+) UTC$/gm)].map(([, day, time]) =>
    Date.parse(`${day}T${time}Z`),
  );
}

test("Kubernetes is told of Sundays by 0, the only number that it knows them by", () => {
  assert.equal(plainCron("0 12 * * 7"), "0 12 * * 0");
  assert.equal(plainCron("7 7 * * 5-7"), "7 7 * * 5,6,0");
  assert.equal(plainCron(" 0 3  * * mon-fri"), "0 3 * * mon-fri");
  assert.equal(plainCron("0 0 L * *"), null);
});
