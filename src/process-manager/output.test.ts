import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { open, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { defineService } from "./definition.ts";
import { eventually, Fixture, isAlive, newLogFile, recordOf, untilState } from "./fixture.ts";
import { closePipe, PipePool } from "./output-pipe.ts";
import { OutputReader } from "./output-reader.ts";
import { ServiceLog } from "./service-log.ts";

const once = { policy: "never" } as const;
const large = { fileMaxBytes: 1e9, files: 1 };

/** Writes numbered lines with write(2) to a descriptor, and after each write notes in a file up to where. */
const floodScript = `
const fs = require("node:fs");
const [, , lines, progress, ...descriptors] = process.argv;
const file = progress && fs.openSync(progress, "w");
for (let n = 0; n < Number(lines); n += 100) {
  for (const fd of descriptors) {
    let text = "";
    for (let i = n; i < n + 100; i += 1) text += fd + " line " + i + " " + "x".repeat(i % 97) + "\\n";
    fs.writeSync(Number(fd), text);
  }
  if (file) fs.writeSync(file, String(n + 100), 0);
}`;

function floodLine(descriptor: number, n: number): string {
  return `${descriptor} line ${n} ${"x".repeat(n % 97)}`;
}

async function logOf(fixture: Fixture, name: string): Promise<string> {
  return await readFile(join(fixture.home, "logs", `${name}.log`), "utf8");
}

test("a program that opens /dev/stdout and /dev/stderr by name is heard", async (t) => {
  const fixture = await Fixture.create(t);
  const command = ["/bin/sh", "-c", "echo one >/dev/stdout; echo two >/dev/stderr; exit 1"] as const;
  const manager = await fixture.open([defineService({ name: "job", command, restart: once })]);
  await manager.start();
  await untilState(manager, "job", "failed");
  await manager.stopAll();
  assert.deepEqual((await logOf(fixture, "job")).split("\n").sort(), ["", "one", "two"]);
});

test("a child has its own three descriptors and none of another's", async (t) => {
  const fixture = await Fixture.create(t);
  const command = ["/bin/sh", "-c", "ls /proc/self/fd; exit 1"] as const;
  // Its own three, the folder that ls reads, and whatever the test runner's own parent left open for everybody.
  const usual = execFileSync("/bin/sh", ["-c", "ls /proc/self/fd"], { encoding: "utf8" });
  const names = ["one", "two", "three"];
  const manager = await fixture.open(names.map((name) => defineService({ name, command, restart: once })));
  await manager.start();
  for (const name of names) await untilState(manager, name, "failed");
  await manager.stopAll();
  for (const name of names) assert.equal(await logOf(fixture, name), usual);
});

test("of a child killed in the middle of a flood, every write that returned is in the log", async (t) => {
  const fixture = await Fixture.create(t);
  const script = await fixture.script("flood.cjs", floodScript);
  const progress = join(fixture.folder, "progress");
  const manager = await fixture.open([
    defineService({
      name: "flood",
      command: [process.execPath, script, "100000000", progress, "1"],
      restart: once,
      logs: large,
    }),
  ]);
  await manager.start();
  await eventually("20 MB are written", async () => {
    assert.ok(Number(await readFile(progress, "utf8")) > 350_000);
  });
  const { pid } = recordOf(manager, "flood");
  assert.ok(pid);
  process.kill(pid, "SIGKILL");
  await untilState(manager, "flood", "failed");
  const returned = Number(await readFile(progress, "utf8"));
  await manager.stopAll();
  const lines = (await logOf(fixture, "flood")).split("\n");
  const last = lines.pop() ?? "";
  assert.ok(lines.length >= returned, `${lines.length} lines of ${returned}`);
  lines.forEach((line, n) => {
    assert.equal(line, floodLine(1, n));
  });
  assert.ok(floodLine(1, lines.length).startsWith(last), "what is left is the beginning of the next line");
});

test("two services that flood both streams at once lose, break and mix up nothing", async (t) => {
  const fixture = await Fixture.create(t);
  const script = await fixture.script("flood.cjs", floodScript);
  const names = ["left", "right"];
  const command = [process.execPath, script, "60000", "", "1", "2"] as const;
  const manager = await fixture.open(
    names.map((name) => defineService({ name, command, restart: { policy: "on-failure" }, logs: large })),
  );
  await manager.start();
  for (const name of names) {
    await untilState(manager, name, "stopped");
    const lines = (await logOf(fixture, name)).trimEnd().split("\n");
    for (const descriptor of [1, 2]) {
      const own = lines.filter((line) => line.startsWith(`${descriptor} `));
      assert.equal(own.length, 60_000);
      own.forEach((line, n) => {
        assert.equal(line, floodLine(descriptor, n));
      });
    }
    assert.equal(lines.length, 120_000);
  }
});

test("a stranger who holds the pipe of a dead process holds nobody up", async (t) => {
  const fixture = await Fixture.create(t);
  // It has left the group and lost our mark when it tells its parent to die.
  const stranger = "echo $$; kill -USR1 $PARENT; exec sleep 1000";
  const script = `trap 'exit 1' USR1; env -i PATH="$PATH" PARENT=$$ setsid sh -c '${stranger}' & wait`;
  const command = ["/bin/sh", "-c", script] as const;
  const manager = await fixture.open([defineService({ name: "job", command, restart: once })]);
  await manager.start();
  await untilState(manager, "job", "failed");
  await manager.stopAll();
  const pid = Number(await logOf(fixture, "job"));
  assert.ok(pid);
  assert.equal(await isAlive(pid), true);
  process.kill(pid, "SIGKILL");
});

test("without pipes, socket pairs carry the same bytes", async (t) => {
  const fixture = await Fixture.create(t);
  const script = await fixture.script("flood.cjs", floodScript);
  // A folder cannot be made in a file: so it is where the file system has no named pipes.
  const pool = new PipePool(join(script, "pipes"), 4);
  const log = new ServiceLog("flood", newLogFile(join(fixture.folder, "flood.log"), large), pool);
  const output = await log.openOutput();
  assert.deepEqual(output.stdio, ["pipe", "pipe"]);
  const child = spawn(process.execPath, [script, "60000", "", "1"], { stdio: ["ignore", ...output.stdio] });
  output.attach(child);
  await new Promise((resolve) => child.on("exit", resolve));
  await output.drain(10_000);
  await log.close();
  const lines = (await readFile(join(fixture.folder, "flood.log"), "utf8")).trimEnd().split("\n");
  assert.equal(lines.length, 60_000);
  lines.forEach((line, n) => {
    assert.equal(line, floodLine(1, n));
  });
});

test("pipes that could not be made are there again once they can be", async (t) => {
  const fixture = await Fixture.create(t);
  const folder = await fixture.script("pipes", "a file, where the folder should be");
  const pool = new PipePool(join(folder, "of-manager"), 2, 0);
  assert.equal(await pool.take(), null);
  await rm(folder);
  const pipe = await pool.take();
  assert.ok(pipe);
  closePipe(pipe);
  await pool.close();
});

test("while the disk stalls a stream waits, with bounded memory, and then goes on where it was", async (t) => {
  const fixture = await Fixture.create(t);
  // A named pipe that nobody reads is a disk that takes 64 KiB and then nothing.
  const path = join(fixture.folder, "stalled.log");
  execFileSync("/bin/sh", ["-c", 'mkfifo "$0"', path]);
  const pool = new PipePool(join(fixture.folder, "pipes"), 2);
  const log = new ServiceLog("stalled", newLogFile(path, large), pool);
  const resumed = Promise.withResolvers<void>();
  const reader = new OutputReader("stdout", log, resumed.resolve);
  const line = "x".repeat(999);
  const text = Buffer.from(Array.from({ length: 4_000 }, (_, n) => `${n} ${line}\n`).join(""));
  let taken = 0;
  const takeSome = (): boolean => {
    const length = text.copy(reader.room(), 0, taken, Math.min(text.length, taken + 64_000));
    taken += length;
    return reader.took(length);
  };
  while (takeSome()) assert.ok(taken < 1_000_000, `${taken} bytes wait for the disk`);
  assert.equal(reader.isPaused, true);
  const disk = await open(path, "r");
  const got: Buffer[] = [];
  const reading = (async () => {
    for (let size = 0; size < text.length; ) {
      const { bytesRead, buffer } = await disk.read(Buffer.alloc(64 * 1024));
      got.push(buffer.subarray(0, bytesRead));
      size += bytesRead;
    }
  })();
  await resumed.promise;
  while (taken < text.length) {
    if (reader.isPaused) await new Promise(setImmediate);
    else takeSome();
  }
  await reading;
  await disk.close();
  await Promise.all([log.close(), pool.close()]);
  assert.equal(Buffer.concat(got).equals(text), true);
});

test("a line longer than 64 KiB passes in pieces, whole", async (t) => {
  const fixture = await Fixture.create(t);
  const pool = new PipePool(join(fixture.folder, "pipes"), 2);
  const log = new ServiceLog("job", newLogFile(join(fixture.folder, "job.log"), large), pool);
  const output = await log.openOutput();
  const script = "process.stdout.write('a\\n' + 'x'.repeat(1e6) + '\\nb\\n' + 'y'.repeat(1e5))";
  const job = spawn(process.execPath, ["-e", script], { stdio: ["ignore", ...output.stdio] });
  output.attach(job);
  await new Promise((resolve) => job.on("exit", resolve));
  await output.drain(10_000);
  await Promise.all([log.close(), pool.close()]);
  const text = await readFile(join(fixture.folder, "job.log"), "utf8");
  assert.equal(text, `a\n${"x".repeat(1e6)}\nb\n${"y".repeat(1e5)}`);
});
