import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { createConfig, lintFromString } from "@redocly/openapi-core";
import { openPool } from "../store/pool.ts";
import { type TestApi, testApi, testConfig } from "./api.fixture.ts";
import { createApi } from "./app.ts";

let api: TestApi;
const home = mkdtempSync(join(tmpdir(), "pugmark-api-"));

before(async () => {
  api = await testApi({ PUGMARK_HOME: home });
});
after(async () => {
  await api[Symbol.asyncDispose]();
  rmSync(home, { recursive: true });
});

const start = Date.parse("2024-03-01T00:00:00.000Z");
const at = (minute: number) => new Date(start + minute * 60_000).toISOString();
const position = (device: string, minute: number, more: object = {}) => ({
  device,
  time: at(minute),
  lat: minute / 1000,
  lon: 10,
  ...more,
});
const series = (device: string, count: number, more: object = {}) =>
  Array.from({ length: count }, (_, minute) => position(device, minute, more));

test("one position, an array, a Feature and a collection are all taken", async () => {
  const feature = (minute: number) => ({
    type: "Feature",
    geometry: { type: "Point", coordinates: [10, 1] },
    properties: { device_id: "forms", timestamp: at(minute) },
  });
  const bodies = [
    position("forms", 0),
    [position("forms", 1)],
    feature(2),
    { type: "FeatureCollection", features: [feature(3)] },
    [feature(4), position("forms", 5)],
  ];
  for (const body of bodies) {
    const answer = await api.post("/api/v1/positions", body);
    assert.equal(answer.statusCode, 200, answer.body);
    assert.equal(answer.json().accepted, [body].flat().length);
    assert.deepEqual(answer.json().rejected, []);
  }
  const again = await api.post("/ingest/geojson", { type: "FeatureCollection", features: [feature(3)] });
  assert.deepEqual(again.json(), { accepted: 0, duplicates: 1, rejected: [] });
  assert.deepEqual((await api.post("/api/v1/positions", [])).json(), {
    accepted: 0,
    duplicates: 0,
    rejected: [],
  });
});

test("GeoJSON is taken under its own media type, and neither text nor a form is read as JSON", async () => {
  const feature = {
    type: "Feature",
    geometry: { type: "Point", coordinates: [10, 1] },
    properties: { device_id: "typed", timestamp: at(0) },
  };
  for (const url of ["/api/v1/positions", "/ingest/geojson"]) {
    assert.equal((await api.post(url, feature, "application/geo+json")).statusCode, 200);
    for (const type of ["text/plain", "application/x-www-form-urlencoded"]) {
      const answer = await api.post(url, position("typed", 1), type);
      assert.deepEqual([answer.statusCode, answer.json().code], [415, "media-type-unsupported"]);
    }
  }
});

test("a bad item is listed and the others are stored", async () => {
  const answer = await api.post("/api/v1/positions", [
    position("mixed", 0),
    position("mixed", 1, { lat: 95 }),
    position("mixed", 2, { lat: [1] }),
    null,
    position("mixed", 3, { attributes: { text: "a\0b" } }),
    position("mixed", 4, { time: "2999-01-01T00:00:00Z" }),
    position("mixed", 5),
  ]);
  assert.equal(answer.statusCode, 200);
  const { accepted, rejected } = answer.json();
  assert.equal(accepted, 2);
  assert.deepEqual(
    rejected.map(({ index, code }: { index: number; code: string }) => [index, code]),
    [
      [1, "latitude-out-of-range"],
      [2, "value-invalid"],
      [3, "item-invalid"],
      [4, "text-invalid"],
      [5, "time-in-future"],
    ],
  );
});

