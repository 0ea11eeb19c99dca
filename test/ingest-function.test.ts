import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash, randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { get, type IncomingMessage } from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import pg from "pg";
import { type TestApi, testApi } from "../src/api/api.fixture.ts";
import { findDeno } from "../src/cli/edge.ts";
import { projectRoot } from "../src/config/config.ts";
import { type EdgeRuntime, startEdgeRuntime } from "./support/edge-runtime.ts";
import { closedPort } from "./support/ports.ts";
import { type SupabaseProject, startSupabaseProject } from "./support/supabase-project.ts";

let project: SupabaseProject;
let database: pg.Client;
let edge: EdgeRuntime;
let anyKey: string;

before(async () => {
  project = await startSupabaseProject();
  database = new pg.Client({ connectionString: project.databaseUrl });
  await database.connect();
  edge = await startEdgeRuntime({
    SUPABASE_URL: project.url,
    SUPABASE_SECRET_KEYS: JSON.stringify({ default: project.secretKey }),
  });
  anyKey = await newKey("*");
});
after(async () => {
  await edge[Symbol.asyncDispose]();
  await database.end();
  await project[Symbol.asyncDispose]();
});

async function newKey(device: string): Promise<string> {
  const key = `pmk_${randomBytes(32).toString("base64url")}`;
  await database.query("insert into public.device_keys (id, device, key_hash) values ($1, $2, $3)", [
    randomUUID(),
    device,
    createHash("sha256").update(key).digest("hex"),
  ]);
  return key;
}

