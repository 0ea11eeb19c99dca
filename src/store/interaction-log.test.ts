import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { cableTo, eventually } from "../../test/lm-studio/chat-server.ts";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import { newInteraction, silent } from "./interaction.fixture.ts";
import { type InteractionLog, type InteractionLogOptions, openInteractionLog } from "./interaction-log.ts";
import { type NewInteraction, redactionOf } from "./interaction-record.ts";
import { openPool, type Pool, query } from "./pool.ts";

/** Where nothing listens. */
const nowhere = "postgres://nobody@127.0.0.1:1/nothing";
let database: TestDatabase;
let pool: Pool;
let nothing: Pool;
let folder: string;
const folders: string[] = [];

before(async () => {
  database = await testDatabase();
  pool = openPool({ url: database.url, name: "test", role: "pugmark_app" });
  nothing = openPool({ url: nowhere, name: "test" });
});
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "pugmark-journal-"));
  folders.push(folder);
});
after(async () => {
  await Promise.all([pool.end(), nothing.end()]);
  await database[Symbol.asyncDispose]();
  for (const each of folders) rmSync(each, { recursive: true });
});

const open = (options: Partial<InteractionLogOptions> = {}) =>
  openInteractionLog({ pool, folder, log: silent, ...options });

/** Records them and gives the ids. */
async function record(log: InteractionLog, ...interactions: readonly NewInteraction[]): Promise<string[]> {
  await Promise.all(interactions.map((each) => log.record(each)));
  return interactions.map(({ id }) => id);
}

const many = (count: number) => Array.from({ length: count }, () => newInteraction());

async function stored(ids: readonly string[]): Promise<string[]> {
  const { rows } = await query<{ id: string }>(pool, "select id from interactions where id = any($1)", [ids]);
  return rows.map(({ id }) => id).sort();
}

const files = (ending: string) => readdirSync(folder).filter((name) => name.endsWith(ending));

/** A process that records until it is killed; `said` are the ids it was told are safe, and codes of errors. */
function recorder(url: string, { count = 1_000_000, shell = "" } = {}) {
  const program = fileURLToPath(new URL("recorder.fixture.ts", import.meta.url));
  const command = [process.execPath, program, url, folder, String(count)];
  const child: ChildProcess = shell
    ? spawn("sh", ["-c", `${shell}; exec "$@"`, "sh", ...command], { stdio: ["ignore", "pipe", "inherit"] })
    : spawn(command[0] ?? "", command.slice(1), { stdio: ["ignore", "pipe", "inherit"] });
  const said: string[] = [];
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
  lines.on("line", (line) => said.push(line));
  return {
    said,
    has: (length: number) =>
      eventually(
        async () => said.length,
        (seen) => seen >= length,
      ),
    kill: async () => {
      const ended = Promise.all([once(child, "exit"), once(lines, "close")]);
      child.kill("SIGKILL");
      await ended;
    },
  };
}

for (const [when, isThere] of [
  ["while the database is away", false],
  ["while it stores", true],
] as const) {
  test(`a process killed ${when} loses nothing that it acknowledged`, async () => {
    const child = recorder(isThere ? database.url : nowhere);
    await child.has(500);
    await child.kill();
    const ids = child.said;
    await using log = open();
    await log.settled();
    assert.deepEqual(await stored(ids), [...ids].sort());
    assert.equal(log.status().bytes, 0);
  });
}

test("what is recorded while the database is away is stored when it is back", async () => {
  await using cable = await cableTo(database.url);
  const through = openPool({ url: cable.url, name: "test" });
  {
    await using log = open({ pool: through });
    const before = await record(log, ...many(3));
    await log.settled();
    await cable.cut();
    const meanwhile = await record(log, ...many(3));
    await log.settled();
    assert.deepEqual(await stored(meanwhile), []);
    const { records, bytes, oldestAgeS, databaseAway } = log.status();
    assert.deepEqual([records, databaseAway], [3, true]);
    assert.ok(bytes > 3 * 200 && oldestAgeS > 0);
    await cable.mend();
    await log.settled();
    assert.deepEqual(await stored([...before, ...meanwhile]), [...before, ...meanwhile].sort());
    assert.deepEqual(log.status(), {
      ...log.status(),
      records: 0,
      bytes: 0,
      oldestAgeS: 0,
      databaseAway: false,
    });
  }
  await through.end();
  assert.deepEqual(readdirSync(folder), [], "a log that is closed leaves nothing behind");
});