test("a body that is no positions is refused as a whole", async () => {
  const deep = `${"[".repeat(200_000)}${"]".repeat(200_000)}`;
  const cases: [string, number, string][] = [
    ["3", 400, "body-unrecognised"],
    ["null", 400, "body-unrecognised"],
    ['"x"', 400, "body-unrecognised"],
    ['{"type":"FeatureCollection","features":{}}', 400, "body-unrecognised"],
    ["{", 400, "request-invalid"],
    ["", 400, "request-invalid"],
    ['[{"__proto__":{"device":"x"}}]', 400, "request-invalid"],
    [JSON.stringify(series("many", 10_001)), 413, "too-many-positions"],
    [`"${"x".repeat(16 * 1024 * 1024)}"`, 413, "body-too-large"],
  ];
  for (const [body, status, code] of cases) {
    const answer = await api.post("/api/v1/positions", body);
    assert.deepEqual([answer.statusCode, answer.json().code], [status, code], body.slice(0, 60));
    assert.match(String(answer.headers["content-type"]), /^application\/problem\+json/);
  }
  assert.equal((await api.post("/api/v1/positions", "<a/>", "text/xml")).statusCode, 415);
  const nested = await api.post("/api/v1/positions", deep);
  assert.equal(nested.json().rejected[0].code, "item-invalid");
  const inside = await api.post("/api/v1/positions", `[{"device":"d","time":1,"lat":1,"lon":2,"x":${deep}}]`);
  assert.equal(inside.json().rejected[0].code, "attributes-too-large");
  const huge = await api.post("/api/v1/positions", '[{"device":"d","time":1e400,"lat":1e308,"lon":-1e999}]');
  assert.equal(huge.json().rejected[0].code, "time-invalid");
});

test("10,000 positions go in at once", async () => {
  const answer = await api.post("/api/v1/positions", series("full", 10_000));
  assert.equal(answer.json().accepted, 10_000);
});

test("OsmAnd and Traccar Client are answered as they expect, in every form", async () => {
  const form = "application/x-www-form-urlencoded";
  const seconds = start / 1000;
  const answers = [
    await api.get(`/ingest/osmand?id=phone&lat=1&lon=2&timestamp=${seconds}&speed=10&batt=50`),
    await api.post(`/ingest/osmand?id=phone&lat=1&lon=2&timestamp=${seconds + 1}`, "", form),
    await api.post(`/ingest/osmand?id=phone&lat=1&lon=2&timestamp=${seconds + 1}`, ""),
    await api.post("/ingest/osmand", `id=phone&lat=1&lon=2&timestamp=${seconds + 2}&wifi=a&wifi=b`, form),
    await api.post("/ingest/osmand", {
      device_id: "phone",
      location: { timestamp: new Date(start + 3000), coords: { latitude: 1, longitude: 2, speed: -1 } },
    }),
    await api.get("/ingest/osmand?id=phone&cell=310,260,1,2&cell=310,260,1,3"),
    await api.post("/ingest/osmand", { device_id: "phone", location: { event: "heartbeat" } }),
    await api.get("/ingest/osmand?id=phone&lat=1&lon=2&timestamp=2024-03-01T02:00:04+02:00"),
    await api.post(`/ingest/osmand?id=phone&lat=1&lon=2&timestamp=${seconds}`, "hello", "text/plain"),
  ];
  for (const answer of answers) assert.deepEqual([answer.statusCode, answer.body], [200, ""]);
  const { data } = (await api.get("/api/v1/positions?device=phone")).json();
  assert.deepEqual(
    data.map(({ time }: { time: string }) => Date.parse(time) - start),
    [0, 1000, 2000, 3000, 4000],
  );
  assert.ok(Math.abs(data[0].speed_mps - 5.1444) < 1e-3);
  assert.equal(data[0].battery, 0.5);
  assert.deepEqual(data[2].attributes, { wifi: ["a", "b"] });
});

test("a phone's report that cannot be stored is told why", async () => {
  const cases: [string, string][] = [
    ["lat=1&lon=2", "device-missing"],
    ["id=p&lat=95&lon=2", "latitude-out-of-range"],
    ["id=p&lat=1&lon=2&timestamp=soon", "time-invalid"],
    ["id=p%00&lat=1&lon=2", "text-invalid"],
    [`id=${"x".repeat(201)}&lat=1&lon=2`, "text-too-long"],
  ];
  for (const [query, code] of cases) {
    const answer = await api.get(`/ingest/osmand?${query}`);
    assert.deepEqual([answer.statusCode, answer.json().code], [400, code], query);
  }
  assert.equal(
    (await api.app.inject({ method: "HEAD", url: "/ingest/osmand?id=p&lat=1&lon=2" })).statusCode,
    404,
  );
});

