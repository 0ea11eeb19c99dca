import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { chmod } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { defineExternal, defineService } from "../process-manager/definition.ts";
import { Fixture, forever } from "../process-manager/fixture.ts";

const run = promisify(execFile);

/** What bash offers after these words, with the script sourced as a user would. */
async function completed(fixture: Fixture, ...words: readonly string[]): Promise<string[]> {
  const main = join(import.meta.dirname, "main.ts");
  await chmod(
    await fixture.script("pugmark", `#!/bin/sh\nexec '${process.execPath}' '${main}' "$@"\n`),
    0o700,
  );
  const script = `
    eval "$(pugmark completion bash)"
    COMP_WORDS=(pugmark "$@")
    COMP_CWORD=$#
    _pugmark
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  const env = {
    ...fixture.env,
    PATH: `${fixture.folder}:${fixture.env.PATH}`,
    PUGMARK_HOME: fixture.home,
  };
  const { stdout } = await run("/bin/bash", ["--norc", "-c", script, "bash", ...words], { env });
  return stdout.split("\n").filter((word) => word !== "");
}

test("the shell completes every verb, with its options", async (t) => {
  const fixture = await Fixture.create(t);
  const verbs = await completed(fixture, "");
  for (const verb of ["up", "attach", "status", "top", "events", "metrics", "why", "logs", "restart"])
    assert.ok(verbs.includes(verb), verb);
  assert.ok(!verbs.includes("service-names"), "what only the script asks for");
  assert.deepEqual(await completed(fixture, "to"), ["top"]);
  assert.deepEqual(await completed(fixture, "up", "--ba"), []); // what only we ask for
  assert.deepEqual(await completed(fixture, "events", ""), ["--json", "--file"]);
  assert.deepEqual(await completed(fixture, "cache", ""), ["--json", "--model", "--prefix", "clear"]);
});

test("services are completed as the running station has them, and as ours are named where none runs", async (t) => {
  const fixture = await Fixture.create(t);
  assert.deepEqual(await completed(fixture, "stop", ""), [
    "--file",
    "database",
    "chat",
    "agent",
    "api",
    "sync",
  ]);
  await fixture.open([
    defineService({ name: "kiln", command: forever }),
    defineService({ name: "wheel", command: forever, replicas: 2 }),
    defineExternal({
      kind: "external",
      name: "redis",
      probe: { kind: "check", check: async () => undefined },
    }),
  ]);
  assert.deepEqual(await completed(fixture, "stop", ""), ["--file", "kiln", "wheel", "wheel-1", "wheel-2"]);
  assert.deepEqual(await completed(fixture, "logs", "ki"), ["kiln"]);
});
