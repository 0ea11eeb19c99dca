import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createConfig, lintFromString } from "@redocly/openapi-core";
import { type Station, startStation } from "./station.fixture.ts";

let station: Station;
before(async () => {
  station = await startStation();
});
after(() => station[Symbol.asyncDispose]());

const headers = { "x-api-key": "0123456789abcdef" };

async function run(tool: string, args: object) {
  const response = await station.app.inject({ method: "POST", url: `/tools/${tool}`, headers, body: args });
  return { status: response.statusCode, ...response.json() };
}

test("the list of tools has each one's schemas", async () => {
  const { tools } = (await station.app.inject({ url: "/tools", headers })).json();
  assert.deepEqual(
    tools.map(({ name }: { name: string }) => name),
    ["list_subjects", "latest_positions", "track_summary"],
  );
  for (const tool of tools) {
    assert.ok(tool.description.length > 20);
    assert.equal(tool.arguments.type, "object");
    assert.equal(tool.arguments.additionalProperties, false);
    assert.equal(tool.result.type, "object");
  }
});

test("subjects are listed with species and devices, and found by a part of any of them", async () => {
  const all = await run("list_subjects", {});
  assert.equal(all.status, 200);
  assert.equal(all.result.total, 3);
  assert.equal(all.result.cut, false);
  for (const name of ["lun", "FUSCUS", "tag-17"]) {
    const { result } = await run("list_subjects", { name });
    assert.deepEqual(result.subjects, [{ name: "Luna", species: "Larus fuscus", devices: ["TAG-17"] }], name);
  }
  assert.deepEqual((await run("list_subjects", { name: "100%_" })).result, {
    total: 0,
    subjects: [],
    cut: false,
  });
});

test("a list that is too long for a model is cut, and says so", async () => {
  const insert = `insert into subjects (id, name)
    select gen_random_uuid(), 'Many ' || n || repeat('x', 100) from generate_series(1, 150) n`;
  await station.owner.query(insert);
  try {
    const { result } = await run("list_subjects", {});
    assert.equal(result.total, 153);
    assert.equal(result.cut, true);
    assert.ok(Buffer.byteLength(JSON.stringify(result)) <= 4096);
    const latest = (await run("latest_positions", {})).result;
    assert.equal(latest.cut, true);
    assert.ok(Buffer.byteLength(JSON.stringify(latest)) <= 4096);
  } finally {
    await station.owner.query("delete from subjects where name like 'Many %'");
  }
});

test("the latest position of one subject or of all is its last good fix", async () => {
  const luna = {
    subject: "Luna",
    species: "Larus fuscus",
    device: "TAG-17",
    time: "2026-11-21T05:00:00Z",
    lat: 12.05,
    lon: 30,
    battery: 0.85,
  };
  const one = await run("latest_positions", { subject: "luna" });
  assert.deepEqual(one.result, { positions: [luna], without_position: [], cut: false });
  const all = await run("latest_positions", {});
  assert.equal(all.result.positions.length, 3);
});

test("a subject that has no position is named as one", async () => {
  await station.owner.query("insert into subjects (id, name) values (gen_random_uuid(), 'Newcomer')");
  const { result } = await run("latest_positions", { subject: "Newcomer" });
  assert.deepEqual(result, { positions: [], without_position: ["Newcomer"], cut: false });
  await station.owner.query("delete from subjects where name = 'Newcomer'");
});

test("a track is summed up with its outliers left out", async () => {
  const { result } = await run("track_summary", { subject: "Luna" });
  const { distance_m, ...rest } = result;
  // Five times 0.01 degrees of a meridian: 5 × 1,111.95 m.
  assert.ok(Math.abs(distance_m - 5559.8) < 0.2, String(distance_m));
  assert.deepEqual(rest, {
    subject: "Luna",
    species: "Larus fuscus",
    from: null,
    to: null,
    fixes: 6,
    outliers_left_out: 1,
    first_at: "2026-11-21T00:00:00Z",
    last_at: "2026-11-21T05:00:00Z",
    duration_s: 18_000,
    distance_km: 5.56,
    mean_speed_mps: 0.31,
    mean_speed_kmh: 1.11,
    max_speed_mps: 0.31,
    max_speed_kmh: 1.11,
    max_speed_at: rest.max_speed_at,
    bounding_box: { south: 12, west: 30, north: 12.05, east: 30 },
  });
});

test("a track is summed up between two times, in whatever zone they are given", async () => {
  const range = { from: "2026-11-21T03:00:00+02:00", to: "2026-11-21T03:00:00Z" };
  const { result } = await run("track_summary", { subject: "Luna", ...range });
  assert.equal(result.fixes, 2);
  assert.equal(result.from, "2026-11-21T01:00:00Z");
  assert.equal(result.distance_km, 1.112);
  const empty = await run("track_summary", { subject: "Luna", from: "2027-01-01T00:00:00Z" });
  assert.equal(empty.result.fixes, 0);
  assert.equal(empty.result.bounding_box, null);
});

test("a subject that does not exist is a problem that names near ones", async () => {
  const { status, code, detail } = await run("track_summary", { subject: "Camp" });
  assert.deepEqual({ status, code }, { status: 404, code: "subject-unknown" });
  assert.equal(detail, 'There is no subject "Camp". Near it: "Camp 7".');
});

test("arguments that a tool does not take are refused", async () => {
  for (const [tool, args] of [
    ["track_summary", {}],
    ["track_summary", { subject: "" }],
    ["track_summary", { subject: "Luna", from: "yesterday" }],
    ["latest_positions", { subject: 5 }],
    ["list_subjects", { limit: 5 }],
  ] as const) {
    const { status, code } = await run(tool, args);
    assert.deepEqual({ status, code }, { status: 400, code: "request-invalid" }, JSON.stringify(args));
  }
  const backwards = { subject: "Luna", from: "2026-11-22T00:00:00Z", to: "2026-11-21T00:00:00Z" };
  assert.equal((await run("track_summary", backwards)).code, "tool-arguments-invalid");
  // A key that may only read is not told whether there is such a route.
  assert.equal((await run("delete_everything", {})).code, "scope-missing");
});

test("the OpenAPI page is valid and has every route with its problems", async () => {
  const source = (await station.app.inject("/openapi.json")).body;
  const config = await createConfig({ extends: ["spec"] });
  const found = await lintFromString({ source, config });
  assert.deepEqual(
    found.map(({ message, location }) => ({ message, at: location[0]?.pointer })),
    [],
  );
  const page = JSON.parse(source);
  for (const path of ["/ask", "/tools/list_subjects", "/tools/latest_positions", "/tools/track_summary"]) {
    const { post } = page.paths[path];
    assert.ok(post.operationId && post.summary && post.tags.length === 1, path);
    assert.ok(
      post.responses["503"].content["application/problem+json"].schema.$ref.endsWith("/Problem"),
      path,
    );
  }
});