test("pages of a device's positions cover them once, in order of time, within the range", async () => {
  const fixes = series("pages", 25, { altitude_m: 3 });
  await api.post("/api/v1/positions", [...fixes].reverse());
  await api.post("/api/v1/positions", position("pages", 30, { outlier: "jump" }));
  const seen: string[] = [];
  for (let cursor = ""; cursor !== "end"; ) {
    const answer = await api.get(`/api/v1/positions?device=pages&limit=7${cursor && `&cursor=${cursor}`}`);
    const { data, next_cursor } = answer.json();
    seen.push(...data.map(({ time }: { time: string }) => time));
    cursor = next_cursor ?? "end";
  }
  assert.deepEqual(
    seen,
    fixes.map(({ time }) => time),
  );
  const range = (await api.get(`/api/v1/positions?device=pages&from=${at(5)}&to=${at(8)}`)).json().data;
  assert.deepEqual(range, fixes.slice(5, 8));
  const all = (await api.get("/api/v1/positions?device=pages&include_outliers=true")).json().data;
  assert.equal(all.at(-1).outlier, "jump");
});

test("queries that make no sense are refused with the reason", async () => {
  const cases: [string, number, string][] = [
    ["/api/v1/positions", 400, "request-invalid"],
    ["/api/v1/positions?device=nobody", 404, "device-unknown"],
    ["/api/v1/positions?device=a%00", 404, "device-unknown"],
    ["/api/v1/positions?device=pages&limit=0", 400, "request-invalid"],
    ["/api/v1/positions?device=pages&limit=10001", 400, "request-invalid"],
    ["/api/v1/positions?device=pages&from=yesterday", 400, "request-invalid"],
    [`/api/v1/positions?device=pages&from=${at(2)}&to=${at(1)}`, 400, "range-invalid"],
    ["/api/v1/positions?device=pages&cursor=xyz", 400, "cursor-invalid"],
    ["/api/v1/subjects?cursor=xyz", 400, "cursor-invalid"],
    ["/api/v1/subjects/nobody", 404, "subject-unknown"],
    ["/api/v1/subjects/a%00/track", 404, "subject-unknown"],
    ["/api/v1/subjects/019aa000-0000-7000-8000-000000000000/summary", 404, "subject-unknown"],
    ["/api/v1/subjects/pages/track?format=kml", 400, "request-invalid"],
  ];
  for (const [path, status, code] of cases) {
    const answer = await api.get(path);
    assert.deepEqual([answer.statusCode, answer.json().code], [status, code], path);
  }
});

test("a track comes as JSON, GeoJSON and CSV, by format or by Accept, by id or by name", async () => {
  const more = { subject: "Mia", species: "Panthera tigris", altitude_m: 7 };
  await api.post("/api/v1/positions", series("collar", 3, more));
  const { id } = (await api.get("/api/v1/subjects/Mia")).json();
  const json = await api.get(`/api/v1/subjects/${id}/track`);
  assert.equal(json.json().data.length, 3);
  const geojson = (await api.get("/api/v1/subjects/Mia/track", "application/geo+json")).json();
  assert.equal(geojson.type, "FeatureCollection");
  assert.deepEqual(geojson.features[1], {
    type: "Feature",
    geometry: { type: "Point", coordinates: [10, 0.001, 7] },
    properties: { device: "collar", time: at(1), altitude_m: 7 },
  });
  const csv = await api.get("/api/v1/subjects/Mia/track?format=csv", "application/json");
  assert.match(String(csv.headers["content-type"]), /^text\/csv/);
  assert.deepEqual(csv.body.split("\r\n").slice(0, 2), [
    "device,time,lat,lon,altitude_m,accuracy_m,speed_mps,heading_deg,battery,outlier,segment,attributes",
    `collar,${at(0)},0,10,7,,,,,,,`,
  ]);
  const page = await api.get("/api/v1/subjects/Mia/track?format=csv&limit=2");
  assert.equal(page.body.trim().split("\r\n").length, 3);
  const [, next] = /^<(\?.*)>; rel="next"$/.exec(String(page.headers.link)) ?? [];
  const rest = await api.get(`/api/v1/subjects/Mia/track${next}`);
  assert.equal(rest.body.trim().split("\r\n").length, 2);
});

