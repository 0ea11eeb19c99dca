import assert from "node:assert/strict";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { EmbeddedPostgresError, embeddedPostgres } from "./embedded-postgres.ts";
import { secretFile } from "./secret-file.ts";

function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "embedded-postgres-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

test("a database of another major version, or of nothing, is refused with both versions and a way out", async (t) => {
  const folder = temporaryFolder(t);
  const postgres = embeddedPostgres({ folder, port: 1 });
  mkdirSync(join(folder, "data"));
  await assert.rejects(postgres.prepare(), { fatal: true, message: /is not a Postgres database: move it/ });
  writeFileSync(join(folder, "data", "PG_VERSION"), "17\n");
  await assert.rejects(postgres.prepare(), {
    fatal: true,
    message: /of Postgres 17, and this is Postgres 18: .*DATABASE_URL/,
  });
});

test("lost or damaged passwords are named, and never made anew beside a database", (t) => {
  const folder = temporaryFolder(t);
  const { url } = embeddedPostgres({ folder, port: 1 });
  assert.match(url("owner"), /^postgres:\/\/pugmark:[\w-]{32}@/);
  const file = join(folder, "passwords.json");
  for (const damaged of ["", "{", "null", "{}", '{"owner":1}']) {
    writeFileSync(file, damaged);
    assert.throws(() => url("owner"), { name: EmbeddedPostgresError.name, message: /json is damaged/ });
  }
  rmSync(file);
  mkdirSync(join(folder, "data"));
  assert.throws(() => url("owner"), { message: /passwords\.json is gone/ });
  assert.deepEqual(readdirSync(folder), ["data"]);
});

test("the folder above the database's keeps every bit of its mode", async (t) => {
  const above = temporaryFolder(t);
  chmodSync(above, 0o1777);
  const postgres = embeddedPostgres({ folder: join(above, "database"), port: 1 });
  mkdirSync(join(above, "database", "data"), { recursive: true });
  await assert.rejects(postgres.prepare(), EmbeddedPostgresError);
  assert.equal(statSync(above).mode & 0o7777, 0o1777);
});

test("of two who make a secret at once, both read the one that was first", (t) => {
  const path = join(temporaryFolder(t), "made", "secret");
  const second = secretFile(path, () => {
    secretFile(path, () => "first");
    return "second";
  });
  assert.equal(second, "first");
  assert.equal(readFileSync(path, "utf8"), "first");
});
