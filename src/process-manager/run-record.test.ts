import assert from "node:assert/strict";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { type Definition, defineService } from "./definition.ts";
import { eventually, Fixture, forever, recordOf, untilState } from "./fixture.ts";

test("what failed says what changed since it last ran well, across managers, and gives no value away", async (t) => {
  const fixture = await Fixture.create(t);
  const script = await fixture.script("app.sh", "exec sleep 1000");
  const define = (env: Record<string, string>, stableMs: number): Definition =>
    defineService({
      name: "app",
      command: ["/bin/sh", script],
      env,
      restart: { policy: "never", stableMs },
    });
  const first = await fixture.open([define({ POT: "clay-secret", OLD: "1" }, 1)]);
  await first.startAndWait("app");
  const path = join(fixture.home, "runs", "app.json");
  const kept = await eventually("the run is remembered", () => readFile(path, "utf8"));
  assert.doesNotMatch(kept, /clay-secret/);
  await first.stopAll();

  await writeFile(script, "echo the kiln is cold; exit 1");
  const second = await fixture.open([define({ POT: "iron", NEW: "1" }, 60_000)]);
  await second.start();
  const { changes, lastLines } = await untilState(second, "app", "failed");
  assert.deepEqual(changes, [
    `file ${script} changed`,
    "variable NEW is new",
    "variable OLD is gone",
    "variable POT changed",
  ]);
  assert.deepEqual(lastLines, ["the kiln is cold"]);
});

test("a program that is gone, and a dependency that fell, are named among what changed", async (t) => {
  const fixture = await Fixture.create(t);
  const script = await fixture.script("app.sh", "exec sleep 1000");
  const manager = await fixture.open([
    defineService({ name: "store", command: forever, restart: { policy: "never" } }),
    defineService({
      name: "app",
      command: ["/bin/sh", script],
      dependsOn: ["store"],
      restart: { policy: "never", stableMs: 1 },
    }),
  ]);
  await manager.startAndWait("app");
  await eventually("the run is remembered", () => readFile(join(fixture.home, "runs", "app.json")));
  await rm(script);
  process.kill(recordOf(manager, "store").pid ?? 0, "SIGKILL");
  await untilState(manager, "store", "failed");
  assert.match(
    recordOf(manager, "app").reason,
    /^is ready, but store, which it needs, failed: killed by SIGKILL/,
  );
  await manager.startAndWait("store");
  assert.equal(recordOf(manager, "app").reason, "is ready, and so is store again");
  process.kill(recordOf(manager, "app").pid ?? 0, "SIGKILL");
  const { changes } = await untilState(manager, "app", "failed");
  assert.equal(changes[0], `file ${script} is gone`);
  assert.match(changes[1] ?? "", /^store killed by SIGKILL at /);
});