test("the form that the Accept header prefers is given, and never one that it rules out", async () => {
  for (const [accept, type] of [
    ["text/csv;q=0.1, application/geo+json", /^application\/geo\+json/],
    ["application/json;q=0.9, text/csv", /^text\/csv/],
    ["application/geo+json;q=0, text/csv;q=0.5", /^text\/csv/],
    ["text/csv;q=0", /^application\/json/],
    ["text/html, */*;q=0.8", /^application\/json/],
  ] as const) {
    const { headers } = await api.get("/api/v1/subjects/Mia/track", accept);
    assert.match(String(headers["content-type"]), type, accept);
  }
});

test("a track longer than a page is streamed whole", async () => {
  const csv = await api.get("/api/v1/subjects/full/track?format=csv");
  assert.equal(csv.body.trim().split("\r\n").length, 10_001);
  const { features } = (await api.get("/api/v1/subjects/full/track?format=geojson")).json();
  assert.equal(features.length, 10_000);
});

test("no cell of a CSV is a formula", async () => {
  await api.post(
    "/api/v1/positions",
    position("=1+1", 0, { lat: -5, outlier: '@sum("a")', subject: "-evil" }),
  );
  const csv = await api.get("/api/v1/subjects/-evil/track?format=csv&include_outliers=true");
  assert.equal(csv.body.split("\r\n")[1], `'=1+1,${at(0)},-5,10,,,,,,"'@sum(""a"")",,`);
  const latest = await api.get("/api/v1/positions/latest?format=csv&include_outliers=true");
  assert.match(latest.body, /^'-evil,,'=1\+1,/m);
});

test("the latest positions are one for each subject, in pages and in every form", async () => {
  const all = (await api.get("/api/v1/positions/latest")).json().data;
  assert.ok(all.length > 3);
  const paged: unknown[] = [];
  for (let cursor = ""; cursor !== "end"; ) {
    const page = (await api.get(`/api/v1/positions/latest?limit=1${cursor && `&cursor=${cursor}`}`)).json();
    paged.push(...page.data);
    cursor = page.next_cursor ?? "end";
  }
  assert.deepEqual(paged, all);
  const mia = all.find(({ subject }: { subject: string }) => subject === "Mia");
  assert.deepEqual([mia.device, mia.time, mia.species], ["collar", at(2), "Panthera tigris"]);
  const csv: string[] = [];
  for (let query: string | undefined = "?format=csv&limit=1"; query !== undefined; ) {
    const page = await api.get(`/api/v1/positions/latest${query}`);
    csv.push(...page.body.trim().split("\r\n").slice(1));
    query = /^<(.*)>; rel="next"$/.exec(String(page.headers.link))?.[1];
  }
  assert.equal(csv.length, all.length);
  const geojson = (await api.get("/api/v1/positions/latest?format=geojson")).json();
  assert.equal(geojson.features.length, all.length);
});

test("a statement of deployment moves fixes from one subject to the other", async () => {
  await api.post("/api/v1/positions", series("moving", 10));
  const statement = { device: "moving", subject: "Second", first_at: at(5), last_at: at(9) };
  assert.deepEqual((await api.post("/api/v1/deployments", statement)).json(), { changed: true });
  assert.deepEqual((await api.post("/api/v1/deployments", statement)).json(), { changed: false });
  const fixes = async (name: string) => (await api.get(`/api/v1/subjects/${name}/summary`)).json().fixes;
  assert.deepEqual([await fixes("moving"), await fixes("Second")], [5, 5]);
  const latest = (await api.get("/api/v1/positions/latest")).json().data;
  const times = Object.fromEntries(
    latest.map((each: { subject: string; time: string }) => [each.subject, each.time]),
  );
  assert.deepEqual([times.moving, times.Second], [at(4), at(9)]);
  const wrong = [
    { ...statement, device: "nobody" },
    { ...statement, first_at: at(9), last_at: at(5) },
    { ...statement, subject: "a\0" },
    { ...statement, more: 1 },
  ];
  const codes = await Promise.all(
    wrong.map(async (body) => (await api.post("/api/v1/deployments", body)).json().code),
  );
  assert.deepEqual(codes, ["device-unknown", "range-invalid", "text-invalid", "request-invalid"]);
});

