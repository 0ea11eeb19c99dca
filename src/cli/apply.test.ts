import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import type { Change } from "../process-manager/change-plan.ts";
import { ask, eventually, refuses, serverScript } from "../process-manager/fixture.ts";
import { Project } from "./project.fixture.ts";

const forever = "exec sleep 1000";

/** What a verb with `--json` says of each service. */
function changesIn(stdout: string): Record<string, string> {
  const { changes } = JSON.parse(stdout) as { changes: Change[] };
  return Object.fromEntries(changes.map(({ name, action, why }) => [name, [action, ...why].join(": ")]));
}

test("plan says what a changed file means and does nothing; apply does only that", async (t) => {
  const project = await Project.create(t, {});
  await writeFile(join(project.folder, "two.env"), "COLOUR=red\nGONE=yes\n");
  const show = 'echo "$COLOUR" "$GONE."; exec sleep 1000';
  await project.write({
    one: { command: forever },
    two: { command: show, envFiles: ["two.env"] },
    three: { command: forever },
    four: { command: forever },
  });
  assert.equal(project.pugmark("up", "-f", "services.json", "--wait").status, 0);
  const pids = (): Record<string, number | null> =>
    Object.fromEntries(project.services().map(({ name, pid }) => [name, pid]));
  const before = pids();
  assert.match(project.pugmark("plan").stdout, /^Nothing to change/);

  await writeFile(join(project.folder, "two.env"), "COLOUR=blue\n");
  await project.write({
    one: { command: forever },
    two: { command: show, envFiles: ["two.env"] },
    three: { command: forever, stop: { timeoutMs: 100 } },
    five: { command: forever, dependsOn: ["one"] },
  });
  const planned = {
    one: "keep",
    two: "restart: variable COLOUR changed: variable GONE was removed",
    three: "update: stop changed",
    five: "add: is new",
    four: "remove: is no more defined",
  };
  assert.deepEqual(changesIn(project.pugmark("plan", "--json").stdout), planned);
  assert.match(project.pugmark("apply", "--dry-run").stdout, /restart +two +variable COLOUR changed/);
  assert.deepEqual(pids(), before);

  const applied = project.pugmark("apply", "--json");
  assert.equal(applied.status, 0, applied.stderr);
  assert.deepEqual(changesIn(applied.stdout), planned);
  const after = pids();
  assert.deepEqual(Object.keys(after), ["one", "two", "three", "five"]);
  assert.equal(after.one, before.one);
  assert.equal(after.three, before.three);
  assert.notEqual(after.two, before.two);
  await eventually("two has its new environment", () =>
    assert.match(project.pugmark("logs", "two").stdout, /red yes\.\n.*blue \.\n/s),
  );
});

test("a file that became wrong changes nothing, and is told with its place", async (t) => {
  const project = await Project.create(t, { one: { command: forever } });
  assert.equal(project.pugmark("up", "-f", "services.json", "--wait").status, 0);
  const pid = project.services()[0]?.pid;
  await project.write({ one: { command: forever, replica: 2 } });
  for (const verb of ["plan", "apply"]) {
    const { status, stderr } = project.pugmark(verb);
    assert.equal(status, 2);
    assert.match(
      stderr,
      /services\.json:1:\d+: services\.one\.replica is not known; did you mean `replicas`\?/,
    );
  }
  assert.equal(project.services()[0]?.pid, pid);
});

test("scale runs as many as are asked for, and says no where that means nothing", async (t) => {
  const project = await Project.create(t, {
    one: { command: forever, replicas: 1 },
    two: { command: forever },
  });
  assert.equal(project.pugmark("up", "-f", "services.json", "--wait").status, 0);
  const running = (): string[] => project.services().map(({ name, state }) => `${name} ${state}`);
  assert.match(project.pugmark("scale", "one=3").stdout, /add +one-2/);
  assert.deepEqual(running(), ["one-1 ready", "one-2 ready", "one-3 ready", "two ready"]);
  assert.equal(project.pugmark("scale", "one=0").status, 0);
  assert.deepEqual(running(), ["two ready"]);
  const refused = project.pugmark("scale", "two=2");
  assert.equal(refused.status, 2);
  assert.match(refused.stderr, /two is not defined with replicas/);
  assert.equal(project.pugmark("scale", "two").status, 2);
});

test("a group's name restarts its replicas, and --rolling refuses what would leave a gap", async (t) => {
  const project = await Project.create(t, {});
  const port = await project.fixture.freePort();
  await project.fixture.script("server.cjs", serverScript);
  const web = {
    command: [process.execPath, "server.cjs"],
    listen: { port, hold: true },
    readiness: { kind: "notify" },
  };
  await project.write({
    web,
    one: { command: forever, replicas: 2 },
    done: { kind: "task", command: "true" },
  });
  assert.equal(project.pugmark("up", "-f", "services.json", "--wait").status, 0);

  const before = await ask(port, "/pid");
  const rolled = project.pugmark("restart", "--rolling", "web");
  assert.equal(rolled.status, 0, rolled.stderr);
  assert.notEqual(await ask(port, "/pid"), before);

  const pids = project.services().map(({ pid }) => pid);
  const refused = project.pugmark("restart", "--rolling", "one");
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /one-1 cannot be replaced without a gap: its socket is not held/);
  assert.match(project.pugmark("restart", "--rolling", "done").stderr, /without a gap: it is completed/);
  assert.deepEqual(
    project.services().map(({ pid }) => pid),
    pids,
  );

  const restarted = project.pugmark("restart", "one");
  assert.match(restarted.stdout, /one-1: ready.*\none-2: ready/);
  const now = project.services().map(({ pid }) => pid);
  assert.equal(now[0], pids[0]);
  assert.notEqual(now[1], pids[1]);
  assert.notEqual(now[2], pids[2]);
  assert.equal(project.pugmark("stop", "one").status, 0);
  assert.deepEqual(
    project.services().map(({ state }) => state),
    ["ready", "stopped", "stopped", "completed"],
  );
  assert.equal(project.pugmark("stop", "web").status, 0);
  assert.equal(await refuses(port), true);
});

test("init writes an example that starts as it is, and never over a file", async (t) => {
  const project = await Project.create(t, {}, "unused.json");
  assert.match(project.pugmark("init").stdout, /pugmark up -f pugmark\.yaml/);
  const { status, stderr } = project.pugmark("up", "-f", "pugmark.yaml", "--wait");
  assert.equal(status, 0, stderr);
  assert.match(project.pugmark("status").stdout, /prepare +completed.*web +ready.*worker +ready/s);
  assert.equal(project.pugmark("down").status, 0);
  const again = project.pugmark("init");
  assert.equal(again.status, 1);
  assert.match(again.stderr, /is there already, and stays as it is/);
  assert.equal(project.pugmark("init", "services/dev.yaml").status, 0);
  assert.equal(project.pugmark("plan", "-f", "services/dev.yaml").status, 3);
  assert.equal(project.pugmark("init", "services.ts").status, 2); // which would not be read
});
