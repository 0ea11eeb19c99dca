import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import { test } from "node:test";
import { processesOf, testStation } from "./support/station.ts";

test("when the manager itself is killed, nothing outlives it by 2 s, and the next start works", async () => {
  await using station = await testStation();
  await station.start();
  const services = (await station.services()).filter(({ pid }) => pid !== null);
  assert.equal(services.length, 4);

  const killedAt = performance.now();
  await station.end("SIGKILL");
  let left = processesOf(station.home);
  while (left.length > 0 && performance.now() - killedAt < 2_000) left = processesOf(station.home);
  assert.deepEqual(left, []);

  await station.start();
  const { output } = await station.end("SIGTERM");
  assert.match(output, /The station has stopped/);
  assert.deepEqual(processesOf(station.home), []);
});

test("a taken port is reported with who has it, and everything else is stopped again", async () => {
  await using station = await testStation();
  const squatter = createServer().listen(Number(new URL(station.chat).port), "127.0.0.1");
  await once(squatter, "listening");
  await assert.rejects(station.start(), new RegExp(`pid ${process.pid}.*CHAT_PORT`));
  assert.equal(station.manager().exitCode ?? (await once(station.manager(), "exit"))[0], 1);
  assert.deepEqual(processesOf(station.home), []);
  squatter.close();
});

test("a station of API and agent alone brings what they need", async () => {
  await using station = await testStation();
  await station.start("api", "agent");
  const states = Object.fromEntries((await station.services()).map(({ name, state }) => [name, state]));
  assert.equal(states.database, "ready");
  assert.equal(states.chat, "ready");
  assert.equal(states.agent, "ready");
  assert.equal(states.api, "ready");
});
