import assert from "node:assert/strict";
import { test } from "node:test";
import { type Definition, defineService } from "./definition.ts";
import { ask, Fixture, forever, recordOf, refuses, serverScript, untilState } from "./fixture.ts";

test("replicas are services of their own, each with the next port; who depends on the group waits for all", async (t) => {
  const fixture = await Fixture.create(t);
  const { port, script } = await twoFreePorts(fixture);
  const manager = await fixture.open([
    web(script, port, 2),
    defineService({ name: "proxy", command: forever, dependsOn: ["web"] }),
  ]);
  await manager.startAndWait("proxy");
  assert.deepEqual(
    manager.services().map(({ name, group, port: own }) => [name, group, own]),
    [
      ["web-1", "web", port],
      ["web-2", "web", port + 1],
      ["proxy", "proxy", null],
    ],
  );
  assert.equal(await ask(port, "/"), String(recordOf(manager, "web-1").pid));
  assert.equal(await ask(port + 1, "/"), String(recordOf(manager, "web-2").pid));
});

test("scaling starts and ends replicas, and leaves the others alone", async (t) => {
  const fixture = await Fixture.create(t);
  const { port, script } = await twoFreePorts(fixture);
  const manager = await fixture.open([web(script, port, 1)]);
  await manager.start();
  const { pid } = await untilState(manager, "web-1", "ready");
  const more = await manager.scale("web", 2);
  assert.deepEqual(
    more.map(({ name, action }) => [name, action]),
    [
      ["web-1", "keep"],
      ["web-2", "add"],
    ],
  );
  assert.equal(recordOf(manager, "web-2").state, "ready");
  await manager.scale("web", 1);
  assert.deepEqual(
    manager.services().map((service) => [service.name, service.pid]),
    [["web-1", pid]],
  );
  assert.equal(await refuses(port + 1), true);
});

test("only what is defined with replicas can be scaled, and only within bounds", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({ name: "one", command: forever }),
    defineService({ name: "many", command: forever, replicas: 0 }),
  ]);
  await assert.rejects(manager.scale("one", 2), { code: "request-invalid" });
  await assert.rejects(manager.scale("many", -1), { code: "definition-invalid" });
});

test("two services may not be named as replicas of each other", async (t) => {
  const fixture = await Fixture.create(t);
  await assert.rejects(
    fixture.open([
      defineService({ name: "web", command: forever, replicas: 2 }),
      defineService({ name: "web-2", command: forever }),
    ]),
    { code: "definition-invalid", message: /"web-2" is used twice/ },
  );
});

function web(script: string, port: number, replicas: number): Definition {
  return defineService({
    name: "web",
    command: `exec "${process.execPath}" "${script}" "$PORT"`,
    listen: { port },
    readiness: { kind: "http", url: "/" },
    replicas,
  });
}

/** Two ports in a row that are free now. */
async function twoFreePorts(fixture: Fixture): Promise<{ port: number; script: string }> {
  return { script: await fixture.script("server.cjs", serverScript), port: await fixture.freePort(2) };
}
