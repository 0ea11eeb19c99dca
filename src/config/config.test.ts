import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { ConfigError, describeConfig, loadConfig, projectRoot } from "./config.ts";
import { type Variable, variables } from "./variables.ts";

const folder = mkdtempSync(join(tmpdir(), "pugmark-config-"));
const noFile = join(folder, "absent");
after(() => rmSync(folder, { recursive: true }));

function linesOf(environment: NodeJS.ProcessEnv, file = noFile): readonly string[] {
  try {
    loadConfig(environment, file);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.lines;
  }
  return [];
}

function dotEnv(text: string): string {
  const file = join(folder, `${Math.random()}.env`);
  writeFileSync(file, text);
  return file;
}

test("with nothing set, every documented default holds", () => {
  const { config } = loadConfig({}, noFile);
  assert.equal(config.PORT, 5000);
  assert.equal(config.API_PORT, 8080);
  assert.equal(config.CHAT_PORT, 5001);
  assert.equal(config.HOST, "127.0.0.1");
  assert.equal(config.DATABASE_URL, undefined);
  assert.equal(config.DATABASE_PORT, 54329);
  assert.deepEqual(config.DEEPSEEK_API_URL, ["http://127.0.0.1:1234"]);
  assert.equal(config.DEEPSEEK_MODEL, "deepseek-r1-distill-qwen-7b");
  assert.equal(config.API_TIMEOUT, 10);
  assert.equal(config.CACHE_TTL, 3600);
  assert.match(config.PUGMARK_HOME, /\/\.pugmark$/);
});

test("the environment wins over .env, and each value says where it came from", () => {
  const file = dotEnv("API_PORT=9001\nCHAT_PORT=9002\n");
  const loaded = loadConfig({ API_PORT: "9003" }, file);
  assert.equal(loaded.config.API_PORT, 9003);
  assert.equal(loaded.config.CHAT_PORT, 9002);
  assert.equal(loaded.sources.API_PORT, "environment");
  assert.equal(loaded.sources.CHAT_PORT, ".env");
  assert.equal(loaded.sources.PORT, "default");
});

test("every wrong value is named at once, with what is allowed", () => {
  const lines = linesOf({ PORT: "eighty", API_TIMEOUT: "-1", LOG_LEVEL: "loud" });
  assert.equal(lines.length, 3);
  assert.match(lines[0] ?? "", /^PORT="eighty" .*whole number from 1 to 65535/);
  assert.match(lines[1] ?? "", /^API_TIMEOUT="-1" .*seconds/);
  assert.match(lines[2] ?? "", /^LOG_LEVEL="loud" .*debug/);
});

test("a contradiction is named beside the wrong values, not after them", () => {
  const lines = linesOf({ LOG_LEVEL: "loud", HOST: "0.0.0.0", API_PORT: "5000", CHAT_PORT: "x" });
  assert.deepEqual(lines.map((line) => line.split("=")[0]).sort(), [
    "API_PORT",
    "CHAT_PORT",
    "HOST",
    "LOG_LEVEL",
  ]);
});

test(".env may begin with a byte order mark; one that cannot be read is named", () => {
  assert.equal(loadConfig({}, dotEnv("\uFEFFAPI_PORT=9001\r\n")).config.API_PORT, 9001);
  assert.match(linesOf({}, folder)[0] ?? "", /cannot be read: EISDIR/);
});

test("a mirror of some tables and of none is refused", () => {
  for (const tables of ["all,none", "none, positions"])
    assert.match(
      linesOf({ SUPABASE_MIRROR: tables })[0] ?? "",
      /is not allowed: .*none stands alone/,
      tables,
    );
  assert.deepEqual(loadConfig({ SUPABASE_MIRROR: "none" }, noFile).config.SUPABASE_MIRROR, ["none"]);
  assert.deepEqual(loadConfig({ SUPABASE_MIRROR: "all,photos" }, noFile).config.SUPABASE_MIRROR, [
    "all",
    "photos",
  ]);
});

test("a misspelt variable is refused and the right name offered", () => {
  assert.match(linesOf({ PUGMARK_API_KEY: "x" })[0] ?? "", /is PUGMARK_API_KEYS meant\?/);
  assert.match(linesOf({}, dotEnv("CACHE_TLT=1\n"))[0] ?? "", /is CACHE_TTL meant\?/);
});

