import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Ajv } from "ajv";
import { parse } from "yaml";
import { everyDefinition } from "../../test/support/definitions.ts";
import { type Definition, defineService } from "../process-manager/definition.ts";
import { composeProject } from "./compose.ts";
import type { Surroundings } from "./exported.ts";

const around: Surroundings = {
  project: "test",
  node: process.execPath,
  nodeVersion: "24.21.0",
  root: "/srv/test",
  home: "/srv/test/.home",
  path: "/usr/bin:/bin",
  timeZone: "UTC",
};

/** The Compose Specification's own schema, as the linter dclint brings it. */
const schema = JSON.parse(
  readFileSync(new URL("schemas/compose.schema.json", import.meta.resolve("dclint/package.json")), "utf8"),
);
// It names its draft by https, which no validator knows it under.
const isCompose: (value: unknown) => boolean = new Ajv({ strict: false }).compile({
  ...schema,
  $schema: "http://json-schema.org/draft-07/schema#",
});

function fileOf(definitions: readonly Definition[], name = "compose.yaml"): string {
  const file = composeProject(definitions, around).files.find((one) => one.name === name);
  assert.ok(file, `no ${name}`);
  return file.text;
}

test("the Compose file is one by the published schema", () => {
  const project = parse(fileOf(everyDefinition));
  assert.equal(isCompose(project), true);
  // The schema does look: what is not in it is refused.
  assert.equal(isCompose({ services: { web: { ...project.services.web, readiness: {} } } }), false);
});

test("dependencies wait for health, for a start or for an end, as they do here", () => {
  const { services } = parse(fileOf(everyDefinition));
  assert.deepEqual(services.web.depends_on, {
    database: { condition: "service_healthy" },
    migrate: { condition: "service_completed_successfully" },
  });
  assert.deepEqual(services.queue.depends_on, { web: { condition: "service_started" } });
});

test("probes, limits, replicas, ports and stop policies are carried over", () => {
  const { services, volumes } = parse(fileOf(everyDefinition));
  const { web, database, queue, migrate, sweep } = services;
  assert.equal(web.healthcheck.interval, "3s");
  assert.equal(web.healthcheck.start_period, "60s");
  assert.deepEqual(web.deploy, { replicas: 2, resources: { limits: { memory: "268435456b" } } });
  assert.deepEqual(web.ports, ["127.0.0.1:9080-9081:9080"]);
  assert.equal(database.stop_signal, "SIGINT");
  assert.equal(database.stop_grace_period, "30s");
  assert.deepEqual(volumes, { database: {} });
  assert.deepEqual(queue.healthcheck.test, ["CMD", "worker", "--ping"]);
  assert.equal(queue.restart, "no");
  assert.equal(migrate.restart, "on-failure:3");
  assert.deepEqual(sweep.profiles, ["scheduled"]);
});

test("arguments and variables come through Compose's own dollar signs unchanged", () => {
  const { web } = parse(fileOf(everyDefinition)).services;
  const unescaped = (text: string) => text.replaceAll("$$", "$");
  const [definition] = everyDefinition.filter(({ name }) => name === "web");
  assert.ok(definition && definition.kind !== "external" && typeof definition.command !== "string");
  assert.deepEqual(web.command.map(unescaped), ["node", ...definition.command.slice(1)]);
  assert.equal(unescaped(web.environment.GREETING), definition.env?.GREETING);
  // Each dollar sign is a pair, or the beginning of what Compose is to fill in.
  for (const text of [...web.command, web.environment.GREETING])
    assert.equal(text.replaceAll("$$", "").includes("$"), false, text);
});

test("folders and neighbours of this machine become the containers' own", () => {
  const web = defineService({
    name: "web",
    command: [process.execPath, "/srv/test/web.js", "--log=/srv/test/.home/log"],
    cwd: "/srv/test/web",
    env: { CACHE: "localhost:7000", SELF: "http://127.0.0.1:8000/", OTHER: "/srv/tests" },
    listen: { port: 8_000 },
  });
  const cache = defineService({ name: "cache", command: ["cached"], listen: { port: 7_000 } });
  const { services, volumes } = parse(fileOf([web, cache]));
  assert.deepEqual(services.web.command, ["node", "/app/web.js", "--log=/data/log"]);
  assert.equal(services.web.working_dir, "/app/web");
  assert.deepEqual(services.web.environment, {
    PORT: "8000",
    CACHE: "cache:7000",
    SELF: "http://127.0.0.1:8000/",
    OTHER: "/srv/tests",
  });
  assert.deepEqual(services.web.volumes, ["home:/data"]);
  assert.deepEqual(volumes, { home: {} });
  assert.match(services.cache.image, /^\$\{CACHE_IMAGE:\?an image that has cached\}$/);
});

test("a secret is asked for by name and is in no file; one name where services share it", () => {
  const service = (name: string, env: Record<string, string>) =>
    defineService({ name, command: [process.execPath, `${name}.js`], env });
  const definitions = [
    service("one", { API_KEY: "same", DB: "postgres://one:s3cret@db/x" }),
    service("two", { API_KEY: "same", DB: "postgres://two:s3cret@db/x" }),
  ];
  const { one, two } = parse(fileOf(definitions)).services;
  assert.match(one.environment.API_KEY, /^\$\{API_KEY:\?/);
  assert.equal(two.environment.API_KEY, one.environment.API_KEY);
  assert.match(one.environment.DB, /^\$\{ONE_DB:\?/);
  const lines = fileOf(definitions, "compose.env.example").split("\n").filter(Boolean).slice(2);
  assert.deepEqual(lines, ["API_KEY=", "ONE_DB=", "TWO_DB="]);
  const { files } = composeProject([...definitions, ...everyDefinition], around);
  assert.doesNotMatch(files.map(({ text }) => text).join(""), /s3cret|: same/);
});

test("what Compose cannot do is listed and stands at the head of its file", () => {
  const { left } = composeProject(everyDefinition, around);
  for (const what of [
    /^web: .*liveness/,
    /^sweep: its schedule/,
    /^redis: /,
    /^web: .*0\.0\.0\.0/,
    /^queue: .*image/,
  ])
    assert.ok(
      left.find((line) => what.test(line)),
      String(what),
    );
  const text = fileOf(everyDefinition);
  for (const line of left) assert.ok(text.includes(`# - ${line}\n`), line);
});

test("the image has neither the secrets nor the packages of this machine", () => {
  const ignored = fileOf(everyDefinition, "test.Dockerfile.dockerignore").split("\n");
  for (const name of [".env", "node_modules", ".git", ".home"]) assert.ok(ignored.includes(name), name);
  assert.match(fileOf(everyDefinition, "test.Dockerfile"), /^FROM node:24\.21\.0-bookworm-slim$/m);
});
