import assert from "node:assert/strict";
import { once } from "node:events";
import { appendFile, mkdtemp, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { newLogFile } from "./fixture.ts";
import type { LogFile, LogSource } from "./log-file.ts";
import { pastLines } from "./log-follower.ts";
import { type LogLine, type LogRange, LogReader } from "./log-reader.ts";

const stdout: LogSource = { stream: "stdout" };
const stderr: LogSource = { stream: "stderr" };
const large = { fileMaxBytes: 1e9, files: 1 };

async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "log-reader-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function linesOf(path: string, range: LogRange = {}): Promise<LogLine[]> {
  const reader = await LogReader.open("x", path, range);
  const lines: LogLine[] = [];
  for (let batch = await reader.nextPast(true); batch; batch = await reader.nextPast(true))
    lines.push(...batch);
  await reader.close();
  return lines;
}

const textOf = (lines: readonly LogLine[]): string[] => lines.map(({ line }) => line);

/** Appends and resolves when it is in the file, at the time of the test's clock. */
async function write(log: LogFile, text: string, source: LogSource = stdout): Promise<void> {
  log.append(Buffer.from(text), source);
  await log.inOrder(async () => undefined);
}

test("lines read back say when they came and from which stream, and the log has no byte of that", async (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: Date.parse("2026-03-01T10:00:00.000Z") });
  const path = join(await temporaryFolder(t), "x.log");
  const log = newLogFile(path, large);
  await write(log, "one\ntwo\n");
  t.mock.timers.setTime(Date.parse("2026-03-01T10:00:05.000Z"));
  await write(log, "oops\n", stderr);
  await write(log, "three\n");
  await log.close();
  assert.equal(await readFile(path, "utf8"), "one\ntwo\noops\nthree\n");
  assert.deepEqual(
    (await linesOf(path)).map(({ at, stream, line }) => [at, stream, line]),
    [
      ["2026-03-01T10:00:00.000Z", "stdout", "one"],
      ["2026-03-01T10:00:00.000Z", "stdout", "two"],
      ["2026-03-01T10:00:05.000Z", "stderr", "oops"],
      ["2026-03-01T10:00:05.000Z", "stdout", "three"],
    ],
  );
});

test("a flood costs the index one entry for what comes together", async (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: 1_000_000 });
  const path = join(await temporaryFolder(t), "x.log");
  const log = newLogFile(path, large);
  for (let n = 0; n < 100; n += 1) await write(log, `${n}\n`);
  t.mock.timers.setTime(1_000_010);
  await write(log, "later\n");
  await log.close();
  assert.equal((await stat(`${path}.index`)).size, 32);
});

test("a range of time is found through the index, and ends where it ends", async (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: 0 });
  const path = join(await temporaryFolder(t), "x.log");
  const log = newLogFile(path, { fileMaxBytes: 300, files: 100 });
  for (let n = 0; n < 500; n += 1) {
    t.mock.timers.setTime(n * 1_000);
    await write(log, `line ${n}\n`);
  }
  await log.close();
  const lines = await linesOf(path, { sinceMs: 100_000, untilMs: 399_000 });
  assert.deepEqual(
    textOf(lines),
    Array.from({ length: 300 }, (_, index) => `line ${index + 100}`),
  );
});

test("a torn, lost or foreign index only means that less is known", async (t) => {
  const path = join(await temporaryFolder(t), "x.log");
  const write3 = async (): Promise<void> => {
    const log = newLogFile(path, large);
    await write(log, "one\n", stdout);
    await write(log, "two\n", stderr);
    await write(log, "three\n", stdout);
    await log.close();
  };
  const streams = async (): Promise<unknown[]> => (await linesOf(path)).map(({ stream }) => stream);
  await write3();
  await truncate(`${path}.index`, 40);
  assert.deepEqual(await streams(), ["stdout", "stderr", null]);
  await write3();
  assert.deepEqual(await streams(), ["stdout", "stderr", null, "stdout", "stderr", "stdout"]);
  await writeFile(`${path}.index`, Buffer.alloc(64));
  assert.deepEqual(new Set(await streams()), new Set([null]));
  await rm(`${path}.index`);
  assert.deepEqual(new Set(await streams()), new Set([null]));
  assert.deepEqual(textOf(await linesOf(path)), ["one", "two", "three", "one", "two", "three"]);
});

test("what was noted and then never written is not taken for what comes instead", async (t) => {
  const path = join(await temporaryFolder(t), "x.log");
  const log = newLogFile(path, large);
  await write(log, "one\n", stdout);
  await write(log, "lost with the power\n", stderr);
  await log.close();
  await truncate(path, 4);
  const again = newLogFile(path, large);
  await write(again, "two\n", stdout);
  await again.close();
  const lines = await linesOf(path);
  assert.deepEqual(
    lines.map(({ line, stream }) => [line, stream]),
    [
      ["one", "stdout"],
      ["two", "stdout"],
    ],
  );
});

