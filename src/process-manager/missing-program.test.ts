import assert from "node:assert/strict";
import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { defineService } from "./definition.ts";
import { Fixture, recordOf, untilRecord, untilState } from "./fixture.ts";
import type { ProcessManager } from "./process-manager.ts";

interface Project {
  readonly manager: ProcessManager;
  readonly program: string;
  readonly install: () => Promise<void>;
}

/** A manager of one service, whose program is not there before `install`. */
async function project(t: TestContext, watched: readonly string[] = []): Promise<Project> {
  const fixture = await Fixture.create(t);
  const program = join(fixture.folder, "program");
  const manager = await fixture.open([
    defineService({
      name: "app",
      command: [program],
      cwd: fixture.folder,
      restart: { backoffBaseMs: 5, backoffCapMs: 10, intensity: 10_000, stableMs: 60_000 },
      ...(watched.length > 0 ? { watch: { paths: watched } } : {}),
    }),
  ]);
  const install = async (): Promise<void> => {
    // Under its name at once, whole: a program that is still written to cannot be run.
    await writeFile(`${program}.new`, "#!/bin/sh\nexec sleep 1000\n", { mode: 0o755 });
    await rename(`${program}.new`, program);
  };
  return { manager, program, install };
}

test("a program that was never there fails at once, says so, and can be started by hand once it is there", async (t) => {
  const { manager, program, install } = await project(t);
  await manager.start();
  const { reason, restarts } = await untilState(manager, "app", "failed");
  assert.equal(reason, `there is no program ${program}; trying again cannot mend that`);
  assert.equal(restarts, 0);
  await install();
  assert.equal((await manager.startAndWait("app")).state, "ready");
});

test("a program that ran and is away while it is replaced is tried again until it is back", async (t) => {
  const { manager, program, install } = await project(t);
  await install();
  const { pid } = await manager.startAndWait("app");
  assert.ok(pid);
  await rename(program, `${program}.old`);
  process.kill(pid, "SIGKILL");
  await untilRecord(manager, "app", ({ restarts }) => restarts > 3, "a fourth restart");
  await install();
  assert.notEqual((await untilState(manager, "app", "ready")).pid, pid);
});

test("a program that a change of watched files may bring is tried again", async (t) => {
  const { manager, install } = await project(t, ["."]);
  await manager.start();
  await untilRecord(manager, "app", ({ restarts }) => restarts > 3, "a fourth restart");
  await install();
  await untilState(manager, "app", "ready");
  assert.ok(recordOf(manager, "app").pid);
});
