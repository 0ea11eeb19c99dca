import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { readdirSync, readlinkSync } from "node:fs";
import { type TestContext, test } from "node:test";
import { eventually, Fixture, forever } from "../fixture.ts";
import { resolveDefinitions } from "../resolve-definitions.ts";
import { startOrder } from "../start-order.ts";
import { type Deed, drawStep, run } from "./deeds.ts";
import { Random } from "./random.ts";
import { Visit } from "./visit.ts";
import { Witness } from "./witness.ts";
import { names, World } from "./world.ts";

const seed = Number(process.env.FAULT_SEED ?? randomInt(2 ** 31));
const steps = Number(process.env.FAULT_STEPS ?? 200);

test(`whatever happens to its services, the manager keeps its word (FAULT_SEED=${seed})`, async (t) => {
  const fixture = await Fixture.create(t);
  const descriptorsBefore = await descriptorsOfOne(fixture);
  const random = new Random(seed);
  const world = await World.create(fixture);
  const witness = new Witness(world);
  await world.manager.start();
  let wanted = new Set(world.manager.services().map(({ name }) => name));
  for (let step = 0; step < steps; step += 1) {
    const deeds = drawStep(random);
    try {
      const visits = visitedThrough(world, deeds).map(
        (name) => new Visit(world.manager, world.record(name)?.port ?? 0),
      );
      const refusals = (await Promise.all(deeds.map((deed) => run(world, deed)))).filter(
        (one) => one !== null,
      );
      await eventually("what runs is what the manager says", () => witness.assertRealityMatches());
      for (const visit of visits)
        assert.deepEqual(await visit.end(), [], "a held socket turned somebody away");
      assert.deepEqual(witness.violations, []);
      assertAsAsked(world, wanted, deeds);
      await assertNoneTwice(witness, deeds);
      if (refusals.length === 0 && deeds.every(({ what }) => what === "change and apply"))
        await witness.assertWrittenIsRun();
      if (deeds.some(({ what }) => what.startsWith("flood")))
        await eventually("the logs have it all", () => witness.assertLogsComplete());
    } catch (error) {
      explain(t, step, deeds, witness, world);
      throw error;
    }
    wanted = new Set(
      world.manager.services().flatMap(({ name, state }) => (state === "stopped" ? [] : name)),
    );
  }
  witness.expectOrderlyStop();
  await world.manager.stopAll();
  assert.deepEqual(witness.violations, []);
  assert.deepEqual(await world.processes(), []);
  await witness.assertLogsComplete();
  await eventually("no descriptor is left open", () =>
    assert.ok(
      descriptors().length <= descriptorsBefore.length,
      `${descriptorsBefore}\nand now ${descriptors()}`,
    ),
  );
});

/** The services with held sockets that nobody stops or moves in this step: their clients may never be refused. */
function visitedThrough(world: World, deeds: readonly Deed[]): string[] {
  if (deeds.some(({ what }) => what === "change and apply")) return [];
  const stopped = deeds.flatMap(({ what, target }) => (what === "stop" ? [target] : []));
  return names.rolling.filter((name) => world.record(name)?.state === "ready" && !stopped.includes(name));
}

/** Who was wanted and was not stopped is wanted still; who was stopped and not started is stopped still. */
function assertAsAsked(world: World, wanted: ReadonlySet<string>, deeds: readonly Deed[]): void {
  const isDone = (...whats: Deed["what"][]): boolean => deeds.some(({ what }) => whats.includes(what));
  const stopped = deeds.filter(({ what }) => what === "stop").map(({ target }) => target);
  const starts = deeds.filter(
    ({ what }) => what === "start" || what.includes("restart") || what === "kill what starts",
  );
  const definitions = resolveDefinitions(world.definitions());
  const known = starts.filter(({ target }) => definitions.some(({ name }) => name === target));
  const started = startOrder(
    definitions,
    known.map(({ target }) => target),
  ).map(({ name }) => name);
  for (const { name, state, reason } of world.manager.services()) {
    const where = `${name} is ${state}: ${reason}`;
    if (wanted.has(name) && !stopped.includes(name) && !isDone("scale", "change and apply"))
      assert.notEqual(state, "stopped", where);
    if (!wanted.has(name) && !started.includes(name) && !isDone("scale", "change and apply"))
      assert.equal(state, "stopped", where);
    if (deeds.length === 1 && stopped.includes(name)) assert.equal(state, "stopped", where);
  }
}

/** Two processes serve at once only while one takes over from the other. */
async function assertNoneTwice(witness: Witness, deeds: readonly Deed[]): Promise<void> {
  const mayRoll = deeds.some(({ what }) => /restart|starts|apply/.test(what));
  const allowed: readonly string[] = mayRoll ? names.rolling : [];
  for (const name of await witness.newOverlaps())
    assert.ok(allowed.includes(name), `${name} ran twice at once`);
}

/** What is open after one manager came and went: Node opens some for good when they are first needed. */
async function descriptorsOfOne(fixture: Fixture): Promise<string[]> {
  const manager = await fixture.open([{ name: "first", command: forever }]);
  await manager.startAndWait("first");
  await manager.stopAll();
  return descriptors();
}

/** What this process has open: numbers, and on Linux what they stand for. */
function descriptors(): string[] {
  return readdirSync("/dev/fd").flatMap((number) => {
    try {
      return [`${number} ${readlinkSync(`/dev/fd/${number}`)}`];
    } catch {
      return []; // the one that read the folder
    }
  });
}

function explain(t: TestContext, step: number, deeds: readonly Deed[], witness: Witness, world: World): void {
  const text = deeds.map(({ what, target, size }) => `${what} ${target} ${size}`).join(" + ");
  t.diagnostic(`FAULT_SEED=${seed}, step ${step}: ${text}`);
  for (const line of witness.history.slice(-40)) t.diagnostic(line);
  for (const record of world.manager.services()) t.diagnostic(JSON.stringify(record));
}
