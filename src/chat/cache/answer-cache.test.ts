import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createClient } from "@redis/client";
import { cableTo, eventually } from "../../../test/lm-studio/chat-server.ts";
import { noRedis, startRedis, type TestRedis } from "../../../test/support/redis.ts";
import { type Completion, joinDeltas } from "../completion.ts";
import { AnswerCache } from "./answer-cache.ts";
import type { Selection } from "./kept-answer.ts";
import { RedisTier } from "./redis-tier.ts";

const ttlMs = 3_600_000;
const mine = { model: "m", caller: "local" };
let redis: TestRedis;
let databases = 0;
let url: string;
before(async () => {
  if (!noRedis) redis = await startRedis();
});
after(() => redis?.[Symbol.asyncDispose]());

function answer(text: string): Completion {
  const deltas = [{ text }];
  const head = { id: "chatcmpl-1", created: 1, model: "m" };
  return { head, deltas, ...joinDeltas(deltas), finishReason: "stop", usage: undefined };
}

/** A cache as each server has one, with the text and the age that it finds. */
function cacheOn(at: string, { aheadMs = 0, bytesMax = 1024 * 1024, waitMs = 10_000 } = {}) {
  const warnings: string[] = [];
  const log = { info: () => {}, warn: (fields: object) => warnings.push(JSON.stringify(fields)) };
  const onRemoved = (selection: Selection) => cache.removedElsewhere(selection);
  const tier = new RedisTier({ url: at, ttlMs, log, onRemoved, waitMs });
  const cache = new AnswerCache({ ttlMs, bytesMax, redis: tier, clock: () => Date.now() + aheadMs });
  const state = () => cache.stats.redis?.state;
  const until = (wanted: string) =>
    eventually(
      async () => state(),
      (seen) => seen === wanted,
    );
  const textOf = async (key: string, maxAgeS?: number) => (await cache.get(key, maxAgeS))?.completion.text;
  return Object.assign(cache, { until, textOf, warnings, tier });
}

async function ready(at = url, options: Parameters<typeof cacheOn>[1] = {}) {
  const cache = cacheOn(at, options);
  await cache.until("ready");
  return cache;
}

/** Keeps an answer and waits until every server that shares it can have it. */
async function keep(cache: AnswerCache, key: string, text: string, about = mine): Promise<void> {
  cache.set(key, answer(text), about);
  await using raw = await client();
  await eventually(
    async () => raw.exists(`pugmark:answers:${key}`),
    (there) => there === 1,
  );
}

async function client() {
  const connected = await createClient({ url }).connect();
  return Object.assign(connected, { [Symbol.asyncDispose]: async () => connected.destroy() });
}

/** A test in a database of its own. */
function testShared(name: string, body: () => Promise<void>): void {
  test(name, { skip: noRedis }, () => {
    url = new URL(`/${databases++}`, redis.url).href;
    return body();
  });
}

test("without Redis an answer is had at once, and a miss is one at once", async () => {
  const cache = new AnswerCache({ ttlMs, bytesMax: 1024 * 1024 });
  cache.set("chat/m/1", answer("yes"), mine);
  assert.deepEqual(cache.get("chat/m/1"), { completion: answer("yes"), ageS: 0 });
  assert.equal(cache.get("chat/m/2"), undefined);
  assert.deepEqual([cache.stats.hits, cache.stats.misses, cache.stats.redis], [1, 1, null]);
  assert.deepEqual(await cache.remove({}), { removed: 1, pending: false });
});

test("no time to live means no cache", () => {
  const cache = new AnswerCache({ ttlMs: 0, bytesMax: 1024 * 1024 });
  cache.set("chat/m/1", answer("yes"), mine);
  assert.equal(cache.isOn, false);
  assert.equal(cache.get("chat/m/1"), undefined);
});

testShared("what one server was answered, another one has too, as old as it is", async () => {
  await using one = await ready();
  await using two = await ready(url, { aheadMs: 90_000 });
  await keep(one, "chat/m/shared", "yes");
  const found = await two.get("chat/m/shared");
  assert.deepEqual(found?.completion, answer("yes"));
  assert.ok(found && found.ageS >= 90);
  // From now on out of its own memory.
  assert.ok(!(two.get("chat/m/shared") instanceof Promise));
  assert.equal(await two.textOf("chat/m/shared", 89), undefined);
  assert.deepEqual([two.stats.hits, two.stats.redis?.hits], [2, 1]);
});