test("no message and no listing shows a secret", () => {
  const lines = linesOf({
    PUGMARK_API_KEYS: "phone:short-secret:ingest",
    DATABASE_URL: "mysql://u:hidden@h/d",
  });
  assert.equal(lines.length, 2);
  assert.doesNotMatch(lines.join(), /short-secret|hidden/);
  const loaded = loadConfig({ DATABASE_URL: "postgres://u:hidden@127.0.0.1/d" }, noFile);
  assert.doesNotMatch(JSON.stringify(describeConfig(loaded)), /hidden/);
});

test("a Redis is a host and perhaps the number of a database", () => {
  for (const url of ["redis://h", "rediss://u:p%25@h:1/7", "redis://[::1]:6379/"]) {
    assert.deepEqual(linesOf({ REDIS_URL: url }), [], url);
  }
  for (const url of ["redis:h:6379", "redis:///1", "redis://h/users", "redis://:100%@h", "http://h"]) {
    assert.match(linesOf({ REDIS_URL: url })[0] ?? "", /^REDIS_URL=\*+ is not allowed: .*redis/, url);
  }
});

test("an address that others can reach needs keys", () => {
  assert.match(linesOf({ HOST: "0.0.0.0" })[0] ?? "", /needs PUGMARK_API_KEYS/);
  assert.deepEqual(linesOf({ HOST: "0.0.0.0", PUGMARK_API_KEYS: "phone:0123456789abcdef:ingest+read" }), []);
});

test("two services cannot share a port", () => {
  assert.match(linesOf({ API_PORT: "5000" })[0] ?? "", /PORT has that port already/);
});

for (const [given, root] of [
  ["http://127.0.0.1:1234", "http://127.0.0.1:1234"],
  ["http://127.0.0.1:1234/", "http://127.0.0.1:1234"],
  ["http://localhost:1234/v1/chat/completions", "http://localhost:1234"],
  ["http://localhost:1234/v1", "http://localhost:1234"],
  ["https://model.lan/lm/api/v0/models", "https://model.lan/lm"],
] as const) {
  test(`LM Studio given as ${given} is reached at ${root}`, () => {
    assert.deepEqual(loadConfig({ DEEPSEEK_API_URL: given }, noFile).config.DEEPSEEK_API_URL, [root]);
  });
}

test(".env.example names every variable that people set, with its default", () => {
  const example = readFileSync(join(projectRoot, ".env.example"), "utf8");
  for (const [name, variable] of Object.entries<Variable<unknown>>(variables)) {
    if (variable.internal) continue;
    assert.ok(example.includes(`\n#${name}=${variable.standard ?? ""}\n`), name);
    assert.ok(example.includes(`\n# ${variable.meaning}\n`), `${name}: ${variable.meaning}`);
  }
});

test("tokens a day are read for everybody and by name, and a name that no key has is a slip", () => {
  const key = "a".repeat(16);
  const env = { PUGMARK_API_KEYS: `web:${key}:write`, CHAT_TOKENS_PER_DAY: "200000, web=5000,local=0" };
  const loaded = loadConfig(env, noFile);
  const { standard, byCaller } = loaded.config.CHAT_TOKENS_PER_DAY ?? {};
  assert.equal(standard, 200_000);
  assert.deepEqual(
    [...(byCaller ?? [])],
    [
      ["web", 5_000],
      ["local", Number.POSITIVE_INFINITY],
    ],
  );
  const shown = describeConfig(loaded).find(({ name }) => name === "CHAT_TOKENS_PER_DAY");
  assert.equal(shown?.value, "200000, web=5000,local=0");
  assert.match(
    linesOf({ CHAT_TOKENS_PER_DAY: "wbe=5" })[0] ?? "",
    /names wbe, and no key of PUGMARK_API_KEYS/,
  );
  for (const wrong of ["many", "1,2", "web=1,web=2", "web=", "=5", "-1", "1.5", "5,"]) {
    assert.match(linesOf({ CHAT_TOKENS_PER_DAY: wrong })[0] ?? "", /whole numbers, comma-separated/, wrong);
  }
});

test("patterns of what the log is not to keep are read one by one, and a bad one stops the start", () => {
  const read = (text: string) =>
    loadConfig({ INTERACTION_REDACT: text }, "/nowhere/.env").config.INTERACTION_REDACT;
  assert.deepEqual(read(""), []);
  assert.deepEqual(read("\\d{4};; (?i:secret) \n[a;]"), [/\d{4}/gu, /(?i:secret)/gu, /[a;]/gu]);
  assert.throws(
    () => read("fine;;(open"),
    /INTERACTION_REDACT=.*regular expressions: .*\(open.*[Uu]nterminated/,
  );
  assert.throws(() => read("a*"), /a\* matches none at all/);
});