test("the last lines are found however many files back they begin", async (t) => {
  const path = join(await temporaryFolder(t), "x.log");
  const log = newLogFile(path, { fileMaxBytes: 12, files: 9 });
  log.append(Buffer.from("one\ntwo\nthree\nfour\nfive\n\nseven"), stdout);
  await log.close();
  assert.deepEqual(textOf(await linesOf(path, { tailLines: 1 })), ["seven"]);
  assert.deepEqual(textOf(await linesOf(path, { tailLines: 3 })), ["five", "", "seven"]);
  assert.deepEqual(textOf(await linesOf(path, { tailLines: 6 })), [
    "two",
    "three",
    "four",
    "five",
    "",
    "seven",
  ]);
  assert.deepEqual((await linesOf(path, { tailLines: 99 })).length, 7);
  assert.deepEqual(await linesOf(path, { tailLines: 0 }), []);
  assert.deepEqual(await linesOf(join(path, "nowhere"), { tailLines: 5 }), []);
});

test("a reader goes through a log that is written to and turned meanwhile, with no line twice or left out", async (t) => {
  const path = join(await temporaryFolder(t), "x.log");
  const log = newLogFile(path, { fileMaxBytes: 2_000, files: 1_000 });
  const total = 20_000;
  const writing = (async () => {
    for (let n = 0; n < total; n += 10) {
      log.append(Buffer.from(Array.from({ length: 10 }, (_, index) => `${n + index}\n`).join("")), stdout);
      if (n % 200 === 0) await log.inOrder(async () => undefined);
    }
    await log.close();
  })();
  const reader = await LogReader.open("x", path);
  let next = 0;
  while (next < total) {
    const lines = await reader.next();
    for (const { line } of lines ?? []) {
      assert.equal(line, String(next));
      next += 1;
    }
    if (!lines) await new Promise(setImmediate);
  }
  await reader.close();
  await writing;
});

test("a reader that skips says how many bytes it left out, also across files", async (t) => {
  const path = join(await temporaryFolder(t), "x.log");
  const log = newLogFile(path, { fileMaxBytes: 100_000, files: 100 });
  const reader = await LogReader.open("x", path);
  for (let n = 0; n < 50_000; n += 1) log.append(Buffer.from(`line ${n}\n`), stdout);
  await log.close();
  const [first] = (await reader.next()) ?? [];
  assert.equal(first?.line, "line 0");
  const before = await reader.behindBytes();
  const { droppedBytes = 0 } = await reader.skip();
  assert.equal(before - (await reader.behindBytes()), droppedBytes);
  let last = "";
  for (let lines = await reader.next(); lines; lines = await reader.next()) {
    for (const { line } of lines) assert.match(line, /^line \d+$/);
    last = lines.at(-1)?.line ?? "";
  }
  await reader.close();
  assert.equal(last, "line 49999");
});

test("a last line that is still being written is waited for, a line of a dead process is not", async (t) => {
  const path = join(await temporaryFolder(t), "x.log");
  await writeFile(path, "one\nhalf a ");
  const reader = await LogReader.open("x", path);
  assert.deepEqual(textOf((await reader.next()) ?? []), ["one"]);
  assert.equal(await reader.next(), null);
  await appendFile(path, "line\nlast words");
  assert.deepEqual(textOf((await reader.next()) ?? []), ["half a line"]);
  assert.equal(await reader.next(), null);
  assert.deepEqual(textOf((await reader.next(true)) ?? []), ["last words"]);
  await reader.close();
});

test("several logs are read as one, in the order of their times", async (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: 0 });
  const folder = await temporaryFolder(t);
  const names = ["a", "b", "c"];
  const logs = names.map((name) => newLogFile(join(folder, `${name}.log`), { fileMaxBytes: 200, files: 99 }));
  for (let n = 0; n < 300; n += 1) {
    t.mock.timers.setTime(n * 100);
    const log = logs[(n * 7) % 3];
    assert.ok(log);
    await write(log, `${n}\n`);
  }
  await Promise.all(logs.map((log) => log.close()));
  const readers = await Promise.all(names.map((name) => LogReader.open(name, join(folder, `${name}.log`))));
  const merged: string[] = [];
  for await (const lines of pastLines(readers, true)) merged.push(...textOf(lines));
  for (const reader of readers) await reader.close();
  assert.deepEqual(
    merged,
    Array.from({ length: 300 }, (_, n) => String(n)),
  );
});

test("a file of a log that cannot be opened is an error, and not looked at again and again", async (t) => {
  const path = join(await temporaryFolder(t), "x.log");
  const server = net.createServer().listen(`${path}.1`); // a socket has a name and a size, and cannot be opened
  t.after(() => server.close());
  await once(server, "listening");
  await assert.rejects(LogReader.open("x", path), { code: "ENXIO" });
});
