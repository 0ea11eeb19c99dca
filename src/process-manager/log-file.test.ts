import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { LogFile, type LogSource } from "./log-file.ts";

const source: LogSource = { stream: null };

async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "log-file-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

test("a log whose folder was deleted begins anew", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "logs", "x.log");
  const log = new LogFile(path);
  log.append(Buffer.from("before\n"), source);
  await log.inOrder(async () => undefined);
  await rm(join(folder, "logs"), { recursive: true });
  log.append(Buffer.from("after\n"), source);
  await log.close();
  assert.equal(await readFile(path, "utf8"), "after\n");
});

test("a line longer than a whole file stays in one piece", async (t) => {
  const path = join(await temporaryFolder(t), "x.log");
  const log = new LogFile(path, { maxBytes: 10, files: 3 });
  log.append(Buffer.from(`short\n${"x".repeat(100)}\nlast\n`), source);
  await log.close();
  assert.equal(await readFile(`${path}.2`, "utf8"), "short\n");
  assert.equal(await readFile(`${path}.1`, "utf8"), `${"x".repeat(100)}\n`);
  assert.equal(await readFile(path, "utf8"), "last\n");
});

test("the next process's first line is not glued to a last one without end, in this run or the next", async (t) => {
  const path = join(await temporaryFolder(t), "x.log");
  const log = new LogFile(path);
  log.append(Buffer.from("cut off"), { stream: null });
  log.append(Buffer.from("next\n"), { stream: null });
  log.append(Buffer.from("killed here"), { stream: null });
  await log.close();
  const again = new LogFile(path);
  again.append(Buffer.from("later\n"), { stream: null });
  await again.close();
  assert.equal(await readFile(path, "utf8"), "cut off\nnext\nkilled here\nlater\n");
});

test("what the disk will not take is counted, and the log says so once it can", async (t) => {
  const folder = await temporaryFolder(t);
  const logs = join(folder, "logs");
  await writeFile(logs, "a file where the folder should be");
  const log = new LogFile(join(logs, "x.log"));
  log.append(Buffer.from("lost\n"), source);
  await log.inOrder(async () => undefined);
  await rm(logs);
  await mkdir(logs);
  log.append(Buffer.from("kept\n"), source);
  await log.close();
  const text = await readFile(join(logs, "x.log"), "utf8");
  assert.match(text, /^\[process-manager\] 5 bytes of this log were lost: .+\nkept\n$/);
});
