import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { test } from "node:test";
import { freePort } from "../../test/support/ports.ts";
import { startRealtime } from "../../test/support/realtime.ts";
import { WakeChannel } from "./wake-channel.ts";

function listener(url: string) {
  const events = new EventEmitter();
  const said: string[] = [];
  const log = {
    info: (_fields: object, message: string) => {
      said.push(message);
      events.emit("said");
    },
  };
  let wakes = 0;
  const onWake = () => {
    wakes += 1;
    events.emit("woken");
  };
  const channel = new WakeChannel({ url, key: "sb_publishable_test", onWake, log });
  return {
    channel,
    events,
    said,
    get wakes() {
      return wakes;
    },
  };
}

const heard = "changes of other stations are heard of through Realtime";
const away = "the project's Realtime is away: changes of other stations are looked for";

test("stations wake each other, the one that has news alone is not woken, and the last news are never lost", async () => {
  await using realtime = await startRealtime();
  const one = listener(realtime.url);
  const two = listener(realtime.url);
  await using _one = one.channel;
  await using _two = two.channel;
  // To have come back is a reason to look.
  await Promise.all([once(one.events, "woken"), once(two.events, "woken")]);
  const first = once(two.events, "woken");
  one.channel.announce();
  await first;
  const second = once(two.events, "woken");
  for (let count = 0; count < 100; count += 1) one.channel.announce();
  await second;
  assert.deepEqual([one.wakes, two.wakes], [1, 3]);
  assert.deepEqual([one.said, two.said], [[heard], [heard]]);
});

test("a channel that breaks is joined again, and what was missed is looked for", async () => {
  await using realtime = await startRealtime();
  const one = listener(realtime.url);
  await using channel = one.channel;
  await once(one.events, "woken");
  const back = once(one.events, "woken");
  realtime.drop();
  await back;
  assert.equal(channel.isJoined, true);
  assert.deepEqual(one.said, [heard, away, heard]);
});

test("where there is no Realtime that is said once, and nothing else happens", async () => {
  const one = listener(`http://127.0.0.1:${await freePort()}`);
  await using channel = one.channel;
  await once(one.events, "said");
  channel.announce();
  assert.deepEqual([one.said, one.wakes, channel.isJoined], [[away], 0, false]);
});