interface Sent {
  readonly key?: string | null;
  readonly body?: string | object;
  readonly type?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Sends to the function: a GET where there is no body. */
async function send(
  path: string,
  { key = anyKey, body, type = "application/json", headers = {} }: Sent = {},
) {
  const response = await fetch(`${edge.url}/functions/v1/ingest/${path}`, {
    method: body === undefined ? "GET" : "POST",
    headers: {
      ...(key === null ? {} : { authorization: `Bearer ${key}` }),
      ...(body === undefined ? {} : { "content-type": type }),
      ...headers,
    },
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, text, json: text.startsWith("{") ? JSON.parse(text) : undefined };
}

/** Empties the inbox; gives what was in it, in order of arrival. */
async function emptyInbox(): Promise<{ device: string; fixes: Record<string, unknown>[] }[]> {
  const { rows } = await database.query(
    "with gone as (delete from public.inbox returning *) select device, fixes from gone order by received_at",
  );
  return rows;
}

const at = "2026-11-22T09:00:00Z";
const position = { device: "collar-7", time: at, lat: 53.001, lon: 6.593 };

test("every example of the API's documentation is taken, and answered, as a station does it", async () => {
  const [ofThePage, ofFunctions] = ["docs/api.md", "docs/functions.md"].map((name) => {
    const page = readFileSync(join(projectRoot, name), "utf8");
    return /-d '\n([\s\S]*?)'\n/.exec(page)?.[1];
  });
  assert.ok(ofThePage && ofFunctions, "both pages have an example of positions");
  await using api: TestApi = await testApi();
  const { paths, components } = JSON.parse((await api.get("/openapi.json")).body);
  const osmand = paths["/ingest/osmand"];
  const collection = components.schemas.FeatureCollection.examples[0];
  const traccar = osmand.post.requestBody.content["application/json"].example;
  const documented = (osmand.get.parameters as { in: string; name: string }[]).map(({ name }) => name);
  assert.ok(documented.includes("timestamp") && collection && traccar);

  const examples = [
    ["api/v1/positions", "positions", "application/json", ofThePage],
    ["api/v1/positions", "positions", "application/json", ofFunctions.replace("collar-7", "collar-8")],
    ["ingest/geojson", "geojson", "application/geo+json", JSON.stringify(collection)],
    ["ingest/osmand", "osmand", "application/json", JSON.stringify(traccar)],
  ] as const;
  for (const [path, format, type, body] of examples) {
    const here = await api.post(`/${path}`, body, type);
    const there = await send(format, { body, type });
    assert.equal(here.statusCode, 200);
    assert.deepEqual([there.status, there.text], [here.statusCode, here.body], format);
  }
  const query = "osmand?id=jane&lat=53.0011&lon=6.5930&timestamp=1557478899";
  assert.equal((await api.get(`/ingest/${query}`)).statusCode, 200);
  assert.equal((await send(query)).status, 200);

  const left = await emptyInbox();
  const { rows } = await api.pool.query(
    `select key as device, (extract(epoch from time) * 1000)::float8 as time, lat, lon
     from public.positions join public.devices on devices.id = device_id`,
  );
  const identity = ({ device, time, lat, lon }: Record<string, unknown>) => `${device} ${time} ${lat} ${lon}`;
  assert.equal(rows.length, 5);
  assert.deepEqual(left.flatMap(({ fixes }) => fixes.map(identity)).sort(), rows.map(identity).sort());
});

test("a report comes as a query, a form or JSON, and one without coordinates leaves nothing", async () => {
  assert.deepEqual(await send("osmand?id=a&lat=1&lon=2&timestamp=1557478899&batt=50"), {
    status: 200,
    text: "",
    json: undefined,
  });
  const form = "application/x-www-form-urlencoded";
  assert.equal(
    (await send("osmand", { body: "id=b&lat=3&lon=4&timestamp=1557478899", type: form })).status,
    200,
  );
  assert.equal((await send("osmand?id=c&cell=1", { body: "", type: "text/plain" })).status, 200);
  const [first, second, ...more] = await emptyInbox();
  assert.deepEqual(first, {
    device: "a",
    fixes: [{ device: "a", time: 1557478899000, lat: 1, lon: 2, battery: 0.5 }],
  });
  assert.equal(second?.device, "b");
  assert.deepEqual(more, []);
});

test("what is sent again is there once, and is answered as a repeat", async () => {
  const body = [position, { ...position, time: "2026-11-22T09:05:00Z" }, position];
  assert.deepEqual((await send("positions", { body })).json, { accepted: 2, duplicates: 1, rejected: [] });
  assert.deepEqual((await send("positions", { body })).json, { accepted: 0, duplicates: 3, rejected: [] });
  assert.equal((await emptyInbox()).length, 1);
});

test("a key may come in three places, and without a good one nothing is taken", async () => {
  const key = await newKey("collar-7");
  const body = position;
  assert.equal((await send("positions", { key, body })).status, 200);
  assert.equal((await send("positions", { key: null, body, headers: { "x-api-key": key } })).status, 200);
  assert.equal((await send(`positions?key=${key}`, { key: null, body })).status, 200);
  // A gateway's own token stands beside it.
  assert.equal(
    (await send("positions", { key: "eyJ.a.token", body, headers: { "x-api-key": key } })).status,
    200,
  );
  await emptyInbox();

  const refused = async (sent: Sent) => {
    const { status, json } = await send("positions", { body, ...sent });
    return `${status} ${json.code}`;
  };
  assert.equal(await refused({ key: null }), "401 key-missing");
  assert.equal(await refused({ key: "guessed" }), "401 key-unknown");
  assert.equal(await refused({ key: `pmk_${"A".repeat(43)}` }), "401 key-unknown");
  assert.equal(await refused({ key: project.secretKey }), "401 key-unknown");
  assert.equal(
    await refused({ key, body: [position, { ...position, device: "other" }] }),
    "403 device-foreign",
  );
  await database.query("update public.device_keys set revoked_at = now() where device = 'collar-7'");
  assert.equal(await refused({ key }), "401 key-unknown");
  assert.deepEqual(await emptyInbox(), []);
});

test("a key in the query never becomes a part of the data", async () => {
  const key = await newKey("tracker");
  await send(`osmand?id=tracker&lat=1&lon=2&timestamp=1557478899&key=${key}&hdop=2`, { key: null });
  const [upload] = await emptyInbox();
  assert.equal(upload?.fixes[0]?.attributesJson, '{"hdop":2}');
  assert.ok(!JSON.stringify(upload).includes(key) && !edge.log().includes(key));
});

test("what cannot be taken is refused with the station's codes, and nothing of it is left", async () => {
  const refused = async (path: string, sent: Sent = {}) => {
    const { status, json } = await send(path, sent);
    return `${status} ${json?.code}`;
  };
  assert.equal(await refused("positions", { body: "{" }), "400 request-invalid");
  assert.equal(await refused("positions", { body: '{"__proto__": {"lat": 1}}' }), "400 request-invalid");
  assert.equal(await refused("positions", { body: "7" }), "400 body-unrecognised");
  assert.equal(await refused("positions", { body: "[]", type: "text/csv" }), "415 media-type-unsupported");
  const headers = { "content-encoding": "gzip" };
  assert.equal(await refused("positions", { body: "[]", headers }), "415 media-type-unsupported");
  assert.equal(await refused("positions", { body: Array(2001).fill(position) }), "413 too-many-positions");
  assert.equal(await refused("positions", { body: " ".repeat(2 * 1024 * 1024 + 1) }), "413 body-too-large");
  assert.equal(await refused("positions"), "404 route-unknown");
  assert.equal(await refused("nmea", { body: "{}" }), "404 route-unknown");
  assert.equal(await refused("osmand?lat=1&lon=2"), "400 device-missing");
  assert.equal(await refused("osmand?id=a&lat=91&lon=2"), "400 latitude-out-of-range");
  assert.deepEqual(await emptyInbox(), []);
});

test("while the project is away the sender is told to come back, and nothing more", async () => {
  await using cut = await startEdgeRuntime({
    SUPABASE_URL: `http://127.0.0.1:${closedPort}`,
    SUPABASE_SERVICE_ROLE_KEY: "eyJ.secret.key",
  });
  const response = await fetch(`${cut.url}/functions/v1/ingest/positions`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-api-key": anyKey },
    body: JSON.stringify(position),
  });
  const problem = (await response.json()) as { code: string };
  assert.equal(`${response.status} ${problem.code}`, "503 inbox-away");
  assert.equal(response.headers.get("retry-after"), "30");
  assert.ok(!JSON.stringify(problem).includes("secret") && !cut.log().includes("secret"));
});

test("served here, functions do not answer under a name that somebody pointed at this machine", async () => {
  await using served = await startEdgeRuntime({});
  const statusUnder = async (host: string) => {
    const asked = get(`${served.url}/functions/v1/ingest/positions`, { headers: { host } });
    const [response] = (await once(asked, "response")) as [IncomingMessage];
    response.resume();
    return response.statusCode;
  };
  for (const host of ["rebound.example.org", "127.0.0.1.example.org:80", "localhost@example.org"]) {
    assert.equal(await statusUnder(host), 403, host);
  }
  for (const host of ["localhost:54321", "127.0.0.1", "[::1]:54321"]) {
    assert.notEqual(await statusUnder(host), 403, host);
  }
});

test("Deno finds nothing wrong with the functions", async () => {
  const deno = findDeno() as string;
  const run = promisify(execFile);
  const folder = join(projectRoot, "supabase", "functions");
  const programs = [join(folder, "_serve.ts"), join(folder, "ingest", "index.ts")];
  await run(deno, ["check", "--quiet", "--no-config", "--no-lock", ...programs]);
  await run(deno, ["lint", "--quiet", "--no-config", folder]);
});
