import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { unread } from "./unread.fixture.ts";

const main = join(import.meta.dirname, "main.ts");

function pugmark(home: string, ...args: readonly string[]) {
  const env = { PATH: process.env.PATH ?? "", PUGMARK_HOME: home };
  return spawnSync(process.execPath, [main, ...args], {
    encoding: "utf8",
    env,
  });
}

test("a home that cannot be used is one line with what to do, and exit code 1", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "pugmark-main-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, "file");
  writeFileSync(file, "");
  const { status, stderr } = pugmark(join(file, "home"), "up");
  assert.equal(status, 1);
  assert.match(stderr, /^pugmark: .*\/file\/home cannot be used as a home .*set PUGMARK_HOME.*\n$/);
});

test("a reader who leaves changes nothing of the exit code, and is shown no stack", async () => {
  const env = { PATH: process.env.PATH, PUGMARK_HOME: "/nowhere" };
  const { code, err } = await unread(["export", "systemd"], env);
  assert.equal(code, 0);
  assert.doesNotMatch(err, /EPIPE/);
});

test("what a full disk does not take is a failure", { skip: !existsSync("/dev/full") }, (t) => {
  const full = openSync("/dev/full", "w");
  t.after(() => closeSync(full));
  const { status, stderr } = spawnSync(process.execPath, [main, "config"], {
    encoding: "utf8",
    env: { PATH: process.env.PATH, PUGMARK_HOME: "/nowhere" },
    stdio: ["ignore", full, "pipe"],
  });
  assert.equal(status, 1);
  assert.match(stderr, /^pugmark: what is printed cannot be written: ENOSPC.*\n$/);
});

test("the version is said", () => {
  const { status, stdout } = pugmark("/nowhere", "--version");
  assert.equal(status, 0);
  assert.match(stdout, /^\d+\.\d+\.\d+ \(Node \d+/);
});