test("a key may only do what its scopes say, and a phone may carry it in the query", async () => {
  const keys = "phone:phone-key-0123456:ingest,viewer:viewer-key-012345:read";
  const app = await createApi({ config: testConfig({ PUGMARK_API_KEYS: keys }), pool: api.pool });
  const status = async (method: "GET" | "POST", url: string, key?: string) => {
    const headers = { host: "127.0.0.1", ...(key ? { authorization: `Bearer ${key}` } : {}) };
    return (await app.inject({ method, url, headers, ...(method === "POST" ? { payload: [] } : {}) }))
      .statusCode;
  };
  const report = "/ingest/osmand?id=keyed&lat=1&lon=2";
  assert.equal(await status("GET", report), 401);
  assert.equal(await status("GET", `${report}&key=phone-key-0123456`), 200);
  assert.equal(await status("GET", report, "viewer-key-012345"), 403);
  assert.equal(await status("POST", "/api/v1/positions", "phone-key-0123456"), 200);
  assert.equal(await status("POST", "/api/v1/positions", "viewer-key-012345"), 403);
  assert.equal(await status("GET", "/api/v1/subjects", "viewer-key-012345"), 200);
  assert.equal(await status("GET", "/api/v1/subjects", "phone-key-0123456"), 403);
  assert.equal(await status("POST", "/api/v1/deployments", "phone-key-0123456"), 403);
  await app.close();
});

test("a page elsewhere cannot make the browser send positions", async () => {
  const headers = { host: "127.0.0.1", "sec-fetch-site": "cross-site" };
  const answer = await api.app.inject({ url: "/ingest/osmand?id=evil&lat=1&lon=2", headers });
  assert.equal(answer.json().code, "origin-foreign");
});

test("the services are the process manager's word, and its absence is said", async () => {
  assert.deepEqual(
    [(await api.get("/api/v1/system/services")).json().code, (await api.get("/readyz")).statusCode],
    ["manager-away", 200],
  );
  const services = [{ name: "api", kind: "service", state: "ready", pid: 7, port: 8080, reason: "fine" }];
  const manager = createServer((request, response) => {
    response.writeHead(request.url === "/services" ? 200 : 404).end(JSON.stringify({ services }));
  }).listen(join(home, "control.sock"));
  await once(manager, "listening");
  try {
    assert.deepEqual((await api.get("/api/v1/system/services")).json(), { services });
  } finally {
    manager.close();
  }
});

test("with the database away nothing is acknowledged, and the caller is told when to come back", async () => {
  const pool = openPool({ url: "postgres://nobody@127.0.0.1:1/none", name: "away" });
  const app = await createApi({ config: testConfig(), pool });
  const headers = { host: "127.0.0.1" };
  const answers = await Promise.all([
    app.inject({ url: "/ingest/osmand?id=a&lat=1&lon=2", headers }),
    app.inject({ method: "POST", url: "/api/v1/positions", payload: [position("a", 0)], headers }),
    app.inject({ url: "/api/v1/subjects/a/track?format=csv", headers }),
  ]);
  for (const answer of answers) {
    assert.deepEqual([answer.statusCode, answer.json().code], [503, "database-away"]);
    assert.equal(answer.headers["retry-after"], "1");
  }
  assert.equal((await app.inject({ url: "/readyz", headers })).statusCode, 503);
  await app.close();
  await pool.end();
});

test("the OpenAPI page has no fault", async () => {
  const source = (await api.get("/openapi.json")).body;
  const config = await createConfig({ extends: ["recommended"] });
  const found = await lintFromString({ source, absoluteRef: "openapi.json", config });
  const ours = found.filter(({ location }) =>
    /api~1v1|ingest/.test(JSON.stringify(location[0]?.pointer ?? "")),
  );
  assert.deepEqual(
    found.filter(({ severity }) => severity === "error").map(({ message }) => message),
    [],
  );
  assert.deepEqual(
    ours.map(({ message }) => message),
    [],
  );
});
