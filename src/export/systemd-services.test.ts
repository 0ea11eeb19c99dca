import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { everyDefinition } from "../../test/support/definitions.ts";
import { freePort } from "../../test/support/ports.ts";
import {
  complaintsOf,
  noSystemd,
  noSystemdAnalyze,
  startSystemd,
  until,
} from "../../test/support/systemd.ts";
import { type Definition, defineService } from "../process-manager/definition.ts";
import type { Exported, Surroundings } from "./exported.ts";
import { serviceUnits } from "./systemd-services.ts";

const around: Surroundings = {
  project: "test",
  node: process.execPath,
  nodeVersion: process.versions.node,
  root: import.meta.dirname,
  home: "/var/lib/test",
  path: "/usr/local/bin:/usr/bin:/bin",
  timeZone: "UTC",
};

function folderFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "pugmark-export-"));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** Writes all files and gives their paths. */
function write({ files }: Exported, folder: string): string[] {
  return files.map(({ name, text }) => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  });
}

function textOf(definitions: readonly Definition[], name: string): string {
  const file = serviceUnits(definitions, around, "system").files.find((one) => one.name === name);
  assert.ok(file, `no ${name}`);
  return file.text;
}

for (const scope of ["system", "user"] as const)
  test(`systemd finds no fault with the units of each service, for the ${scope}`, {
    skip: noSystemdAnalyze,
  }, async (t) => {
    const paths = write(serviceUnits(everyDefinition, around, scope), folderFor(t));
    assert.equal(paths.length, 10);
    assert.equal(await complaintsOf(scope, paths), "");
  });

test("a unit waits for what its service depends on, and needs what has to be done before", () => {
  const text = textOf(everyDefinition, "test-web-2.service");
  assert.match(text, /^Requires=test-web-2\.socket\nRequires=test-migrate\.service\n/m);
  assert.match(text, /^Wants=test-database\.service$/m);
  assert.match(text, /^After=test-migrate\.service\nAfter=test-database\.service$/m);
});

test("restart, stop and memory policies are systemd's own", () => {
  const web = textOf(everyDefinition, "test-web-1.service");
  for (const line of [
    "StartLimitIntervalSec=30s",
    "StartLimitBurst=6",
    "SuccessExitStatus=3",
    "Restart=always",
    "RestartSec=20ms",
    "MemoryMax=268435456",
    "EnvironmentFile=/etc/test/web-1.env",
  ])
    assert.ok(web.split("\n").includes(line), line);
  const database = textOf(everyDefinition, "test-database.service");
  assert.match(database, /^KillSignal=SIGINT$/m);
  assert.match(database, /^TimeoutStopSec=30s$/m);
  assert.match(database, /^User=1234\nGroup=1235$/m);
});

test("what systemd cannot do is listed, and stands at the head of the unit that lacks it", () => {
  const { left } = serviceUnits(everyDefinition, around, "user");
  const lacks = (name: string, what: RegExp) => {
    const line = left.find((one) => one.startsWith(`${name}: `) && what.test(one));
    assert.ok(line, `${name} ${what}`);
    const unit = name === "redis" ? "test.target" : `test-${name}.service`;
    const { files } = serviceUnits(everyDefinition, around, "user");
    assert.ok(files.find((file) => file.name === unit)?.text.includes(`# - ${line}`), line);
  };
  lacks("web-1", /liveness/);
  lacks("web-1", /notify/);
  lacks("web-1", /files change/);
  lacks("database", /before each start/);
  lacks("database", /user 1234/);
  lacks("queue", /liveness/);
  lacks("redis", /only watched/);
});

test("no secret is in any unit", () => {
  const { files } = serviceUnits(everyDefinition, around, "user");
  assert.doesNotMatch(files.map(({ text }) => text).join(""), /s3cret/);
});

test("under systemd a service gets the arguments, variables and socket that the manager gives it", {
  skip: noSystemd,
}, async (t) => {
  const folder = folderFor(t);
  const port = await freePort();
  const env = { TRICKY: "a $b $(c) %d %% \"e\" \\f \\n\n#g; \t'h'", EMPTY: "", UNICODE: "påw 🐾" };
  const args = [
    "$HOME",
    `\${HOME}`,
    "100%",
    "%h",
    'a "b"',
    "c\\d",
    "e;f",
    ";",
    "",
    "two\nlines",
    "'g'",
    "-n",
    "@h",
  ];
  const cwd = join(folder, "a folder with 100% $pace");
  mkdirSync(cwd);
  const script = `require("node:fs").writeFileSync(${JSON.stringify(join(folder, "seen"))}, JSON.stringify({
    args: process.argv.slice(1), cwd: process.cwd(), env: { TRICKY: process.env.TRICKY, EMPTY: process.env.EMPTY, UNICODE: process.env.UNICODE },
    listen: [process.env.LISTEN_FDS, process.env.LISTEN_FDNAMES, process.env.PORT, process.env.LISTEN_PID === String(process.pid)] }));
    require("node:http").createServer((request, response) => response.end("here")).listen({ fd: 3 });`;
  const definitions = [
    defineService({ name: "first", kind: "task", command: `touch ${join(folder, "first")}` }),
    defineService({
      name: "web",
      command: [process.execPath, "-e", script, "--", ...args],
      cwd,
      env,
      listen: { port, hold: true },
      readiness: { kind: "http", url: "/", body: "^he.e$" },
      dependsOn: ["first"],
    }),
    defineService({
      name: "last",
      kind: "task",
      command: `cp seen last`,
      cwd: folder,
      dependsOn: { web: "ready" },
    }),
  ];
  await using systemd = await startSystemd();
  write(serviceUnits(definitions, around, "user"), systemd.units);
  await systemd.systemctl("daemon-reload");
  await systemd.systemctl("start", "test.target");
  await until("the last task is done", async () => assert.ok(existsSync(join(folder, "last"))));

  assert.ok(existsSync(join(folder, "first")));
  assert.deepEqual(JSON.parse(readFileSync(join(folder, "last"), "utf8")), {
    args,
    cwd,
    env,
    listen: ["1", "web", String(port), true],
  });
  assert.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), "here");
});
