import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect } from "node:net";
import { PassThrough } from "node:stream";
import { after, before, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { Type } from "typebox";
import { type Config, loadConfig } from "../config/config.ts";
import { type App, createApp } from "./app.ts";
import { AppError } from "./problem.ts";

class TeapotError extends AppError<"teapot"> {}

const keys = "phone:phone-key-0123456:ingest,reader:reader-key-012345:read,boss:boss-key-01234567:admin";

async function demo(environment: NodeJS.ProcessEnv = {}): Promise<App> {
  const { config } = loadConfig({ LOG_LEVEL: "fatal", ...environment }, "/nowhere/.env");
  return await appWith(config);
}

async function appWith(config: Config): Promise<App> {
  const app = await createApp({
    name: "demo",
    title: "Demo",
    description: "A server with one route of each kind.",
    config,
    statusOf: { teapot: 418 },
    readiness: { pot: async () => Promise.reject(new Error("/secret/path")), cup: async () => {} },
  });
  const body = Type.Object({ lat: Type.Number(), note: Type.Optional(Type.String({ maxLength: 10 })) });
  app.post("/things", { schema: { body } }, async ({ body: { lat }, caller }) => ({ lat, caller }));
  app.get("/things", async ({ caller }) => ({ caller }));
  app.get("/change", { config: { changes: true, scope: "ingest", keyInQuery: true } }, async () => ({
    ok: true,
  }));
  app.post("/bare", async () => ({}));
  app.get("/named/:name", async () => ({}));
  app.get("/teapot", async () => {
    throw new TeapotError("teapot", "short and stout", { retryAfterS: 7 });
  });
  app.get("/boom", async () => {
    throw new Error("select * from secrets at /home/jane with key sk-lm-1");
  });
  return app;
}

let app: App;
let keyed: App;
before(async () => {
  app = await demo();
  await app.listen({ host: "127.0.0.1", port: 0 });
  keyed = await demo({ PUGMARK_API_KEYS: keys });
});
after(async () => {
  await app.close();
  await keyed.close();
});

const own = { host: "127.0.0.1:8080" };
const get = (url: string, headers: Record<string, string> = {}, server = app) =>
  server.inject({ url, headers: { ...own, ...headers } });
const post = (payload: object, headers: Record<string, string> = {}, server = app) =>
  server.inject({ url: "/things", method: "POST", payload, headers: { ...own, ...headers } });

/** All that comes back for these bytes, until the server closes the connection. */
async function raw(text: string): Promise<string> {
  const socket = connect((app.server.address() as AddressInfo).port, "127.0.0.1");
  let answer = "";
  socket.setEncoding("utf8").on("data", (part: string) => {
    answer += part;
  });
  socket.write(text);
  await once(socket, "close");
  return answer;
}

for (const host of [
  "evil.example",
  "127.0.0.1.evil.example",
  "10.0.0.7:8080",
  "localhost.evil.example:8080",
  "evil.example@127.0.0.1:8080",
  "localhost/evil.example",
  "%6cocalhost",
  "localhost#",
]) {
  test(`a request for the host ${JSON.stringify(host)} is refused on every route`, async () => {
    for (const url of ["/livez", "/things", "/docs", "/openapi.json", "/metrics", "/unknown"]) {
      const { statusCode, json } = await get(url, { host });
      assert.equal(statusCode, 403, url);
      assert.equal(json().code, "host-foreign");
    }
  });
}

for (const host of ["127.0.0.1", "localhost:8080", "LOCALHOST", "[::1]:8080", "127.8.9.1:1"]) {
  test(`a request for the host ${host} is answered`, async () => {
    assert.equal((await get("/things", { host })).statusCode, 200);
  });
}

test("a request that names two hosts, or another in its target than in its header, is refused", async () => {
  for (const text of [
    "GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    "GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
  ]) {
    assert.match(await raw(text), /^HTTP\/1\.1 403 [\s\S]*"code":"host-foreign"/);
  }
});

test("a further host name is answered where the settings name it", async () => {
  const named = await demo({ PUGMARK_ALLOWED_HOSTS: "Station.Example" });
  assert.equal((await get("/things", { host: "station.example" }, named)).statusCode, 200);
  await named.close();
});

for (const origin of [
  "https://evil.example",
  "null",
  "http://127.0.0.1:9999",
  "http://localhost",
  "file://",
  "garbage",
  "http://evil.example@127.0.0.1:8080",
]) {
  test(`a page of the origin ${origin} may change nothing, whatever the content type`, async () => {
    for (const type of ["application/json", "text/plain", "application/x-www-form-urlencoded"]) {
      const headers = { ...own, origin, "content-type": type };
      const { statusCode, json } = await app.inject({
        url: "/things",
        method: "POST",
        payload: '{"lat":1}',
        headers,
      });
      assert.equal(statusCode, 403);
      assert.equal(json().code, "origin-foreign");
    }
    assert.equal((await get("/change", { origin })).statusCode, 403);
  });
}

test("a page of the station's own may change things", async () => {
  for (const origin of ["http://127.0.0.1:8080", "http://localhost:5000", "http://[::1]:5001"]) {
    assert.equal((await post({ lat: 1 }, { origin })).statusCode, 200, origin);
  }
});

test("an image on a foreign page changes nothing, though browsers send no origin for it", async () => {
  for (const site of ["cross-site", "same-site"]) {
    assert.equal((await get("/change", { "sec-fetch-site": site })).statusCode, 403);
  }
  assert.equal((await get("/change", { "sec-fetch-site": "none" })).statusCode, 200);
  assert.equal((await get("/change")).statusCode, 200);
});

test("null and text never become a number", async () => {
  for (const lat of [null, "1", true, [1], {}]) {
    const { statusCode, json } = await post({ lat });
    assert.equal(statusCode, 400);
    assert.equal(json().code, "request-invalid");
    assert.match(json().detail, /lat must be number/);
  }
});

test("what is too large, too long, not JSON or of another type is refused by name", async () => {
  assert.equal((await post({ lat: 1, note: "x".repeat(11) })).json().code, "request-invalid");
  assert.equal((await post({ lat: 1, note: "x".repeat(2 ** 20) })).json().code, "body-too-large");
  const send = (type: string, payload: string | Buffer) =>
    app.inject({ url: "/things", method: "POST", payload, headers: { ...own, "content-type": type } });
  assert.equal((await send("application/json", '{"lat":')).json().code, "request-invalid");
  for (const type of ["application/xml", "text/plain", "application/x-www-form-urlencoded"]) {
    assert.equal((await send(type, '{"lat":1}')).json().code, "media-type-unsupported", type);
  }
  assert.equal((await send("application/json", "")).json().detail, "body must be object");
  const latin1 = Buffer.from('{"lat":1,"note":"caf\xe9"}', "latin1");
  assert.equal((await send("application/json", latin1)).json().detail, "The body is not UTF-8.");
});

test("a compressed body is refused as such, and not as broken JSON", async () => {
  const { statusCode, json } = await post({ lat: 1 }, { "content-encoding": "gzip" });
  assert.deepEqual([statusCode, json().code], [415, "media-type-unsupported"]);
  assert.equal((await post({ lat: 1 }, { "content-encoding": "identity" })).statusCode, 200);
});

test("a route's description has the refusals that any body can meet", async () => {
  const { responses } = (await get("/openapi.json")).json().paths["/things"].post;
  assert.deepEqual(
    Object.keys(responses).filter((status) => status !== "200" && status !== "default"),
    ["400", "401", "403", "413", "415"],
  );
});

test("a route without a body minds no content type", async () => {
  const headers = { ...own, "content-type": "application/json" };
  assert.equal((await app.inject({ url: "/bare", method: "POST", headers })).statusCode, 200);
});

test("an expected failure is a problem with its code, its status and when to try again", async () => {
  const { statusCode, headers, json } = await get("/teapot");
  assert.equal(statusCode, 418);
  assert.match(String(headers["content-type"]), /^application\/problem\+json/);
  assert.equal(headers["retry-after"], "7");
  const { instance, ...problem } = json();
  assert.equal(instance, headers["x-request-id"]);
  assert.deepEqual(problem, {
    type: "urn:problem:teapot",
    title: "I'm a Teapot",
    status: 418,
    detail: "short and stout",
    code: "teapot",
  });
});

test("what is no request, or leads out of a folder, is refused as a problem like everything else", async () => {
  const get = (path: string, host = "localhost") =>
    `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;
  for (const [text, status, code] of [
    ["NONSENSE\r\n\r\n", 400, "request-invalid"],
    ["GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n", 403, "host-foreign"],
    [`GET /livez HTTP/1.1\r\nX-Long: ${"x".repeat(20_000)}\r\n\r\n`, 431, "headers-too-large"],
    [get("/%zz"), 400, "request-invalid"],
    [get("/%zz", "evil.example"), 403, "host-foreign"],
    [get(`/named/${"x".repeat(300)}`), 400, "request-invalid"],
    [get("/docs/static/../../package.json"), 404, "route-unknown"],
  ] as const) {
    const [head = "", body = ""] = (await raw(text)).split("\r\n\r\n");
    assert.match(head, new RegExp(`^HTTP/1.1 ${status} `), text.slice(0, 80));
    assert.match(head, /content-type: application\/problem\+json/);
    assert.match(head, /x-content-type-options: nosniff/);
    assert.equal(JSON.parse(body).code, code);
    assert.match(head, new RegExp(`x-request-id: ${JSON.parse(body).instance}`));
  }
});

test("an unplanned failure shows nothing of itself", async () => {
  const { statusCode, body, json } = await get("/boom");
  assert.equal(statusCode, 500);
  assert.equal(json().code, "internal");
  assert.doesNotMatch(body, /select|jane|sk-lm|stack/);
});

test("readiness names what is away, and not why", async () => {
  const { statusCode, body, json } = await get("/readyz");
  assert.equal(statusCode, 503);
  assert.equal(json().detail, "Away: pot.");
  assert.doesNotMatch(body, /secret/);
});

test("a request keeps the id that its caller gave it, if it is harmless", async () => {
  assert.equal(
    (await get("/things", { "x-request-id": "trace-0001" })).headers["x-request-id"],
    "trace-0001",
  );
  assert.notEqual((await get("/things", { "x-request-id": "a b\tc" })).headers["x-request-id"], "a b\tc");
});

test("with keys, each route asks for its scope", async () => {
  const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
  const codeOf = async (answer: ReturnType<typeof get>) =>
    (await answer).json().code ?? (await answer).statusCode;
  assert.equal(await codeOf(get("/things", {}, keyed)), "key-missing");
  assert.equal(await codeOf(get("/things", bearer("wrong-key-0123456"), keyed)), "key-unknown");
  assert.equal(await codeOf(get("/things", bearer("phone-key-0123456"), keyed)), "scope-missing");
  assert.equal((await get("/things", bearer("reader-key-012345"), keyed)).json().caller, "reader");
  assert.equal((await get("/things", { "x-api-key": "reader-key-012345" }, keyed)).statusCode, 200);
  assert.equal(await codeOf(post({ lat: 1 }, bearer("reader-key-012345"), keyed)), "scope-missing");
  assert.equal((await post({ lat: 1 }, bearer("boss-key-01234567"), keyed)).json().caller, "boss");
  assert.equal((await get("/change?key=phone-key-0123456", {}, keyed)).statusCode, 200);
  assert.equal(await codeOf(get("/things?key=reader-key-012345", {}, keyed)), "key-missing");
});

test("health and documentation need no key", async () => {
  for (const url of ["/livez", "/openapi.json", "/docs/"]) {
    assert.equal((await get(url, {}, keyed)).statusCode, 200, url);
  }
});

test("metrics count an unknown path as one series, however many are tried", async () => {
  await get("/unknown-1");
  await get("/unknown-2");
  const { body } = await get("/metrics");
  assert.match(body, /http_server_request_duration_seconds_count\{[^}]*route="unknown"[^}]*status="404"/);
  assert.doesNotMatch(body, /unknown-1/);
});

test("pages carry the headers that keep other pages out of them", async () => {
  const { headers } = await get("/docs/");
  assert.match(String(headers["content-security-policy"]), /default-src 'self'.*frame-ancestors 'none'/);
  assert.equal(headers["x-content-type-options"], "nosniff");
  assert.equal(headers["x-frame-options"], "DENY");
});

test("every secret of the settings is blotted out of the log, in a library's words too", async () => {
  const { config } = loadConfig(
    {
      PUGMARK_API_KEYS: keys,
      DATABASE_URL: "postgres://u:p%40ssw0rd@127.0.0.1/d",
      DEEPSEEK_API_KEY: "sk-lm-secret",
    },
    "/nowhere/.env",
  );
  const written: string[] = [];
  const write = process.stdout.write;
  process.stdout.write = (chunk) => written.push(String(chunk)) > 0;
  try {
    const logging = await appWith(config);
    logging.log.error(
      new Error(
        "auth failed for postgres://u:p%40ssw0rd@127.0.0.1/d p@ssw0rd sk-lm-secret boss-key-01234567",
      ),
    );
    await logging.close();
  } finally {
    process.stdout.write = write;
  }
  assert.match(written.join(""), /auth failed/);
  assert.doesNotMatch(written.join(""), /ssw0rd|sk-lm-secret|boss-key/);
});

test("a connection whose answer ends only while the server closes does not hold it up", async () => {
  await using closing = await demo();
  const answer = new PassThrough();
  closing.get("/long", async () => answer);
  const isClosing = new Promise<void>((resolve) => closing.addHook("preClose", async () => resolve()));
  await closing.listen({ host: "127.0.0.1", port: 0 });
  closing.server.keepAliveTimeout = 600_000;
  const socket = connect((closing.server.address() as AddressInfo).port, "127.0.0.1");
  socket.write("GET /long HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
  answer.write("the beginning, ");
  await once(socket, "data");
  const closed = closing.close();
  await isClosing;
  await setImmediate();
  answer.end("and the end");
  assert.match(String((await once(socket, "data"))[0]), /and the end/);
  await closed;
});

test("a connection on which nothing was ever asked does not hold up the close", async () => {
  await using closing = await demo();
  await closing.listen({ host: "127.0.0.1", port: 0 });
  const taken = once(closing.server, "connection");
  // Browsers open one more than they need.
  const socket = connect((closing.server.address() as AddressInfo).port, "127.0.0.1");
  await taken;
  const closed = closing.close();
  await once(socket, "close");
  await closed;
});
