import assert from "node:assert/strict";
import { test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import schema from "../../../schema/services.schema.json" with { type: "json" };
import type { ActiveProbe, ExternalDefinition, Readiness, ServiceDefinition } from "../definition.ts";
import type { ServiceEntry, ServicesFile } from "./define-services.ts";
import { findMismatches } from "./schema-check.ts";

const validate = new Ajv2020().compile(schema);

/** The value with one thing changed, for every thing in it: taken away, misspelt, of each other type, or extreme. */
function* variations(value: unknown): Generator<unknown> {
  yield* [
    null,
    true,
    0,
    -1,
    1.5,
    70_000,
    "",
    " ",
    "A=",
    "SIGTERM",
    [],
    {},
    [1],
    [""],
    ["a"],
    { kind: "tcp" },
    { a: "b" },
  ];
  if (typeof value !== "object" || value === null) return;
  if (Array.isArray(value)) {
    for (const [index, one] of value.entries())
      for (const other of variations(one)) yield value.with(index, other);
    return;
  }
  for (const [key, one] of Object.entries(value)) {
    const { [key]: _one, ...rest } = value as Record<string, unknown>;
    yield rest;
    yield { ...rest, [`${key}x`]: one };
    for (const other of variations(one)) yield { ...rest, [key]: other };
  }
}

const timing = { initialDelayMs: 0, periodMs: 1, timeoutMs: 0.5, successThreshold: 1, failureThreshold: 3 };
const full = {
  $schema: "x",
  env: { A: "1" },
  envFiles: [".env", "local.env?"],
  logsMaxBytes: 2 ** 20,
  services: {
    web: {
      kind: "service",
      description: "x",
      command: ["node", "web.js", ""],
      cwd: "web",
      env: { "with.dot": "" },
      envFiles: ["a"],
      user: { uid: 0, gid: 0 },
      listen: { host: "::", port: 8080, hold: true, relay: false },
      portHint: "WEB_PORT",
      replicas: 2,
      dependsOn: { db: "ready", seed: "completed" },
      readiness: { kind: "ipc", pattern: "up", watch: { kind: "http", url: "/", ...timing } },
      liveness: { kind: "http", url: "/", headers: { a: "b" }, status: [200, 404], body: "ok", ...timing },
      startTimeoutMs: 1,
      restart: {
        policy: "on-failure",
        intensity: 1,
        periodMs: 0,
        backoffBaseMs: 1,
        backoffCapMs: 1,
        stableMs: 1,
        successExitCodes: [0, 143],
      },
      stop: { signal: "SIGINT", timeoutMs: 0 },
      watch: { paths: ["src"], ignore: ["*.log"], debounceMs: 5 },
      memoryMaxMiB: 0.5,
    },
    seed: { kind: "task", command: "echo", schedule: "* * * * *", dependsOn: ["db"] },
    db: { command: "x", readiness: { kind: "log", pattern: "up", watch: { kind: "exec", command: "x" } } },
    c: {
      command: ["x"],
      readiness: { kind: "notify", watch: { kind: "tcp", host: "a", port: 1, ...timing } },
    },
    d: { command: ["x"], readiness: { kind: "exec", command: ["x"], ...timing } },
    e: { kind: "external", description: "x", probe: { kind: "tcp" } },
  },
};

test("the interpreter and a full validator agree on every variation of a file that uses everything", () => {
  assert.deepEqual(findMismatches(schema, full), []);
  const seen = { good: 0, bad: 0 };
  for (const value of [full, ...variations(full)]) {
    const isGood = validate(value);
    const mismatches = findMismatches(schema, value);
    assert.equal(
      mismatches.length === 0,
      isGood,
      JSON.stringify({ value, mismatches, errors: validate.errors }),
    );
    seen[isGood ? "good" : "bad"] += 1;
  }
  assert.ok(seen.good > 200 && seen.bad > 1_000, JSON.stringify(seen));
});

test("a keyword that the interpreter does not know is an error, and the schema has none", () => {
  assert.throws(() => findMismatches({ multipleOf: 2 }, 3), /multipleOf/);
  for (const [name, part] of Object.entries(schema.$defs))
    for (const value of [{}, [], "x", 1])
      assert.doesNotThrow(() => findMismatches({ ...part, $defs: schema.$defs }, value), name);
});

test("a function is taken where the schema wants one, and nothing else is", () => {
  const run = async (): Promise<void> => {};
  const withHooks = {
    services: { a: { command: "x", prepare: run, readiness: { kind: "check", check: run } } },
  };
  assert.deepEqual(findMismatches(schema, withHooks), []);
  const wrong = findMismatches(schema, { services: { a: { command: run, afterReady: "x" } } });
  assert.deepEqual(
    wrong.map(({ path }) => path.join(".")),
    ["services.a.command", "services.a.afterReady"],
  );
});

// Not run but compiled: the schema's keys and the types' keys are the same sets.
type Keys<T> = T extends unknown ? keyof T : never;
type Same<A, B> = [A, B] extends [B, A] ? true : { readonly differ: Exclude<A | B, A & B> };
type Definitions = typeof schema.$defs;
type Of<K extends keyof Definitions> = Definitions[K] extends { properties: infer P } ? keyof P : never;
type Inner<K extends keyof Definitions["service"]["properties"]> =
  Definitions["service"]["properties"][K] extends {
    properties: infer P;
  }
    ? keyof P
    : never;
type Field<K extends keyof ServiceDefinition> = keyof NonNullable<ServiceDefinition[K]>;
type Probe<K> = Keys<Extract<Readiness, { kind: K }>>;

test("the schema has the keys of the types", () => {
  const same: readonly true[] = [
    true satisfies Same<keyof typeof schema.properties, keyof ServicesFile>,
    true satisfies Same<Of<"service">, keyof ServiceEntry>,
    true satisfies Same<Of<"external">, Exclude<keyof ExternalDefinition, "name">>,
    true satisfies Same<Inner<"listen">, Field<"listen">>,
    true satisfies Same<Inner<"restart">, Field<"restart">>,
    true satisfies Same<Inner<"stop">, Field<"stop">>,
    true satisfies Same<Inner<"logs">, Field<"logs">>,
    true satisfies Same<Inner<"watch">, Field<"watch">>,
    true satisfies Same<Inner<"user">, Field<"user">>,
    true satisfies Same<Of<"http">, Probe<"http">>,
    true satisfies Same<Of<"tcp">, Probe<"tcp">>,
    true satisfies Same<Of<"exec">, Probe<"exec">>,
    true satisfies Same<Of<"check">, Probe<"check">>,
    true satisfies Same<
      Of<"ipc"> | Of<"notify"> | Of<"log">,
      Exclude<Keys<Readiness>, Keys<ActiveProbe>> | "kind"
    >,
  ];
  assert.ok(same.length > 0);
});