test("past its bound the journal takes nothing more, and goes on once there is room", async () => {
  await using cable = await cableTo(database.url);
  const through = openPool({ url: cable.url, name: "test" });
  await cable.cut();
  {
    await using log = open({ pool: through, bytesMax: 4_000 });
    const ids: string[] = [];
    const fill = async () => {
      for (;;) ids.push(...(await record(log, newInteraction())));
    };
    await assert.rejects(fill(), { code: "store-busy" });
    assert.ok(ids.length > 2 && ids.length < 20, String(ids.length));
    await cable.mend();
    // Nothing new for a while: what was stored is deleted.
    await eventually(
      () => log.settled().then(() => files(".journal")),
      (names) => names.length === 1,
    );
    ids.push(
      ...(await eventually(
        () => record(log, newInteraction()).catch(() => []),
        (done) => done.length > 0,
      )),
    );
    await log.settled();
    assert.deepEqual(await stored(ids), [...ids].sort());
  }
  await through.end();
});

test("where the disk refuses a write nobody is told that it is done, and later ones are", async () => {
  // A file may have 32 KiB: for the process it is as if the disk were full, until the next file.
  const child = recorder(nowhere, { count: 400, shell: "ulimit -f 64" });
  await child.has(400);
  await child.kill();
  const ids = child.said.filter((line) => line !== "journal-unwritable");
  assert.ok(ids.length < 400, "at least one was refused");
  assert.ok(ids.length > 200, `most were not: ${ids.length}`);
  await using log = open();
  await log.settled();
  assert.deepEqual(await stored(ids), [...ids].sort());
});

test("a process that starts beside another leaves it its journal, and takes it over once that is dead", async () => {
  const child = recorder(nowhere, { count: 40 });
  await child.has(40);
  {
    await using log = open();
    const own = await record(log, ...many(2));
    await log.settled();
    assert.deepEqual(await stored([...own, ...child.said]), [...own].sort());
  }
  await child.kill();
  const both = [open(), open()];
  await Promise.all(both.map((log) => log.settled()));
  assert.deepEqual(await stored(child.said), [...child.said].sort());
  for (const log of both) await log[Symbol.asyncDispose]();
  assert.deepEqual(readdirSync(folder), []);
});

/** Three groups of rows on disk, as a process leaves them that never reached the database. */
async function threeGroups(): Promise<{ path: string; ids: string[]; ends: number[] }> {
  const ids: string[] = [];
  const ends: number[] = [];
  {
    await using log = open({ pool: nothing });
    for (let group = 0; group < 3; group += 1) {
      ids.push(...(await record(log, newInteraction())));
      ends.push(log.status().bytes);
    }
  }
  const [name] = files(".journal");
  return { path: join(folder, name ?? ""), ids, ends };
}

/** A log that keeps what it is warned of. */
function warned() {
  const warnings: { message: string; at?: unknown; bytes?: unknown }[] = [];
  const warn = (fields: object, message: string) => warnings.push({ ...fields, message });
  return { warnings, log: { info: () => {}, warn } };
}

test("a write that a crash cut off is cut away, and everything before it is stored", async () => {
  const { path, ids, ends } = await threeGroups();
  const whole = readFileSync(path);
  for (const end of [ends[1] ?? 0, (ends[2] ?? 0) - 1, (ends[1] ?? 0) + 7]) {
    await query(pool, "delete from interactions");
    writeFileSync(path, whole.subarray(0, end));
    const { warnings, log: quiet } = warned();
    {
      await using log = open({ log: quiet });
      await log.settled();
    }
    assert.deepEqual(await stored(ids), ids.slice(0, 2).sort());
    const lost = end - (ends[1] ?? 0);
    assert.deepEqual(
      warnings.map(({ message, bytes }) => [message, bytes]),
      lost > 0 ? [["end of a journal cut off: a write that was never finished", lost]] : [],
    );
    assert.deepEqual(readdirSync(folder), []);
  }
});

test("room that was kept in a journal and not used is nothing to speak of", async () => {
  const { path, ids, ends } = await threeGroups();
  const [, , written = 0] = ends;
  assert.ok(readFileSync(path).length > written);
  const { warnings, log: quiet } = warned();
  {
    await using log = open({ log: quiet });
    await log.settled();
  }
  assert.deepEqual(await stored(ids), [...ids].sort());
  assert.deepEqual([warnings, readdirSync(folder)], [[], []]);
});

test("damage in the middle costs only what it hit, is reported, and the file is kept", async () => {
  const { path, ids, ends } = await threeGroups();
  const bytes = readFileSync(path);
  bytes.writeUInt8(bytes.readUInt8((ends[0] ?? 0) + 100) ^ 1, (ends[0] ?? 0) + 100);
  writeFileSync(path, bytes);
  const { warnings, log: quiet } = warned();
  {
    await using log = open({ log: quiet });
    await log.settled();
  }
  assert.deepEqual(await stored(ids), [ids[0], ids[2]].sort());
  const [begin = 0, end = 0] = ends;
  assert.deepEqual(
    warnings.map(({ message, at, bytes }) => [message, at, bytes]),
    [["journal damaged: the file is kept", begin, end - begin]],
  );
  const [kept] = readdirSync(folder);
  assert.match(kept ?? "", /\.damaged$/);
  assert.deepEqual(readFileSync(join(folder, kept ?? "")), bytes);
  // Nobody takes it for a journal again.
  {
    await using log = open();
    await log.settled();
  }
  assert.deepEqual(readdirSync(folder), [kept]);
});

