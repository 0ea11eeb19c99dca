import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { projectRoot } from "../config/config.ts";
import { ask, eventually, refuses, serverScript } from "../process-manager/fixture.ts";
import { entry, Project } from "./project.fixture.ts";

test("up -f runs a file of any project, and the other verbs find it there", async (t) => {
  const project = await Project.create(t, {});
  const port = await project.fixture.freePort();
  await project.fixture.script("server.cjs", serverScript);
  await project.write({
    web: {
      command: [process.execPath, "server.cjs"],
      listen: { port, hold: true },
      readiness: { kind: "notify" },
      dependsOn: ["seed"],
    },
    seed: { kind: "task", command: 'echo "seeded $COLOUR"', env: { COLOUR: "red" } },
  });
  const up = project.run("up", "-f", "services.json");
  await up.printed("Everything is ready");
  assert.match(up.output(), /seed \| seeded red/);
  assert.equal(await ask(port, "/pid"), String(project.services()[0]?.pid));

  for (const args of [["-f", "services.json", "status"], ["status"], ["status", "-f", "services.json"]])
    assert.match(project.pugmark(...args).stdout, /web +ready/, args.join(" "));
  for (const args of [
    ["logs", "seed"],
    ["logs", "--file", "services.json", "seed"],
  ])
    assert.match(project.pugmark(...args).stdout, /seeded red/, args.join(" "));
  const elsewhere = { cwd: "/", env: project.fixture.env, encoding: "utf8" } as const;
  const file = join(project.folder, "services.json");
  const restart = spawnSync(process.execPath, [entry, "restart", "web", "-f", file], elsewhere);
  assert.equal(restart.status, 0, restart.stderr);

  assert.equal(project.pugmark("down").status, 0);
  assert.equal(await up.ended, 0);
  assert.match(up.output(), /The station has stopped/);
  assert.equal(await refuses(port), true);
  const nothing = project.pugmark("status");
  assert.equal(nothing.status, 3);
  assert.match(nothing.stderr, /pugmark up -f FILE starts one/); // without it, that would be the tracking station
  assert.match(project.pugmark("down", "-f", file).stderr, /pugmark up -f \S+\/services\.json starts one/);
});

test("PUGMARK_HOME is the home, also of a file", async (t) => {
  const project = await Project.create(t, { one: { command: "exec sleep 1000" } });
  const home = join(project.folder, "elsewhere");
  project.fixture.env.PUGMARK_HOME = home;
  const up = project.run("up", "-f", "services.json");
  await up.printed("Everything is ready");
  assert.equal(existsSync(join(home, "control.sock")), true);
  assert.equal(existsSync(join(project.folder, ".pugmark")), false);
  up.child.kill("SIGTERM");
  assert.equal(await up.ended, 0);
});

test("a file that is wrong, or a service that is not in it, is exit code 2, also while it runs", async (t) => {
  const project = await Project.create(t, { one: { command: "exec sleep 1000" } });
  await project.write({ one: { comand: "x" } }, "wrong.json");
  const wrong = project.pugmark("up", "-f", "wrong.json");
  assert.equal(wrong.status, 2);
  assert.match(
    wrong.stderr,
    /^pugmark: .*wrong\.json:1:21: services\.one\.comand is not known; did you mean `command`\?$/m,
  );
  const up = project.run("up", "-f", "services.json");
  await up.printed("Everything is ready");
  const unknown = project.pugmark("up", "-f", "services.json", "two");
  assert.equal(unknown.status, 2);
  assert.match(unknown.stderr, /no service is named "two"; there are: one/);
  for (const args of [["stop"], ["start"], ["restart"], ["why"], ["logs"]])
    assert.equal(project.pugmark(...args, "two").status, 2, args.join(" "));
  assert.equal(project.pugmark("scale", "one=2").status, 2);
  assert.equal(project.pugmark("scale", "two=2").status, 2);
  const second = project.pugmark("up", "-f", "services.json");
  assert.equal(second.status, 1);
  assert.match(second.stderr, /is managed by pid \d+/);
});

test("the settings of the tracking station are not read for a file", async (t) => {
  const project = await Project.create(t, { one: { kind: "task", command: 'echo "API_PORT is $API_PORT"' } });
  project.fixture.env.API_PORT = "no number";
  const up = project.run("up", "-f", "services.json");
  await up.printed("API_PORT is no number");
  up.child.kill("SIGTERM");
  assert.equal(await up.ended, 0);
});

test("--quiet shows no output of the services, which is in their logs", async (t) => {
  const project = await Project.create(t, { one: { kind: "task", command: "echo loud and clear" } });
  const up = project.run("up", "-f", "services.json", "--quiet");
  await up.printed("Everything is ready");
  await eventually("the line is in the log", () =>
    assert.match(project.pugmark("logs", "one").stdout, /loud and clear/),
  );
  assert.doesNotMatch(up.output(), /loud and clear/);
});

test("when its terminal is gone, everything is stopped", async (t) => {
  const project = await Project.create(t, { one: { command: "exec sleep 1000" } });
  const up = project.run("up", "-f", "services.json");
  await up.printed("Everything is ready");
  up.child.kill("SIGHUP");
  assert.equal(await up.ended, 0);
});

test("what the command line is compiled to is kept for the next run", async (t) => {
  const project = await Project.create(t, {});
  assert.equal(project.pugmark("--version").status, 0);
  assert.equal(existsSync(join(projectRoot, "node_modules", ".cache", "pugmark")), true);
});