testShared("an answer in Redis is good no longer than one in memory", async () => {
  await using one = await ready();
  await using late = await ready(url, { aheadMs: ttlMs });
  await keep(one, "chat/m/old", "yes");
  assert.equal(await late.textOf("chat/m/old"), undefined);
  await using raw = await client();
  const left = await raw.pTTL("pugmark:answers:chat/m/old");
  assert.ok(left > 0 && left <= ttlMs);
});

testShared("with no memory for answers, Redis alone keeps them", async () => {
  await using cache = await ready(url, { bytesMax: 0 });
  await keep(cache, "chat/m/elsewhere", "yes");
  assert.equal(cache.stats.entries, 0);
  assert.equal(await cache.textOf("chat/m/elsewhere"), "yes");
});

testShared("what is removed is removed in Redis and in every server's memory", async () => {
  await using one = await ready();
  await using two = await ready();
  const keys = ["chat/m/1", "chat/m[x]/2", "chat/mx/3", "text/m/4", "chat/m/5"];
  const [first = "", , third = "", fourth = "", fifth = ""] = keys;
  for (const key of keys) {
    const model = key.split("/")[1] ?? "";
    await keep(one, key, key, { model, caller: key === fifth ? "phone" : "local" });
    assert.equal(await two.textOf(key), key);
  }
  const left = async (cache: typeof two) => {
    const texts = await Promise.all(keys.map((key) => cache.textOf(key)));
    return texts.filter((text) => text !== undefined);
  };
  const bothLeft = (wanted: string[]) =>
    eventually(
      async () => [await left(one), await left(two)],
      (seen) => seen.every((texts) => texts.join() === wanted.join()),
    );
  assert.deepEqual(await one.remove({ prefix: "chat/m[x]" }), { removed: 1, pending: false });
  await bothLeft([first, third, fourth, fifth]);
  assert.deepEqual(await two.remove({ model: "m", caller: "local" }), { removed: 2, pending: false });
  await bothLeft([third, fifth]);
  assert.deepEqual(await one.remove({ model: "unknown" }), { removed: 0, pending: false });
  assert.deepEqual(await one.remove({}), { removed: 2, pending: false });
  await bothLeft([]);
});

testShared("more answers than one step looks at are all removed, and nothing of others", async () => {
  await using cache = await ready();
  await using raw = await client();
  const key = (n: number) => `pugmark:answers:many/m/${n}`;
  await raw.set("somebody:else", "stays");
  await Promise.all(Array.from({ length: 2_000 }, (_, n) => raw.set(key(n), "x")));
  assert.deepEqual(await cache.remove({ prefix: "many/" }), { removed: 2_000, pending: false });
  assert.equal(await raw.exists(key(7)), 0);
  assert.equal(await raw.get("somebody:else"), "stays");
});

testShared("an answer that was removed while it was read is not kept again", async () => {
  await using one = await ready();
  await using two = await ready();
  await keep(one, "chat/m/raced", "yes");
  const asked = two.get("chat/m/raced");
  assert.ok(asked instanceof Promise);
  two.removedElsewhere({ model: "m" });
  assert.equal(await asked, undefined);
  assert.equal(two.stats.entries, 0);
});

testShared("an answer that is given while Redis is asked is found", async () => {
  await using cache = await ready();
  const asked = cache.get("chat/m/given");
  assert.ok(asked instanceof Promise);
  cache.set("chat/m/given", answer("yes"), mine);
  assert.equal((await asked)?.completion.text, "yes");
});

testShared("what cannot be read is a miss", async () => {
  await using cache = await ready();
  await using raw = await client();
  await raw.set("pugmark:answers:chat/m/garbage", '[1,5,"local","m"]\n{"deltas":');
  await raw.set("pugmark:answers:chat/m/other-version", '[9,5,"local","m"]\n{"deltas":[]}');
  await raw.lPush("pugmark:answers:chat/m/list", "no text");
  for (const name of ["garbage", "other-version", "list"]) {
    assert.equal(await cache.textOf(`chat/m/${name}`), undefined, name);
  }
  assert.deepEqual([cache.stats.misses, cache.stats.redis?.errors], [3, 1]);
  assert.equal(cache.tier.state, "ready");
  assert.deepEqual(await cache.remove({ model: "m" }), { removed: 1, pending: false });
});

testShared("an answer that is too large for Redis stays in memory", async () => {
  await using cache = await ready(url, { bytesMax: 64 * 1024 * 1024 });
  cache.set("chat/m/large", answer("x".repeat(1024 * 1024)), mine);
  await keep(cache, "chat/m/small", "yes");
  await using raw = await client();
  assert.equal(await raw.exists("pugmark:answers:chat/m/large"), 0);
  assert.ok(await cache.textOf("chat/m/large"));
});

