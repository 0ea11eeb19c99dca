import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

function pugmark(home: string, ...args: readonly string[]) {
  const env = { PATH: process.env.PATH ?? "", PUGMARK_HOME: home };
  return spawnSync(process.execPath, [join(import.meta.dirname, "main.ts"), ...args], {
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

test("the version is said", () => {
  const { status, stdout } = pugmark("/nowhere", "--version");
  assert.equal(status, 0);
  assert.match(stdout, /^\d+\.\d+\.\d+ \(Node \d+/);
});