test("--detach leaves it running in a session of its own, where attach looks at it and leaves it running", async (t) => {
  const project = await Project.create(t, { one: { command: "echo here it is; exec sleep 1000" } });
  const detached = project.pugmark("up", "-f", "services.json", "--detach");
  assert.equal(detached.status, 0, detached.stderr);
  const pid = Number(/in the background: pid (\d+)/.exec(detached.stdout)?.[1]);
  const again = project.pugmark("up", "-f", "services.json", "--detach");
  assert.equal(again.status, 1);
  assert.match(again.stderr, new RegExp(`pid ${pid} .*runs already`));
  const [, , , , , session] = (await readFile(`/proc/${pid}/stat`, "utf8")).split(" ");
  assert.equal(Number(session), pid);

  const look = project.run("attach");
  await look.printed("one | here it is");
  look.child.kill("SIGINT");
  assert.equal(await look.ended, 0);
  assert.equal(project.services()[0]?.state, "ready");

  const watcher = project.run("attach", "-f", "services.json");
  await watcher.printed("one | here it is");
  assert.equal(project.pugmark("down").status, 0);
  assert.equal(await watcher.ended, 0);
  assert.match(watcher.output(), /one · stopped/);
});

test("--wait returns when everything is ready, and leaves it running", async (t) => {
  const project = await Project.create(t, {});
  const port = await project.fixture.freePort();
  await project.fixture.script("server.cjs", serverScript);
  await project.write({
    web: {
      command: [process.execPath, "server.cjs"],
      listen: { port, hold: true },
      readiness: { kind: "notify" },
    },
    seed: { kind: "task", command: "echo seeded" },
    nightly: { kind: "task", command: "true", schedule: "0 3 * * *" },
  });
  const { status, stderr } = project.pugmark("up", "-f", "services.json", "--wait", "--timeout", "60");
  assert.equal(status, 0, stderr);
  assert.match(await ask(port, "/pid"), /^\d+$/);
  assert.match(project.pugmark("logs").stdout, /seed +\| seeded/); // of tasks as well, while it runs
  assert.equal(project.pugmark("logs", "nightly").status, 0); // which has not run yet
});

test("--wait says what failed, stops everything and exits with 1", async (t) => {
  const project = await Project.create(t, {
    bad: { command: "exit 3", readiness: { kind: "ipc" }, restart: { intensity: 1, backoffCapMs: 1 } },
    good: { command: "exec sleep 1000" },
  });
  const { status, stderr } = project.pugmark("up", "-f", "services.json", "--wait");
  assert.equal(status, 1);
  assert.match(stderr, /^pugmark: bad is failed: exited with code 3 before it was ready/);
  assert.equal(project.pugmark("status").status, 3);
});

test("--wait stops everything when its time is over, and exits with 124", async (t) => {
  const project = await Project.create(t, {
    slow: { command: "exec sleep 1000", readiness: { kind: "ipc" } },
  });
  const { status, stderr } = project.pugmark("up", "-f", "services.json", "--wait", "--timeout", "0.3");
  assert.equal(status, 124);
  assert.match(stderr, /not ready within 0\.3 s; everything was stopped\n.*slow is starting/);
  assert.equal(project.pugmark("status").status, 3);
});

test("--wait that is interrupted, once or twice, stops everything", async (t) => {
  const project = await Project.create(t, {
    slow: {
      command: "trap '' TERM; echo begun; sleep 1000",
      readiness: { kind: "ipc" },
      stop: { timeoutMs: 300 },
    },
  });
  for (const [signal, exitCode] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    const up = project.run("up", "-f", "services.json", "--wait");
    await eventually("it has begun", () =>
      assert.match(project.pugmark("logs", "slow", "manager").stdout, /starting: runs as pid/),
    );
    up.child.kill(signal);
    await eventually("it is being stopped", () =>
      assert.match(project.pugmark("logs", "manager").stdout, /→ stopping/),
    );
    up.child.kill(signal);
    assert.equal(await up.ended, exitCode, up.output());
    assert.equal(project.pugmark("status").status, 3);
    await rm(join(project.folder, ".pugmark"), { recursive: true });
  }
});

test("--exit-on ends everything with the one that ended, and exits as it did", async (t) => {
  const tests = { kind: "task", dependsOn: { other: "started" } };
  const other = { command: "exec sleep 1000" };
  const project = await Project.create(t, {});
  const endOf = async (command: string, wanted: string): Promise<number | null> => {
    await project.write({ tests: { ...tests, command }, other });
    return project.pugmark("up", "-f", "services.json", "--exit-on", wanted).status;
  };
  assert.equal(await endOf("exit 7", "tests"), 7);
  assert.equal(await endOf("true", "tests=success"), 0);
  assert.equal(await endOf("kill -9 $$", "tests=failure"), 137);
  assert.equal(project.pugmark("up", "-f", "services.json", "--exit-on", "test").status, 2);
  assert.equal(project.pugmark("up", "-f", "services.json", "--exit-on", "tests=never").status, 2);
});

test("--exit-on waits for the end that is asked for, and fails when there is none", async (t) => {
  const project = await Project.create(t, {
    one: { command: "sleep 0.05; exit 4" },
    task: { kind: "task", command: "true" },
  });
  assert.equal(project.pugmark("up", "-f", "services.json", "--exit-on", "one=failure").status, 4);
  const up = project.run("up", "-f", "services.json", "task", "--exit-on", "task=failure");
  await up.printed("Everything is ready");
  up.child.kill("SIGTERM");
  assert.equal(await up.ended, 1);
});
