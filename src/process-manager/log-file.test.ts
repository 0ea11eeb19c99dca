import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { newLogFile } from "./fixture.ts";
import type { LogSource } from "./log-file.ts";

const source: LogSource = { stream: null };

async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "log-file-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

test("a log whose folder was deleted begins anew", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "logs", "x.log");
  const log = newLogFile(path);
  log.append(Buffer.from("before\n"), source);
  await log.inOrder(async () => undefined);
  await rm(join(folder, "logs"), { recursive: true });
  log.append(Buffer.from("after\n"), source);
  await log.close();
  assert.equal(await readFile(path, "utf8"), "after\n");
});

test("a line longer than a whole file stays in one piece", async (t) => {
  const path = join(await temporaryFolder(t), "x.log");
  const log = newLogFile(path, { fileMaxBytes: 10, files: 3 });
  log.append(Buffer.from(`short\n${"x".repeat(100)}\nlast\n`), source);
  await log.close();
  assert.equal(await readFile(`${path}.2`, "utf8"), "short\n");
  assert.equal(await readFile(`${path}.1`, "utf8"), `${"x".repeat(100)}\n`);
  assert.equal(await readFile(path, "utf8"), "last\n");
});

test("the next process's first line is not glued to a last one without end, in this run or the next", async (t) => {
  const path = join(await temporaryFolder(t), "x.log");
  const log = newLogFile(path);
  log.append(Buffer.from("cut off"), { stream: null });
  log.append(Buffer.from("next\n"), { stream: null });
  log.append(Buffer.from("killed here"), { stream: null });
  await log.close();
  const again = newLogFile(path);
  again.append(Buffer.from("later\n"), { stream: null });
  await again.close();
  assert.equal(await readFile(path, "utf8"), "cut off\nnext\nkilled here\nlater\n");
});

test("what the disk will not take is counted, and the log says so once it can", async (t) => {
  const folder = await temporaryFolder(t);
  const logs = join(folder, "logs");
  await writeFile(logs, "a file where the folder should be");
  const log = newLogFile(join(logs, "x.log"));
  log.append(Buffer.from("lost\n"), source);
  await log.inOrder(async () => undefined);
  await rm(logs);
  await mkdir(logs);
  log.append(Buffer.from("kept\n"), source);
  await log.close();
  const text = await readFile(join(logs, "x.log"), "utf8");
  assert.match(text, /^\[process-manager\] 5 bytes of this log were lost: .+\nkept\n$/);
});

test("a file that has become too old is turned by the next line, also one that an earlier manager began", async (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: 1_000 });
  const path = join(await temporaryFolder(t), "x.log");
  const write = async (text: string): Promise<void> => {
    const log = newLogFile(path, { fileMaxAgeMs: 5_000 });
    log.append(Buffer.from(text), source);
    await log.close();
  };
  await write("one\n");
  t.mock.timers.setTime(5_999);
  await write("two\n");
  t.mock.timers.setTime(6_000);
  await write("three\n");
  assert.equal(await readFile(`${path}.1`, "utf8"), "one\ntwo\n");
  assert.equal(await readFile(path, "utf8"), "three\n");
});

test("where all logs together grow too large, the oldest files go, of any log, with their index", async (t) => {
  const folder = await temporaryFolder(t);
  const line = `${"x".repeat(999)}\n`;
  const quiet = newLogFile(join(folder, "quiet.log"), { fileMaxBytes: 1_000, files: 99 });
  for (let n = 0; n < 3; n += 1) quiet.append(Buffer.from(line), source);
  await quiet.close();
  const loud = newLogFile(join(folder, "loud.log"), { fileMaxBytes: 1_000, files: 99 }, 10_000);
  for (let n = 0; n < 20; n += 1) loud.append(Buffer.from(line), source);
  await loud.close();
  const names = await readdir(folder);
  const bytes = await Promise.all(names.map(async (name) => (await stat(join(folder, name))).size));
  assert.ok(bytes.reduce((sum, size) => sum + size, 0) <= 11_100, names.join());
  assert.ok(names.includes("quiet.log"), "a current file stays");
  assert.deepEqual(
    names.filter((name) => /^quiet\.log\.\d/.test(name)),
    [],
  );
  for (const name of names.filter((one) => one.endsWith(".index")))
    assert.ok(names.includes(name.slice(0, -".index".length)), name);
});

test("a file that cannot be turned grows, and loses nothing", async (t) => {
  const path = join(await temporaryFolder(t), "x.log");
  // A folder that is not empty stands where the old file would go.
  await mkdir(join(`${path}.1`, "in-the-way"), { recursive: true });
  const log = newLogFile(path, { fileMaxBytes: 8, files: 1 });
  for (const word of ["one", "two", "three", "four"]) log.append(Buffer.from(`${word}\n`), source);
  await log.close();
  assert.equal(await readFile(path, "utf8"), "one\ntwo\nthree\nfour\n");
});
