import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { rm } from "node:fs/promises";
import net from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { defineService } from "./definition.ts";
import { Fixture, forever, serverScript, untilState } from "./fixture.ts";
import {
  parseLsofOwner,
  parseNetstatOwner,
  parsePsProcess,
  parseTasklist,
  variableIn,
} from "./port-listings.ts";
import { describeConflict, findPortOwner } from "./port-owner.ts";
import { listProcesses, signalProcess } from "./processes.ts";

/** A station in a process of its own, whose one service listens on the port through a held socket. */
async function otherStation(fixture: Fixture, port: number) {
  const server = await fixture.script("server.cjs", serverScript);
  const script = await fixture.script(
    "station.ts",
    `import { ProcessManager } from ${JSON.stringify(join(import.meta.dirname, "process-manager.ts"))};
     const manager = await ProcessManager.open({
       home: ${JSON.stringify(fixture.home)},
       baseEnv: process.env,
       definitions: [{
         name: "tracker",
         command: [${JSON.stringify(process.execPath)}, ${JSON.stringify(server)}],
         listen: { host: "127.0.0.1", port: ${port}, hold: true },
         readiness: { kind: "notify" },
       }],
     });
     const { pid } = await manager.startAndWait("tracker");
     console.log(pid);
     await manager.closed;`,
  );
  const manager = spawn(process.execPath, [script], {
    env: fixture.env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [line] = await once(createInterface({ input: manager.stdout }), "line");
  const servicePid = Number(line);
  /** Kills the manager and its guard at once: nobody is left to end the service. */
  const killManager = async (): Promise<void> => {
    manager.kill("SIGSTOP"); // else it may replace the guard before it falls itself
    const marked = await fixture.pids();
    const children = (await listProcesses()).filter(({ ppid }) => ppid === manager.pid);
    for (const { pid } of children) if (!marked.includes(pid)) process.kill(pid, "SIGKILL");
    const exited = once(manager, "exit");
    manager.kill("SIGKILL");
    await exited;
  };
  const end = async (): Promise<void> => {
    if (manager.exitCode === null && manager.signalCode === null) await killManager();
    signalProcess(servicePid, "SIGKILL");
  };
  return { manager, servicePid, killManager, [Symbol.asyncDispose]: end };
}

/** Why a service that wants the port does not start in this home. */
async function refusal(fixture: Fixture, port: number, home = fixture.home): Promise<string> {
  const manager = await fixture.open(
    [
      defineService({
        name: "chat",
        command: forever,
        listen: { host: "127.0.0.1", port },
        portHint: "CHAT_PORT",
      }),
    ],
    { home },
  );
  await manager.start();
  return (await untilState(manager, "chat", "failed")).reason;
}

test("a port that another station's service has is traced to it and to its manager", async (t) => {
  const fixture = await Fixture.create(t);
  const port = await fixture.freePort();
  await using station = await otherStation(fixture, port);
  const { manager, servicePid } = station;
  const reason = await refusal(fixture, port, join(fixture.folder, "second"));
  assert.match(reason, new RegExp(`held by pid ${servicePid} \\(.*server.cjs, user \\w+, since 20`));
  const whose = `which is tracker of the station in ${fixture.home}, whose manager (pid ${manager.pid}) still runs`;
  assert.ok(reason.includes(`${whose}; pugmark down there, or set CHAT_PORT to another port`), reason);
});

test("a port that a dead station left behind is said to be its, with what ends it", async (t) => {
  const fixture = await Fixture.create(t);
  const port = await fixture.freePort();
  await using station = await otherStation(fixture, port);
  const { servicePid, killManager } = station;
  await killManager();
  const reason = await refusal(fixture, port, join(fixture.folder, "second"));
  const whose = `a leftover of tracker of the station in ${fixture.home}, whose manager is gone; kill ${servicePid} ends it`;
  assert.ok(reason.includes(whose), reason);
});

test("a leftover of this very station is told from others, where it was not ended by itself", async (t) => {
  const fixture = await Fixture.create(t);
  const port = await fixture.freePort();
  await using station = await otherStation(fixture, port);
  const { servicePid, killManager } = station;
  await killManager();
  await rm(join(fixture.home, "lock"), { recursive: true }); // else the next manager ends it before it looks
  const reason = await refusal(fixture, port);
  const whose = "a leftover of this very station: an earlier manager started it as tracker";
  assert.ok(reason.includes(`${whose}; kill ${servicePid} ends it`), reason);
});

test("a process that belongs to no station is described by itself", async (t) => {
  const fixture = await Fixture.create(t);
  const port = await fixture.freePort();
  const server = net.createServer().listen(port, "127.0.0.1");
  await once(server, "listening");
  const owner = await findPortOwner(port);
  assert.equal(owner?.pid, process.pid);
  assert.equal(owner?.station, undefined);
  // What ps says of this process is the same, and is how macOS is asked.
  const text = execFileSync("ps", ["-ww", "-o", "lstart=,command=", "-p", String(process.pid)], {
    encoding: "utf8",
    env: { LC_ALL: "C", PATH: "/usr/bin:/bin" },
  });
  const started = parsePsProcess(text);
  assert.equal(started?.command, owner?.command);
  const apartMs = Math.abs((started?.startedAt.getTime() ?? 0) - (owner?.startedAt?.getTime() ?? 0));
  assert.ok(apartMs <= 2_000, String(apartMs));
  server.close();
  assert.equal(await findPortOwner(1), null); // the port that was closed may be another's by now
});

test("AirPlay on port 5000 is recognised, and only there", () => {
  const owner = {
    pid: 612,
    command: "/System/Library/CoreServices/ControlCenter.app/Contents/MacOS/ControlCenter",
    user: "ada",
    startedAt: null,
  };
  const listen = { host: "0.0.0.0", port: 5000 };
  assert.match(
    describeConflict(listen, owner, "PORT"),
    /pid 612 .*, which is the AirPlay Receiver of macOS; turn it off in System Settings → General → AirDrop & Handoff → AirPlay Receiver, or set PORT to another port$/,
  );
  assert.match(describeConflict(listen, { ...owner, command: "ControlCe" }), /AirPlay/);
  assert.doesNotMatch(describeConflict({ ...listen, port: 5001 }, owner), /AirPlay/);
  assert.doesNotMatch(describeConflict(listen, { ...owner, command: "node ControlCenter.js" }), /AirPlay/);
});

test("an owner that cannot be seen is said so", () => {
  const listen = { host: "127.0.0.1", port: 80 };
  assert.equal(
    describeConflict(listen, { pid: null, command: null, user: "root", startedAt: null }),
    "port 80 on 127.0.0.1 is held by a process that this user may not see (user root); stop it, or choose another port",
  );
  assert.match(describeConflict(listen, null), /held by a process that could not be found; stop it, or/);
});

test("what lsof prints is understood", () => {
  assert.deepEqual(parseLsofOwner("p612\ncControlCe\nLada\nf10\np700\ncother\nLroot\n"), {
    pid: 612,
    command: "ControlCe",
    user: "ada",
  });
  assert.equal(parseLsofOwner(""), null);
});

test("what ps prints is understood", () => {
  const line = "Sun Nov  2 09:03:04 2026     /usr/local/bin/node server.js --port 5000\n";
  assert.deepEqual(parsePsProcess(line), {
    startedAt: new Date(2026, 10, 2, 9, 3, 4),
    command: "/usr/local/bin/node server.js --port 5000",
  });
  assert.equal(parsePsProcess(""), null);
});

test("what netstat and tasklist print on Windows is understood, in other languages too", () => {
  const table = [
    "",
    "Aktive Verbindungen",
    "",
    "  Proto  Lokale Adresse         Remoteadresse          Status           PID",
    "  TCP    0.0.0.0:135            0.0.0.0:0              ABHÖREN         1032",
    "  TCP    127.0.0.1:8080         127.0.0.1:50211        HERGESTELLT     4711",
    "  TCP    127.0.0.1:8080         0.0.0.0:0              ABHÖREN         4321",
    "  TCP    [::]:9000              [::]:0                 ABHÖREN         77",
    "  UDP    0.0.0.0:8080           *:*                                    999",
  ].join("\r\n");
  assert.equal(parseNetstatOwner(table, 8080), 4321);
  assert.equal(parseNetstatOwner(table, 9000), 77);
  assert.equal(parseNetstatOwner(table, 35), null);
  const row = '"node.exe","4321","Console","1","45.312 K","Running","DESKTOP\\ada","0:00:01","N/A"\r\n';
  assert.deepEqual(parseTasklist(row), { command: "node.exe", user: "DESKTOP\\ada" });
  assert.deepEqual(parseTasklist("INFO: No tasks are running which match the specified criteria."), {
    command: null,
    user: null,
  });
});

test("a variable is found in an environment as Linux and as macOS show it", () => {
  assert.equal(variableIn("A=1\0HOME=/home/Ada L\0B=2\0", "HOME"), "/home/Ada L");
  assert.equal(variableIn("node server.js A=1 MY_HOME=/x HOME=/Users/Ada L B=2", "HOME"), "/Users/Ada L");
  assert.equal(variableIn("node server.js A=1 HOME=/Users/ada\n", "HOME"), "/Users/ada");
  assert.equal(variableIn("A=1\0", "HOME"), null);
});