testShared("where Redis goes away memory goes on, and is shared again when it is back", async () => {
  await using fragile = await startRedis();
  await using cache = await ready(fragile.url);
  await using other = await ready(fragile.url);
  cache.set("chat/m/1", answer("yes"), mine);
  await fragile.goAway();
  await cache.until("away");
  assert.equal(await cache.textOf("chat/m/1"), "yes");
  assert.equal(cache.get("chat/m/2"), undefined);
  cache.set("chat/m/2", answer("no"), mine);
  assert.match((await cache.tier.whyNotUsed()) ?? "", /ECONN|closed/);
  await fragile.comeBack();
  await Promise.all([cache.until("ready"), other.until("ready")]);
  // It came back empty, which is no removal.
  assert.equal(await cache.textOf("chat/m/1"), "yes");
  cache.set("chat/m/3", answer("again"), mine);
  await eventually(
    () => other.textOf("chat/m/3"),
    (text) => text === "again",
  );
  assert.equal(await cache.tier.whyNotUsed(), undefined);
  assert.equal(cache.warnings.length, 1);
});

testShared("a removal that could not reach Redis is made up for when it can", async () => {
  await using cable = await cableTo(url);
  await using far = await ready(cable.url);
  await using near = await ready();
  await keep(near, "chat/m/owed", "yes");
  await keep(near, "chat/x/stays", "yes", { model: "x", caller: "local" });
  await cable.cut();
  await far.until("away");
  assert.deepEqual(await far.remove({ model: "m" }), { removed: 0, pending: true });
  assert.equal(await near.textOf("chat/m/owed"), "yes");
  await cable.mend();
  await eventually(
    () => near.textOf("chat/m/owed"),
    (text) => text === undefined,
  );
  await far.until("ready");
  assert.equal(await far.textOf("chat/m/owed"), undefined);
  assert.equal(await far.textOf("chat/x/stays"), "yes");
});

testShared("a server that missed a removal keeps nothing that may have been removed", async () => {
  await using cable = await cableTo(url);
  await using far = await ready(cable.url);
  await using near = await ready();
  await keep(near, "chat/m/missed", "yes");
  assert.equal(await far.textOf("chat/m/missed"), "yes");
  await cable.cut();
  await far.until("away");
  assert.equal((await near.remove({ model: "m" })).pending, false);
  assert.equal(await far.textOf("chat/m/missed"), "yes");
  // One of its own that it makes up for must not hide that it missed another's.
  assert.equal((await far.remove({ model: "other" })).pending, true);
  await cable.mend();
  await far.until("ready");
  assert.equal(await far.textOf("chat/m/missed"), undefined);
});

testShared("nobody waits for a Redis that hangs, and it is asked again once it answers", async () => {
  await using slow = await startRedis();
  await using cache = await ready(slow.url, { waitMs: 50 });
  slow.freeze(true);
  const late = await Promise.all([cache.get("chat/m/1"), cache.get("chat/m/2")]);
  assert.deepEqual(late, [undefined, undefined]);
  assert.equal(cache.tier.state, "slow");
  assert.equal(cache.get("chat/m/1"), undefined);
  cache.set("chat/m/1", answer("yes"), mine);
  assert.equal(await cache.textOf("chat/m/1"), "yes");
  assert.match((await cache.tier.whyNotUsed()) ?? "", /does not answer within/);
  slow.freeze(false);
  await cache.until("ready");
  cache.set("chat/m/3", answer("shared"), mine);
  await using other = await ready(slow.url);
  await eventually(
    () => other.textOf("chat/m/3"),
    (text) => text === "shared",
  );
});

testShared("a wrong password is told, and not shown", async () => {
  await using guarded = await startRedis({ password: "right-one" });
  await using cache = cacheOn(guarded.url.replace("right", "wrong"));
  await eventually(
    async () => cache.warnings.length,
    (count) => count > 0,
  );
  cache.set("chat/m/1", answer("yes"), mine);
  assert.equal(await cache.textOf("chat/m/1"), "yes");
  const fault = (await cache.tier.whyNotUsed()) ?? "";
  assert.match(fault, /WRONGPASS/);
  assert.doesNotMatch(fault + cache.warnings.join(), /one/);
});

test("where nothing listens the cache opens, works and closes all the same", async () => {
  await using cache = cacheOn("redis://127.0.0.1:1");
  cache.set("chat/m/1", answer("yes"), mine);
  assert.equal(await cache.textOf("chat/m/1"), "yes");
  assert.deepEqual(await cache.remove({}), { removed: 1, pending: true });
});
