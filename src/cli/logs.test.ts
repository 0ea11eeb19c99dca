import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { appendFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { stripVTControlCharacters } from "node:util";
import { defineService } from "../process-manager/definition.ts";
import { Fixture, untilState } from "../process-manager/fixture.ts";
import type { LogLine } from "../process-manager/log-reader.ts";
import type { ProcessManager } from "../process-manager/process-manager.ts";
import { unread } from "./unread.fixture.ts";

const main = join(import.meta.dirname, "main.ts");
const once = { policy: "never" } as const;

function env(fixture: Fixture): NodeJS.ProcessEnv {
  return { ...fixture.env, PUGMARK_HOME: fixture.home, TZ: "Asia/Kolkata" };
}

function pugmark(fixture: Fixture, ...args: readonly string[]) {
  return spawnSync(process.execPath, [main, "logs", ...args], { encoding: "utf8", env: env(fixture) });
}

function jsonLines(text: string): LogLine[] {
  return text.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line)]));
}

/** Two jobs that have printed, and a manager that has stopped. */
async function finishedJobs(t: TestContext): Promise<Fixture> {
  const fixture = await Fixture.create(t);
  const job = (name: string, script: string) =>
    defineService({ name, command: ["/bin/sh", "-c", script], restart: once });
  const manager = await fixture.open([
    job("first", "seq 1 200; echo 'an error' >&2; exit 1"),
    job("second", `printf '%s\\n' '{"level":"warn","msg":"two\\nlines","code":7}'; exit 1`),
  ]);
  await manager.start(["first"]);
  await untilState(manager, "first", "failed");
  await manager.start(["second"]);
  await untilState(manager, "second", "failed");
  await manager.stopAll();
  return fixture;
}

test("logs are read when no station runs: the last 100 of each, in the order of their times", async (t) => {
  const fixture = await finishedJobs(t);
  const { status, stdout } = pugmark(fixture);
  assert.equal(status, 0);
  const lines = stdout.trimEnd().split("\n");
  assert.equal(lines.length, 102);
  const plain = lines.map((line) => stripVTControlCharacters(line));
  assert.ok(plain.slice(0, 100).every((line) => line.startsWith("first  | ")));
  assert.deepEqual(plain.slice(100), ["second | two", "second | lines code=7"]);
});

test("lines are chosen by name, number, pattern and time", async (t) => {
  const fixture = await finishedJobs(t);
  const found = (...args: readonly string[]): string[] =>
    jsonLines(pugmark(fixture, ...args, "--json").stdout).map(({ line }) => line);
  assert.deepEqual(found("first", "-n", "3").sort(), ["199", "200", "an error"]);
  assert.deepEqual(found("--grep", "^1?7$"), ["7", "17"]);
  assert.deepEqual(found("first", "--grep", "7", "-n", "2"), ["187", "197"]);
  assert.equal(found("first", "--since", "1h").length, 201);
  assert.deepEqual(found("--until", "1h"), []);
  assert.equal(found("manager", "--grep", "first: .* failed").length, 1);
});

test("times are local for eyes and ISO in JSON, and the stream is told", async (t) => {
  const fixture = await finishedJobs(t);
  const [entry] = jsonLines(pugmark(fixture, "first", "--grep", "an error", "--json").stdout);
  assert.equal(entry?.stream, "stderr");
  const { stdout } = pugmark(fixture, "first", "--grep", "an error", "-t");
  const [, shown = ""] = /(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3})/.exec(stdout) ?? [];
  assert.equal(new Date(`${shown.replace(" ", "T")}+05:30`).toISOString(), entry?.at);
});

test("what cannot be done is said, with an exit code", async (t) => {
  const fixture = await finishedJobs(t);
  const badPattern = pugmark(fixture, "--grep", "(");
  assert.equal(badPattern.status, 2);
  assert.match(badPattern.stderr, /Unterminated group/);
  assert.equal(pugmark(fixture, "--since", "yesterday").status, 2);
  assert.equal(pugmark(fixture, "-f", "--until", "1m").status, 2);
  const unknown = pugmark(fixture, "frist");
  assert.equal(unknown.status, 2);
  assert.match(unknown.stderr, /no log of frist; there are first, manager, second/);
  const follow = pugmark(fixture, "-f");
  assert.equal(follow.status, 3);
  assert.match(follow.stderr, /no station runs/);
});

test("logs are followed until the station ends, with no line twice or left out", async (t) => {
  const fixture = await Fixture.create(t);
  const input = await fixture.script("input", "1\n2\n3\n");
  const command = ["/bin/sh", "-c", `exec tail -n +1 -f ${input}`] as const;
  const manager: ProcessManager = await fixture.open([defineService({ name: "job", command })]);
  await manager.startAndWait("job");
  const follower: ChildProcess = spawn(process.execPath, [main, "logs", "job", "-f", "--json"], {
    env: env(fixture),
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  for await (const chunk of follower.stdout ?? []) {
    text += chunk;
    if (text.includes('"line":"3"') && !text.includes('"line":"4"')) await appendFile(input, "4\n5\n");
    if (text.includes('"line":"5"')) void manager.stopAll();
  }
  assert.deepEqual(
    jsonLines(text).map(({ line }) => line),
    ["1", "2", "3", "4", "5"],
  );
});

test("lines that nobody reads any more are followed no longer", async (t) => {
  const fixture = await Fixture.create(t);
  const command = ["/bin/sh", "-c", "echo started; exec sleep 1000"] as const;
  const manager = await fixture.open([defineService({ name: "job", command })]);
  await manager.startAndWait("job");
  assert.deepEqual(await unread(["logs", "-f"], env(fixture)), { code: 0, err: "" });
});
