import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";

/** Runs `pugmark export …` in a folder and a home of its own. */
function exporter(t: TestContext, env: Readonly<Record<string, string>> = {}) {
  const folder = mkdtempSync(join(tmpdir(), "pugmark-export-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const run = (...args: readonly string[]) =>
    spawnSync(process.execPath, [join(import.meta.dirname, "main.ts"), "export", ...args], {
      encoding: "utf8",
      cwd: folder,
      env: { PATH: process.env.PATH ?? "", PUGMARK_HOME: join(folder, "home"), ...env },
    });
  return { folder, run };
}

test("an export goes to standard output, and what it lacks to standard error", (t) => {
  const { run } = exporter(t, { API_PORT: "9080", DEEPSEEK_API_KEY: "s3cret" });
  const { status, stdout, stderr } = run("systemd", "--user");
  assert.equal(status, 0);
  assert.match(stdout, /^ExecStart=.* up$/m);
  assert.match(stdout, /^Environment=API_PORT=9080$/m);
  assert.doesNotMatch(stdout + stderr, /s3cret/);
  assert.match(stderr, /^not carried over: DEEPSEEK_API_KEY is a secret/m);
});

test("an export writes over its own files and over nobody else's", (t) => {
  const { folder, run } = exporter(t);
  assert.equal(run("compose", "-o", "out").status, 0);
  const file = join(folder, "out", "compose.yaml");
  writeFileSync(file, `${readFileSync(file, "utf8")}# old`);
  assert.equal(run("compose", "-o", "out").status, 0);
  assert.doesNotMatch(readFileSync(file, "utf8"), /# old/);

  writeFileSync(file, "services: {}\n");
  rmSync(join(folder, "out", "pugmark.Dockerfile"));
  const { status, stderr } = run("compose", "-o", "out");
  assert.equal(status, 1);
  assert.match(stderr, /compose\.yaml is somebody else's/);
  assert.equal(readFileSync(file, "utf8"), "services: {}\n");
  assert.equal(existsSync(join(folder, "out", "pugmark.Dockerfile")), false);
});

test("what belongs to one target is refused for another", (t) => {
  const { status, stderr } = exporter(t).run("compose", "--user");
  assert.equal(status, 2);
  assert.match(stderr, /--user and --each are for systemd alone/);
});

test("a services file of any project is exported under its folder's name", (t) => {
  const { folder, run } = exporter(t);
  const services = { web: { command: ["node", "web.js"], listen: { port: 8_000 } } };
  writeFileSync(join(folder, "services.json"), JSON.stringify({ services }));
  const unit = run("systemd", "-f", "services.json");
  assert.equal(unit.status, 0, unit.stderr);
  assert.match(unit.stdout, /^ExecStart=.*main\.mjs up -f .*services\.json$/m);
  assert.match(unit.stdout, /^Description=pugmark-export-\w+: /m);
  const compose = run("compose", "-f", "services.json");
  assert.match(compose.stdout, /^ {2}web:$/m);
  assert.match(compose.stdout, /^ {6}- 127\.0\.0\.1:8000:8000$/m);
});

test("the mirror goes along to every target, and its key to none", (t) => {
  const key = "sb_secret_of_the_project";
  const project = { SUPABASE_URL: "https://ref.supabase.co", SUPABASE_SERVICE_ROLE: key };
  const { run } = exporter(t, project);
  const compose = run("compose");
  assert.match(compose.stdout, /^ {2}sync:$/m);
  assert.match(compose.stdout, /^ {6}SUPABASE_URL: https:\/\/ref\.supabase\.co$/m);
  assert.match(compose.stdout, /^ {6}SUPABASE_SERVICE_ROLE: \$\{SUPABASE_SERVICE_ROLE:\?/m);
  const kubernetes = run("kubernetes");
  assert.deepEqual(
    [...kubernetes.stdout.matchAll(/secret generic (\S+) .*SUPABASE_SERVICE_ROLE=…/g)].map(
      ([, name]) => name,
    ),
    ["pugmark-sync"],
  );
  const units = run("systemd", "--each");
  assert.match(units.stdout, /^# ==> pugmark-sync\.service <==$/m);
  const [, unit = ""] = units.stdout.split("==> pugmark-sync.service <==");
  assert.match(unit.split("==>")[0] ?? "", /^# SUPABASE_SERVICE_ROLE$/m);
  const manager = run("systemd");
  assert.match(manager.stderr, /^not carried over: SUPABASE_SERVICE_ROLE is a secret/m);
  for (const { status, stdout, stderr } of [compose, kubernetes, units, manager]) {
    assert.equal(status, 0, stderr);
    assert.ok(!(stdout + stderr).includes(key));
  }
});
