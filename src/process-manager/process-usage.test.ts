import assert from "node:assert/strict";
import { test } from "node:test";
import { ControlClient } from "./control-client.ts";
import { defineExternal, defineService } from "./definition.ts";
import { eventually, Fixture, forever, serverScript, untilState } from "./fixture.ts";
import { parseLsofPorts, parsePsFacts } from "./process-facts.ts";
import type { ProcessManager } from "./process-manager.ts";
import { type MeasuredService, nextCpuReading } from "./process-usage.ts";

async function measured(manager: ProcessManager, name: string): Promise<MeasuredService> {
  const service = (await manager.measuredServices()).find((one) => one.name === name);
  assert.ok(service);
  return service;
}

test("a service is measured with its children, with those that left its group, and with its orphans", async (t) => {
  const fixture = await Fixture.create(t);
  const path = await fixture.script(
    "tree.sh",
    `sleep 1000 &
     setsid sleep 1000 &
     sh -c 'setsid sleep 1000 &'
     exec sleep 1000`,
  );
  const manager = await fixture.open([
    defineService({ name: "tree", command: ["/bin/sh", path] }),
    defineService({ name: "alone", command: forever }),
  ]);
  await manager.start();
  await untilState(manager, "alone", "ready");
  const tree = await eventually("all four are found", async () => {
    const now = await measured(manager, "tree");
    assert.equal(now.processes, 4);
    return now;
  });
  const alone = await measured(manager, "alone");
  assert.equal(alone.processes, 1);
  assert.ok((alone.memoryBytes ?? 0) > 100_000, String(alone.memoryBytes));
  assert.ok((tree.memoryBytes ?? 0) > (alone.memoryBytes ?? 0));
  await manager.stop("tree");
  const { cpuPercent, cpuSeconds, memoryBytes, processes, ports } = await measured(manager, "tree");
  assert.deepEqual(
    { cpuPercent, cpuSeconds, memoryBytes, processes, ports },
    { cpuPercent: null, cpuSeconds: null, memoryBytes: null, processes: null, ports: [] },
  );
});

test("processor time is that of the whole tree, and its share of a core is said", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({
      name: "busy",
      command: ["/bin/sh", "-c", "sh -c 'while :; do :; done' & exec sleep 1000"],
    }),
    defineService({ name: "idle", command: forever }),
  ]);
  await manager.start();
  const first = await eventually("it has used some", async () => {
    const now = await measured(manager, "busy");
    assert.ok((now.cpuSeconds ?? 0) > 0.1);
    return now;
  });
  assert.ok((first.cpuPercent ?? 0) > 0);
  const later = await eventually("it goes on", async () => {
    const now = await measured(manager, "busy");
    assert.ok((now.cpuSeconds ?? 0) > (first.cpuSeconds ?? 0) + 0.2);
    return now;
  });
  assert.ok((later.cpuPercent ?? 0) > 0 && (later.cpuPercent ?? 0) < 250, String(later.cpuPercent));
  assert.ok(((await measured(manager, "idle")).cpuSeconds ?? 1) < 0.2);
});

test("the ports shown are those that are listened on, held ones and others", async (t) => {
  const fixture = await Fixture.create(t);
  const path = await fixture.script("server.cjs", serverScript);
  const [held, own] = [await fixture.freePort(), await fixture.freePort()];
  const manager = await fixture.open([
    defineService({
      name: "held",
      command: [process.execPath, path],
      listen: { host: "127.0.0.1", port: held, hold: true },
      readiness: { kind: "notify" },
    }),
    defineService({
      name: "own",
      command: [process.execPath, path, String(own)],
      readiness: { kind: "tcp", host: "127.0.0.1", port: own },
    }),
  ]);
  await manager.start();
  await manager.whenSettled();
  const services = await new ControlClient(fixture.home).services();
  assert.deepEqual(
    services.map(({ name, ports }) => [name, ports]),
    [
      ["held", [held]],
      ["own", [own]],
    ],
  );
});

test("what others run is not measured", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineExternal({
      kind: "external",
      name: "redis",
      probe: { kind: "check", check: async () => undefined },
    }),
  ]);
  assert.equal((await measured(manager, "redis")).memoryBytes, null);
});

test("a share is taken over half a second at least, never falls below nothing, and begins anew with a life", () => {
  const first = nextCpuReading(undefined, { life: "a", atMs: 1_000, cpuSeconds: 2, ageMs: 4_000 });
  assert.deepEqual(first, { life: "a", atMs: 1_000, cpuSeconds: 2, percent: 50 });
  assert.equal(nextCpuReading(first, { life: "a", atMs: 1_400, cpuSeconds: 9, ageMs: 4_400 }), first);
  const second = nextCpuReading(first, { life: "a", atMs: 2_000, cpuSeconds: 4, ageMs: 5_000 });
  assert.equal(second.percent, 200);
  const fallen = nextCpuReading(second, { life: "a", atMs: 3_000, cpuSeconds: 3, ageMs: 6_000 });
  assert.deepEqual([fallen.cpuSeconds, fallen.percent], [4, 0]);
  assert.equal(nextCpuReading(fallen, { life: "b", atMs: 3_100, cpuSeconds: 0.1, ageMs: 100 }).percent, 100);
});

test("what ps and lsof print on macOS is understood", () => {
  const now = Date.parse("2026-11-22T12:00:00Z");
  const [node, zombie, ...rest] = parsePsFacts(
    [
      "  512     1   512 Ss    45312   1:02.50    01:00:05 node server.js PROCESS_MANAGER_SERVICE=api HOME=/Users/ada",
      "  513   512   512 Z+        0   0:00.00 2-00:00:10 (node)",
      "",
    ].join("\n"),
    now,
  );
  assert.deepEqual(rest, []);
  assert.ok(node && zombie);
  assert.deepEqual(
    [node.pid, node.ppid, node.pgid, node.isZombie, node.cpuSeconds, node.memoryBytes(), node.startedAtMs],
    [512, 1, 512, false, 62.5, 45312 * 1024, now - 3_605_000],
  );
  assert.match(node.environment(), / PROCESS_MANAGER_SERVICE=api /);
  assert.deepEqual([zombie.isZombie, zombie.startedAtMs], [true, now - 172_810_000]);

  const ports = parseLsofPorts(
    "p512\nf3\nn127.0.0.1:8080\nf4\nn[::1]:8080\nf5\nn*:9000\np600\nf7\nn*:5432\n",
  );
  assert.deepEqual(
    [...ports],
    [
      [512, [8080, 8080, 9000]],
      [600, [5432]],
    ],
  );
});