test("a row that the database refuses is kept in a file, and its company is stored", async () => {
  const rows = [...many(3), newInteraction({ id: "no-uuid", route: "/odd" }), ...many(3)];
  {
    await using log = open();
    await record(log, ...rows);
    await log.settled();
    const good = rows.filter(({ route }) => route === "/chat").map(({ id }) => id);
    assert.deepEqual(await stored(good), good.sort());
  }
  const [content, own] = readFileSync(join(folder, "refused.jsonl"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.deepEqual([content.response, own.id, own.route], ["Hello", "no-uuid", "/odd"]);
});

test("interactions that share what was asked and answered have it in the journal once", async () => {
  const { content } = newInteraction({}, { text: "x".repeat(100_000) });
  const rows = Array.from({ length: 50 }, () => ({ ...newInteraction({ cache: "HIT" }), content }));
  {
    await using log = open({ pool: nothing });
    for (const row of rows) await log.record(row);
    assert.ok(log.status().bytes < 100_000 + 50 * 400, `${log.status().bytes} bytes`);
  }
  await using log = open();
  await log.settled();
  const { rows: found } = await query<{ n: number; chars: number; hits: number }>(
    pool,
    `select count(*)::int as n, min(length(response)) as chars, sum(cached::int)::int as hits
     from interactions where id = any($1)`,
    [rows.map(({ id }) => id)],
  );
  assert.deepEqual(found, [{ n: 50, chars: 100_000, hits: 50 }]);
});

test("a journal of many segments is read through, and none of them is left", async () => {
  const texts = Array.from({ length: 20 }, (_, index) => `${index}`.repeat(500_000));
  const ids: string[] = [];
  {
    await using log = open({ pool: nothing });
    for (const text of texts) ids.push(...(await record(log, newInteraction({}, { text }))));
    assert.ok(files(".journal").length > 1);
  }
  {
    await using log = open();
    await eventually(
      () => log.settled().then(() => log.status().bytes),
      (bytes) => bytes === 0,
    );
    assert.deepEqual(await stored(ids), [...ids].sort());
  }
  assert.deepEqual(readdirSync(folder), []);
});

test("what is to be redacted is nowhere on disk, whatever part of a call it stood in", async () => {
  const secret = "+44 7700 900123";
  const said = { content: `call ${secret}, then "${secret}"` };
  const one = newInteraction(
    { error: `no answer for ${secret}`, outcome: "upstream-failed" },
    {
      model: "m",
      promptJson: JSON.stringify([{ role: "user", ...said }]),
      parameters: { stop: [secret], temperature: 0.5 },
      text: said.content,
      reasoning: `they ask for ${secret}`,
      toolCalls: [{ id: "1", function: { name: "call", arguments: JSON.stringify(said) } }],
    },
  );
  const redact = redactionOf([/\+?\d[\d ]{8,}\d/gu]);
  {
    await using log = open({ pool: nothing, redact });
    await record(log, one);
    assert.doesNotMatch(readFileSync(join(folder, files(".journal")[0] ?? ""), "utf8"), /7700/);
  }
  await using log = open();
  await log.settled();
  const { rows } = await query(pool, "select * from interactions where id = $1", [one.id]);
  const [row] = rows;
  assert.doesNotMatch(JSON.stringify(row), /7700/);
  assert.deepEqual(
    [row?.prompt, row?.response, row?.parameters, row?.error],
    [
      [{ role: "user", content: 'call [redacted], then "[redacted]"' }],
      'call [redacted], then "[redacted]"',
      { stop: ["[redacted]"], temperature: 0.5 },
      "no answer for [redacted]",
    ],
  );
});

test("what is deleted does not come back with the journal of a process that is killed", async () => {
  await using log = open();
  const [id = ""] = await record(log, newInteraction());
  await log.leaveJournal();
  await query(pool, "delete from interactions where id = $1", [id]);
  // All that a process that is killed now would leave.
  const left = files(".journal").map((name) => readFileSync(join(folder, name), "utf8"));
  assert.ok(left.every((text) => !text.includes(id)));
  const [next = ""] = await record(log, newInteraction());
  await log.settled();
  assert.deepEqual(await stored([id, next]), [next]);
});

test("nothing can be deleted while the journal holds what the database does not have", async () => {
  await using log = open({ pool: nothing });
  await record(log, newInteraction());
  await assert.rejects(log.leaveJournal(), { code: "database-away" });
});
