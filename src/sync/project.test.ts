import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer, text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { closedPort } from "../../test/support/ports.ts";
import { Project, retryAfterMs } from "./project.ts";

const never = new AbortController().signal;
const positions = { key: ["device_id", "time"], isEdited: false } as const;

/** A client of a server that answers so. */
async function projectOf(
  t: TestContext,
  answer: (request: IncomingMessage, response: ServerResponse) => void,
  { key = "sb_secret_0123456789", timeoutMs = 10_000 } = {},
): Promise<Project> {
  const server = createServer(answer).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const project = new Project({ url: `http://127.0.0.1:${port}`, key, timeoutMs });
  t.after(async () => {
    await project[Symbol.asyncDispose]();
    server.closeAllConnections();
    server.close();
  });
  return project;
}

test("rows go over as they are written, with what they are known by", async (t) => {
  const seen = Promise.withResolvers<{ url: string; body: string; key: string | undefined }>();
  const project = await projectOf(t, async (request, response) => {
    const body = await text(request);
    seen.resolve({ url: request.url ?? "", body, key: request.headers.apikey as string | undefined });
    response.writeHead(201).end();
  });
  const rows = ['{"device_id":"a","seed":12345678901234567890}', '{"device_id":"b","seed":1.0}'];
  const { status, error } = await project.upsert("positions", rows, positions, never);
  assert.deepEqual([status, error], [201, null]);
  const { url, body, key } = await seen.promise;
  assert.equal(body, `[${rows.join(",")}]`);
  assert.match(
    decodeURIComponent(url),
    /^\/rest\/v1\/positions\?on_conflict=device_id,time&columns="device_id","seed"$/,
  );
  assert.equal(key, "sb_secret_0123456789");
});

test("rows come as they are written, and a page of a proxy's is no answer", async (t) => {
  let answer = '[{"seed":12345678901234567890,"gain":1.10}]';
  const headers = { "content-type": "application/json", "content-range": "0-0/17" };
  const project = await projectOf(t, (_request, response) => response.writeHead(200, headers).end(answer));
  const read = () =>
    project.askExactly(project.exactClient.from("positions").select("*").retry(false), never);
  assert.equal(JSON.stringify((await read()).data), answer);
  assert.equal(JSON.stringify((await project.callExactly("sync_changes", {}, never)).data), answer);
  answer = "<html></html>";
  const { status, data } = await read();
  assert.deepEqual([status, data], [0, null]);
});

test("a file goes to Storage in pieces, with its length, and the answer's own status is found in its body", async (t) => {
  const bytes = Buffer.from(Array.from({ length: 200_001 }, (_, index) => index % 251));
  const seen: { url?: string | undefined; headers: IncomingHttpHeaders; body: Buffer }[] = [];
  const project = await projectOf(t, async (request, response) => {
    seen.push({ url: request.url, headers: request.headers, body: await buffer(request) });
    if (seen.length === 1) return void response.end('{"Key":"photos/a.png","Id":"1"}');
    response.writeHead(400).end('{"statusCode":"413","error":"Payload too large","message":"too large"}');
  });
  const files = project.storage(never).from("photos");
  const upload = () => project.askStorage(files.upload("a.png", bytes, { contentType: "image/png" }), never);
  assert.deepEqual((await upload()).error, null);
  const [{ url, headers, body } = assert.fail("nothing came")] = seen;
  assert.equal(url, "/storage/v1/object/photos/a.png");
  assert.deepEqual(body, bytes);
  assert.partialDeepStrictEqual(headers, { "content-type": "image/png", "content-length": "200001" });
  assert.equal(headers["transfer-encoding"], undefined);
  const { status, error } = await upload();
  assert.deepEqual([status, error], [413, { code: "", message: "too large" }]);
});

test("a server that does not answer in time, or is not there, is a reply without a status", async (t) => {
  const silent = await projectOf(t, () => undefined, { timeoutMs: 200 });
  assert.equal((await silent.call("sync_head", {}, never)).status, 0);
  await using absent = new Project({ url: `http://127.0.0.1:${closedPort}`, key: "sb_secret_0123456789" });
  const { status, error } = await absent.upsert("positions", ["{}"], positions, never);
  assert.equal(status, 0);
  assert.match(error?.message ?? "", /^connect ECONNREFUSED 127\.0\.0\.1:/);
});

test("what may take long is waited for, and what may not is not", async (t) => {
  const held = Promise.withResolvers<ServerResponse>();
  const project = await projectOf(
    t,
    (request, response) => {
      if (request.url?.endsWith("/sync_checksum")) held.resolve(response);
    },
    { timeoutMs: 200 },
  );
  await using patient = project.patient(10_000);
  const answer = patient.call<number>("sync_checksum", {}, never);
  const response = await held.promise;
  assert.equal((await project.call("sync_head", {}, never)).status, 0);
  response.writeHead(200, { "content-type": "application/json" }).end("7");
  assert.deepEqual(await answer, { status: 200, error: null, data: 7 });
});

test("the project's wish to be left alone is remembered", async (t) => {
  const project = await projectOf(t, (_request, response) => {
    response.writeHead(429, { "retry-after": "7" }).end("{}");
  });
  assert.equal(project.quietMs, 0);
  assert.equal((await project.call("sync_head", {}, never)).status, 429);
  assert.ok(project.quietMs > 6_000 && project.quietMs <= 7_000, String(project.quietMs));
});

test("a Retry-After is seconds or a date, and nonsense is none", () => {
  const now = Date.parse("2026-11-22T10:00:00Z");
  assert.equal(retryAfterMs("3", now), 3_000);
  assert.equal(retryAfterMs("Sun, 22 Nov 2026 10:00:05 GMT", now), 5_000);
  assert.equal(retryAfterMs("Sun, 22 Nov 2026 09:00:00 GMT", now), 0);
  assert.equal(retryAfterMs("soon", now), 0);
});

test("the key is in no error, not even where it cannot be a header", async (t) => {
  const key = "sb_secret_with\na line feed";
  const project = await projectOf(t, (_request, response) => void response.end(), { key });
  const { error } = await project.call("sync_head", {}, never);
  assert.ok(error);
  assert.ok(!JSON.stringify(error).includes("sb_secret"), JSON.stringify(error));
});

test("an aborted call throws the reason", async (t) => {
  const project = await projectOf(t, () => undefined);
  const stop = new AbortController();
  const call = project.call("sync_head", {}, stop.signal);
  stop.abort(new Error("over"));
  await assert.rejects(call, { message: "over" });
});
