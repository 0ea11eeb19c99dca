import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { type Fault, type FaultProxy, faults, startFaultProxy } from "./fault-proxy.ts";

let server: Server;
let target: string;
/** What the server behind got. */
let received: string[] = [];

before(async () => {
  server = createServer(async (asked, answer) => {
    const body = String(await buffer(asked));
    received.push(`${asked.method} ${asked.url} ${asked.headers.apikey} ${body}`);
    if (body === "no content") answer.writeHead(204).end();
    else answer.writeHead(201, { "content-type": "text/plain" }).end(`got ${body}`);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  target = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
after(() => void server.close());

function send(proxy: FaultProxy, body: string, signal?: AbortSignal): Promise<Response> {
  const init = { method: "POST", body, headers: { apikey: "k" }, ...(signal ? { signal } : {}) };
  return fetch(`${proxy.url}/rest?x=1`, init);
}

/** The status and the body, or `broken`, and whether the server behind got the request. */
async function meet(fault: Fault, body = "row"): Promise<{ outcome: string; isReceived: boolean }> {
  received = [];
  await using proxy = await startFaultProxy({ target, seed: 1, rate: 1, faults: [fault], hangMs: 10 });
  const outcome = await send(proxy, body).then(
    async (answer) =>
      answer.text().then(
        (text) => `${answer.status} ${text}`,
        () => `${answer.status} broken`,
      ),
    () => "broken",
  );
  assert.equal(proxy.counts.get(fault), 1);
  return { outcome, isReceived: received.length === 1 };
}

test("a request that meets nothing arrives as it was sent, and so does its answer", async () => {
  received = [];
  await using proxy = await startFaultProxy({ target, seed: 1, rate: 0 });
  const answer = await send(proxy, "row");
  assert.equal(`${answer.status} ${answer.headers.get("content-type")}`, "201 text/plain");
  assert.equal(await answer.text(), "got row");
  assert.deepEqual(received, ["POST /rest?x=1 k row"]);
});

test("a request that breaks off, hangs or is refused never reaches the server behind", async () => {
  assert.deepEqual(await meet("kill-before"), { outcome: "broken", isReceived: false });
  assert.deepEqual(await meet("hang"), { outcome: "broken", isReceived: false });
  for (const status of [401, 409, 413, 429, 500, 502, 503] as const) {
    const { outcome, isReceived } = await meet(status);
    assert.match(outcome, new RegExp(`^${status} ${status === 502 ? "<html>" : "\\{"}`));
    assert.equal(isReceived, false);
  }
});

test("a reply that is lost, cut off or slow is one to a request that was done", async () => {
  assert.deepEqual(await meet("kill-after"), { outcome: "broken", isReceived: true });
  assert.deepEqual(await meet("cut-off"), { outcome: "201 broken", isReceived: true });
  assert.deepEqual(await meet("cut-off", "no content"), { outcome: "200 broken", isReceived: true });
  assert.deepEqual(await meet("slow"), { outcome: "201 got row", isReceived: true });
});

test("a hanging request is held until its client gives up", async () => {
  await using proxy = await startFaultProxy({ target, seed: 1, rate: 1, faults: ["hang"] });
  await assert.rejects(send(proxy, "row", AbortSignal.timeout(100)), { name: "TimeoutError" });
});

test("the same seed gives the same faults, also where the weather changed in between", async () => {
  const draw = async (seed: number, pause: boolean) => {
    await using proxy = await startFaultProxy({ target, seed, rate: 0.5, hangMs: 1, slowMs: 1 });
    const seen: string[] = [];
    for (let index = 0; index < 40; index += 1) {
      if (pause && index === 10) proxy.calm();
      if (pause && index === 20) proxy.storm(0.5);
      const before = new Map(proxy.counts);
      await send(proxy, "row").then(
        (answer) => answer.text().catch(() => ""),
        () => "",
      );
      const met = [...proxy.counts].find(([fault, count]) => count !== before.get(fault));
      seen.push(String(met?.[0]));
    }
    return seen;
  };
  const first = await draw(7, false);
  assert.deepEqual(await draw(7, false), first);
  assert.notDeepEqual(await draw(8, false), first);
  const paused = await draw(7, true);
  assert.deepEqual(paused.slice(10, 20), Array(10).fill("none"));
  assert.deepEqual(paused.slice(20), first.slice(20));
  assert.ok(first.includes("none") && faults.some((fault) => first.includes(String(fault))));
});

test("a proxy that is down refuses connections, and comes back at the same address", async () => {
  await using proxy = await startFaultProxy({ target, seed: 1, rate: 0 });
  assert.equal((await send(proxy, "row")).status, 201);
  await proxy.down();
  await assert.rejects(send(proxy, "row"), TypeError);
  await proxy.up();
  assert.equal((await send(proxy, "row")).status, 201);
});
