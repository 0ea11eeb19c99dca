import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { defineService } from "./definition.ts";
import { eventually, Fixture, forever, untilState } from "./fixture.ts";
import type { LogLine } from "./log-reader.ts";

const once = { policy: "never" } as const;

test("output is kept byte for byte, also a last line without an end", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({
      name: "job",
      command: ["/bin/sh", "-c", "printf 'äöü\\n\\000\\377\\nlast words'; exit 1"],
      restart: once,
    }),
  ]);
  await manager.start();
  await untilState(manager, "job", "failed");
  await manager.stopAll();
  const bytes = await readFile(join(fixture.home, "logs", "job.log"));
  assert.deepEqual(
    bytes,
    Buffer.concat([Buffer.from("äöü\n"), Buffer.from([0, 255, 10]), Buffer.from("last words")]),
  );
});

test("a flood goes through turned files with no line lost, broken or out of order", async (t) => {
  const fixture = await Fixture.create(t);
  const script = await fixture.script(
    "flood.cjs",
    `const lines = 40000;
     for (let n = 0; n < lines; n += 1) process.stdout.write("line " + n + " " + "x".repeat(n % 97) + "\\n");`,
  );
  const manager = await fixture.open([
    defineService({
      name: "flood",
      command: [process.execPath, script],
      restart: { policy: "on-failure" },
      logs: { fileMaxBytes: 100_000, files: 50 },
    }),
  ]);
  await manager.start();
  await untilState(manager, "flood", "ready");
  await untilState(manager, "flood", "stopped");
  await manager.stopAll();
  const folder = join(fixture.home, "logs");
  const names = (await readdir(folder)).filter((name) => /^flood\.log(\.\d+)?$/.test(name));
  const age = (name: string): number => Number(name.split(".")[2] ?? 0);
  names.sort((a, b) => age(b) - age(a));
  assert.ok(names.length > 10, names.join());
  const texts = await Promise.all(names.map((name) => readFile(join(folder, name), "utf8")));
  for (const text of texts) {
    assert.ok(text.length <= 100_000);
    assert.ok(text.endsWith("\n"), "a file ends with a whole line");
  }
  const lines = texts.join("").trimEnd().split("\n");
  assert.equal(lines.length, 40_000);
  lines.forEach((line, n) => {
    assert.equal(line, `line ${n} ${"x".repeat(n % 97)}`);
  });
});

test("only so many old files are kept", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({
      name: "job",
      command: ["/bin/sh", "-c", "seq 1 2000; exit 1"],
      restart: once,
      logs: { fileMaxBytes: 1_000, files: 3 },
    }),
  ]);
  await manager.start();
  await untilState(manager, "job", "failed");
  await manager.stopAll();
  const names = (await readdir(join(fixture.home, "logs"))).filter((name) => name.startsWith("job"));
  const kept = ["job.log", "job.log.1", "job.log.2", "job.log.3"];
  assert.deepEqual(names.sort(), kept.flatMap((name) => [name, `${name}.index`]).sort());
  assert.match(await readFile(join(fixture.home, "logs", "job.log"), "utf8"), /\n2000\n$/);
});

test("stdout and stderr never write into each other's lines", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({
      name: "job",
      command: ["/bin/sh", "-c", "printf 'one '; sleep 0.02; echo error >&2; sleep 0.02; echo two; exit 1"],
      restart: once,
    }),
  ]);
  await manager.start();
  await untilState(manager, "job", "failed");
  await manager.stopAll();
  assert.equal(await readFile(join(fixture.home, "logs", "job.log"), "utf8"), "error\none two\n");
});

test("a subscriber gets the last lines and then each new one, none twice and none left out", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({
      name: "counter",
      command: ["/bin/sh", "-c", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.002; done"],
    }),
  ]);
  await manager.start();
  await eventually("some lines are there", async () => {
    assert.match(await readFile(join(fixture.home, "logs", "counter.log"), "utf8"), /\n20\n/);
  });
  const numbers: number[] = [];
  const streams = new Set<LogLine["stream"]>();
  for await (const { line, stream } of manager.subscribeLogs({ service: "counter", tailLines: 5 })) {
    numbers.push(Number(line));
    streams.add(stream);
    if (numbers.length === 40) break;
  }
  const [first = 0] = numbers;
  assert.deepEqual(
    numbers,
    Array.from({ length: 40 }, (_, index) => first + index),
  );
  assert.deepEqual([...streams], ["stdout"]);
});

test("a reader who does not read is told how much it missed, and holds nobody up", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([
    defineService({ name: "job", command: ["/bin/sh", "-c", "seq 1 300000; exit 1"], restart: once }),
  ]);
  const lines = manager.subscribeLogs({ service: "job" });
  await manager.start();
  await untilState(manager, "job", "failed");
  await manager.stopAll();
  let readBytes = 0;
  let droppedBytes = 0;
  let last = "";
  for await (const line of lines) {
    if (line.droppedBytes === undefined) readBytes += line.line.length + 1;
    else droppedBytes += line.droppedBytes;
    last = line.line;
  }
  const text = await readFile(join(fixture.home, "logs", "job.log"), "utf8");
  assert.ok(droppedBytes > 1_000_000);
  assert.equal(readBytes + droppedBytes, text.length);
  assert.equal(last, "300000");
  assert.match(text, /\n300000\n$/);
});

test("the manager's own log tells each move in words", async (t) => {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open([defineService({ name: "api", command: forever })]);
  await manager.startAndWait("api");
  await manager.stopAll();
  const text = await readFile(join(fixture.home, "logs", "manager.log"), "utf8");
  assert.match(text, /^20\S+Z manager: pid \d+ manages /);
  assert.match(text, /Z api: starting → ready: is ready\n/);
  assert.match(text, /Z api: stopping → stopped: was asked to stop\n/);
});

test("after a kill -9 of the manager its log still says when each line came, and the next one goes on", async (t) => {
  const fixture = await Fixture.create(t);
  const count = "n=0; while :; do n=$((n+1)); echo $n; done";
  const script = await fixture.script(
    "manager.ts",
    `import { ProcessManager } from ${JSON.stringify(join(import.meta.dirname, "process-manager.ts"))};
     const definitions = [{ name: "job", command: ${JSON.stringify(count)} }];
     const manager = await ProcessManager.open({ home: ${JSON.stringify(fixture.home)}, baseEnv: process.env, definitions });
     await manager.start();`,
  );
  const path = join(fixture.home, "logs", "job.log");
  const killed = spawn(process.execPath, [script], {
    env: fixture.env,
    stdio: ["ignore", "ignore", "inherit"],
  });
  const exited = new Promise((resolve) => killed.on("exit", resolve));
  await eventually("much is written", async () => assert.ok((await stat(path)).size > 200_000));
  killed.kill("SIGKILL");
  await exited;
  const manager = await fixture.open([
    defineService({ name: "job", command: "echo again; exit 1", restart: once }),
  ]);
  await manager.start();
  await untilState(manager, "job", "failed");
  const lines: LogLine[] = [];
  const all = manager.subscribeLogs({ service: "job", tailLines: 1_000_000, follow: false });
  for await (const line of all) lines.push(line);
  assert.ok(lines.every(({ at, stream }) => at !== null && stream === "stdout"));
  assert.equal(lines.at(-1)?.line, "again");
  lines.slice(0, -2).forEach(({ line }, index) => {
    assert.equal(line, String(index + 1));
  });
});
