import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { complaintsOf, noSystemdAnalyze } from "../../test/support/systemd.ts";
import type { Surroundings } from "./exported.ts";
import { managerUnit } from "./systemd-manager.ts";

const around: Surroundings = {
  project: "pugmark",
  node: process.execPath,
  nodeVersion: process.versions.node,
  root: import.meta.dirname,
  home: "/var/lib/pugmark",
  path: "/usr/bin:/bin",
  timeZone: "UTC",
};
const options = { command: [process.execPath, "main.ts", "up"], env: {}, user: "root" } as const;

for (const scope of ["system", "user"] as const)
  test(`the ${scope} unit of the manager is one that systemd finds no fault with`, {
    skip: noSystemdAnalyze,
  }, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), "pugmark-export-"));
    t.after(() => rmSync(folder, { recursive: true }));
    const [file] = managerUnit([], around, { ...options, scope }).files;
    const path = join(folder, file?.name ?? "");
    writeFileSync(path, file?.text ?? "");
    assert.equal(await complaintsOf(scope, [path]), "");
  });

test("the manager has as long to stop as its longest chain of services, and 10 s more", () => {
  const stopping = (name: string, timeoutMs: number, dependsOn: readonly string[]) =>
    ({ name, command: ["true"], stop: { timeoutMs }, dependsOn }) as const;
  const definitions = [
    stopping("database", 30_000, []),
    stopping("chat", 1_000, []),
    stopping("api", 10_500, ["database", "chat"]),
  ];
  const [file] = managerUnit(definitions, around, { ...options, scope: "system" }).files;
  assert.match(file?.text ?? "", /^TimeoutStopSec=50500ms$/m);
});

test("a secret of the shell is named as left out, and its value is nowhere", () => {
  const env = { API_PORT: "9080", DEEPSEEK_API_KEY: "s3cret", DATABASE_URL: "postgres://me:s3cret@host/x" };
  const { files, left } = managerUnit([], around, { ...options, env, scope: "user" });
  const text = files.map((file) => file.text).join("");
  assert.match(text, /^Environment=API_PORT=9080$/m);
  assert.match(text, /^# - DEEPSEEK_API_KEY is a secret/m);
  assert.doesNotMatch(text, /s3cret/);
  assert.equal(left.filter((line) => line.includes("secret")).length, 2);
});
