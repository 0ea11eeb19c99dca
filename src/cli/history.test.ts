import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { eventually, startChat, type TestChat } from "../../test/lm-studio/chat-server.ts";
import { type LmStudio, startLmStudio } from "../../test/lm-studio/lm-studio.ts";
import { type TestDatabase, testDatabase } from "../../test/support/postgres.ts";
import { openPool } from "../store/pool.ts";

let database: TestDatabase;
let lm: LmStudio;
let server: TestChat;
const home = mkdtempSync(join(tmpdir(), "pugmark-history-"));

before(async () => {
  database = await testDatabase();
  lm = await startLmStudio();
  server = await startChat(lm, database.url);
  for (const prompt of ["Where does it roost?", "Where does it feed?"]) {
    await server.post("/chat", { prompt, session_id: prompt.includes("feed") ? "trip" : undefined });
  }
});
after(async () => {
  await server[Symbol.asyncDispose]();
  await lm[Symbol.asyncDispose]();
  await database[Symbol.asyncDispose]();
  rmSync(home, { recursive: true });
});

/** Runs `pugmark history` as a user would, in front of the chat server at this URL. */
function history(
  url: string,
  ...args: readonly string[]
): Promise<{ code: number; out: string; err: string }> {
  const { PATH = "" } = process.env;
  const env = { PATH, HOME: home, PUGMARK_HOME: home, CHAT_PORT: new URL(url).port };
  return new Promise((resolve) => {
    const main = join(import.meta.dirname, "main.ts");
    const child = execFile(process.execPath, [main, "history", ...args], { env }, (_error, out, err) =>
      resolve({ code: child.exitCode ?? -1, out, err }),
    );
  });
}

test("past calls are listed newest first, and found by words, session and time", async () => {
  const { code, out, err } = await history(server.url);
  assert.deepEqual([code, err], [0, ""]);
  const call = (asked: string) =>
    `\\d{4}-\\d\\d-\\d\\d [\\d:]{8}  deepseek-r1-distill-qwen-7b  \\d+\\.\\d\\d s\\n> ${asked}\\?\\nYou asked: ${asked}\\?\\n\\n`;
  assert.match(out, new RegExp(`^${call("Where does it feed")}${call("Where does it roost")}$`));
  assert.match(
    (await history(server.url, "--q", "roost")).out,
    new RegExp(`^${call("Where does it roost")}$`),
  );
  assert.match(
    (await history(server.url, "--session", "trip")).out,
    new RegExp(`^${call("Where does it feed")}$`),
  );
  assert.match((await history(server.url, "--since", "2100-01-01")).out, /^No calls of a model/);
  assert.match((await history(server.url, "--limit", "1")).err, /^There are more/);
  const [row] = JSON.parse((await history(server.url, "--json", "--q", "feed")).out);
  assert.equal(row.session_id, "trip");
});

test("calls that the mirror brought are shown with their station, where those are asked for", async () => {
  const hill = "00000000-0000-4000-8000-00000000aaaa";
  const pool = openPool({ url: database.url, name: "test" });
  try {
    await pool.query("insert into stations (id, name, station_id, changed_by) values ($1, 'hill', $1, $1)", [
      hill,
    ]);
    // As the mirror stores one: all of this station's row but whose it is.
    await pool.query(
      `insert into interactions select (json_populate_record(i, json_build_object(
         'id', gen_random_uuid(), 'station_id', $1::uuid, 'response', 'On the hill.'))).*
       from interactions i where session_id = 'trip'`,
      [hill],
    );
    const own = JSON.parse((await history(server.url, "--json")).out);
    assert.deepEqual(
      own.map(({ station }: { station: unknown }) => station),
      [null, null],
    );
    assert.match(
      (await history(server.url, "--station", "hill")).out,
      /^[^\n]+ {2}at hill\n[^\n]+\nOn the hill\.\n\n$/,
    );
    const [theirs] = JSON.parse((await history(server.url, "--station", hill, "--json")).out);
    assert.equal(theirs.station, "hill");
    assert.equal(JSON.parse((await history(server.url, "--station", "all", "--json")).out).length, 3);
    const exported = await history(server.url, "export", "-", "--station", "hill");
    assert.equal(JSON.parse(exported.out).response, "On the hill.");
    const one = await fetch(`${server.url}/interactions/${theirs.id}`);
    assert.equal(((await one.json()) as { station: string }).station, "hill");
    const unknown = await history(server.url, "--station", "valley");
    assert.equal(unknown.code, 1);
    assert.match(unknown.err, /No other station of that name or id is known here; there are: hill\./);
    const gone = await fetch(`${server.url}/interactions/${theirs.id}`, { method: "DELETE" });
    assert.equal(gone.status, 404);
  } finally {
    await pool.query("delete from interactions where station_id = $1", [hill]);
    await pool.end();
  }
});

test("an export goes to a file or to standard output, whole calls on their lines", async () => {
  const file = join(home, "calls.jsonl");
  assert.deepEqual(await history(server.url, "export", file), { code: 0, out: "", err: "" });
  const rows = readFileSync(file, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    rows.map(({ response }) => response),
    ["You asked: Where does it feed?", "You asked: Where does it roost?"],
  );
  const { out } = await history(server.url, "export", "-", "--session", "trip");
  assert.deepEqual(JSON.parse(out), rows[0]);
});

test("an export that breaks off leaves no file, and says so", async (t) => {
  const half = createServer((_request, response) => {
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    response.write('{"id":"1"}\n', () => response.destroy());
  });
  await new Promise<void>((resolve) => half.listen(0, "127.0.0.1", resolve));
  t.after(() => half.close());
  const { port } = half.address() as { port: number };
  const before = readdirSync(home);
  const { code, err } = await history(`http://127.0.0.1:${port}`, "export", join(home, "half.jsonl"));
  assert.equal(code, 1);
  assert.match(err, /broke off/);
  assert.deepEqual(readdirSync(home), before);
});

test("an export that is interrupted, once or by npm twice, leaves no file", async (t) => {
  const slow = createServer((_request, response) => {
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    response.write('{"id":"1"}\n');
  });
  await new Promise<void>((resolve) => slow.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    slow.close();
    slow.closeAllConnections();
  });
  const { port } = slow.address() as { port: number };
  const before = readdirSync(home);
  const { PATH = "" } = process.env;
  const env = { PATH, HOME: home, PUGMARK_HOME: home, CHAT_PORT: String(port) };
  const args = [join(import.meta.dirname, "main.ts"), "history", "export", join(home, "slow.jsonl")];
  for (const times of [1, 2]) {
    const child = spawn(process.execPath, args, { env, stdio: ["ignore", "inherit", "inherit"] });
    await eventually(
      async () => readdirSync(home),
      (names) => names.includes("slow.jsonl.part"),
    );
    for (let time = 0; time < times; time += 1) child.kill("SIGINT");
    const [code] = await once(child, "close");
    assert.equal(code, 130);
    assert.deepEqual(readdirSync(home), before);
  }
});

test("a file that cannot be written is named", async () => {
  const { code, err } = await history(server.url, "export", join(home, "nowhere", "calls.jsonl"));
  assert.equal(code, 1);
  assert.match(err, /nowhere\/calls\.jsonl.* cannot be written \(ENOENT\)/);
});
