import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type TestContext, test } from "node:test";
import { stripVTControlCharacters } from "node:util";
import { defineExternal, defineService } from "../process-manager/definition.ts";
import { Fixture, forever } from "../process-manager/fixture.ts";
import type { MeasuredService } from "../process-manager/process-usage.ts";
import { widthOf } from "./fit-line.ts";
import { serviceTable } from "./service-table.ts";

const why = "the folder /var/lib/somewhere/very/deep cannot be written by this user: choose another one";
const sound = defineService({ name: "sound", command: forever });
const broken = defineService({
  name: "broken",
  command: forever,
  prepare: async () => {
    throw Object.assign(new Error(why), { fatal: true });
  },
});
const watched = defineExternal({
  kind: "external",
  name: "watched",
  probe: {
    kind: "check",
    check: async () => {
      throw new Error("nobody is there");
    },
  },
});

async function pugmark(fixture: Fixture, ...args: readonly string[]) {
  const env = { ...fixture.env, PUGMARK_HOME: fixture.home };
  return await new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) => {
    const child = execFile(
      process.execPath,
      [join(import.meta.dirname, "main.ts"), ...args],
      { env },
      (_error, stdout, stderr) => resolve({ code: child.exitCode, stdout, stderr }),
    );
  });
}

async function startAll(t: TestContext, definitions: Parameters<Fixture["open"]>[0]) {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open(definitions);
  await manager.start();
  await manager.whenSettled();
  return { fixture, manager };
}

test("status says 0 when every service is ready, whatever others do, and has no colours for a pipe", async (t) => {
  const { fixture } = await startAll(t, [sound, watched]);
  const { code, stdout } = await pugmark(fixture, "status");
  assert.equal(code, 0, stdout);
  assert.equal(stdout, stripVTControlCharacters(stdout));
  const [heading, first, second] = stdout.split("\n");
  assert.match(heading ?? "", /^SERVICE +STATE +SINCE +RESTARTS +PID +CPU +MEMORY +PORTS +WHY$/);
  assert.match(first ?? "", /^sound +ready +\d+ s +0 +\d+ +\d+\.\d% +\d+ [KM]iB +is ready$/);
  assert.match(second ?? "", /^watched +unhealthy +\d+ s +watched only: nobody is there$/);
});

test("status says 1 when something is not ready, and why in full", async (t) => {
  const { fixture } = await startAll(t, [sound, broken]);
  const { code, stdout } = await pugmark(fixture, "status");
  assert.equal(code, 1);
  assert.ok(stdout.includes(why), stdout);
});

test("status says 3 when no station runs", async (t) => {
  const fixture = await Fixture.create(t);
  const { code, stderr } = await pugmark(fixture, "status");
  assert.equal(code, 3);
  assert.match(stderr, /no station runs in /);
});

test("status --json has what each service uses", async (t) => {
  const { fixture } = await startAll(t, [sound]);
  const { code, stdout } = await pugmark(fixture, "status", "--json");
  assert.equal(code, 0);
  const { services } = JSON.parse(stdout) as { services: MeasuredService[] };
  assert.equal(services[0]?.processes, 1);
  assert.ok((services[0]?.memoryBytes ?? 0) > 0);
  assert.equal(typeof services[0]?.cpuPercent, "number");
  assert.deepEqual(services[0]?.ports, []);
});

test("no line of the table is wider than the terminal, and the reason has a column where there is room", async (t) => {
  const name = "a-service-with-quite-a-long-name";
  const { manager } = await startAll(t, [sound, broken, defineService({ name, command: forever })]);
  const services = await manager.measuredServices();
  for (const columns of [200, 120, 80, 72]) {
    const { heading, rows, showsWhy } = serviceTable(services, columns);
    for (const line of [heading, ...rows]) assert.ok(widthOf(line) <= columns, line);
    assert.equal(showsWhy, columns >= 120);
    assert.equal(heading.endsWith("PORTS"), columns < 120);
  }
  assert.match(serviceTable(services, 80).rows[2] ?? "", /^a-service-with-.*… /);
});

test("events begin with every service, go on with each change, and end with the station", async (t) => {
  const { fixture, manager } = await startAll(t, [sound]);
  const readable = pugmarkLines(fixture, "events");
  const json = pugmarkLines(fixture, "events", "--json");
  assert.match(await readable.next(), /^20[-0-9]+ [0-9:]+ sound: ready \(is ready\)$/);
  const first: unknown = JSON.parse(await json.next());
  assert.deepEqual(first, { services: manager.services() });
  await manager.stop("sound");
  assert.match(await readable.next(), /sound: stopping \(was asked to stop\)$/);
  const { service, from, to, reason } = JSON.parse(await json.next()) as Record<string, string>;
  assert.deepEqual([service, from, to, reason], ["sound", "ready", "stopping", "was asked to stop"]);
  await manager.stopAll();
  assert.deepEqual(await Promise.all([readable.ended, json.ended]), [0, 0]);
});

/** Runs the command and gives its lines as they come. */
function pugmarkLines(fixture: Fixture, ...args: readonly string[]) {
  const child = spawn(process.execPath, [join(import.meta.dirname, "main.ts"), ...args], {
    env: { ...fixture.env, PUGMARK_HOME: fixture.home },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    ended: once(child, "exit").then(([code]) => code),
    next: async () => String((await lines.next()).value),
  };
}
