import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { pathToFileURL } from "node:url";
import { defineExternal, defineService } from "../../process-manager/definition.ts";
import {
  eventually,
  Fixture,
  forever,
  recordOf,
  untilRecord,
  untilState,
} from "../../process-manager/fixture.ts";
import { widthOf } from "../fit-line.ts";
import { noTerminal, Terminal } from "./terminal.fixture.ts";

const main = join(import.meta.dirname, "..", "main.ts");
const top = `${process.execPath} ${main} top`;
const skip = noTerminal;

const talking = (name: string, lines: number) =>
  defineService({
    name,
    command: ["/bin/sh", "-c", `for i in $(seq ${lines}); do echo "${name} line $i"; done; exec sleep 1000`],
  });
const definitions = [
  talking("alpha", 3),
  talking("beta", 3),
  defineService({
    name: "broken",
    command: forever,
    prepare: async () => {
      throw Object.assign(new Error("the disk is full"), { fatal: true });
    },
  }),
  talking("chatty", 100),
  defineExternal({ kind: "external", name: "redis", probe: { kind: "check", check: async () => undefined } }),
];

async function openTop(t: TestContext, columns: number, rows: number) {
  const fixture = await Fixture.create(t);
  const manager = await fixture.open(definitions);
  await manager.start();
  await manager.whenSettled();
  const terminal = await Terminal.open(fixture, columns, rows);
  await terminal.type(top);
  await terminal.until((screen) => screen.includes("alpha line 3"), "the log of the first service");
  return { fixture, manager, terminal };
}

for (const [columns, rows] of [
  [80, 24],
  [200, 50],
] as const) {
  test(`at ${columns}×${rows} the services, the selected one's log and the keys are on the screen`, {
    skip,
  }, async (t) => {
    await using parts = await openTop(t, columns, rows).then(disposing);
    const { terminal } = parts;
    const screen = await terminal.until((text) => / MiB|KiB/.test(text), "what they use");
    const lines = screen.split("\n");
    assert.match(lines[0] ?? "", /^pugmark top {2}3 of 4 ready {2}cpu \d+\.\d% {2}memory \d+ [KM]iB/);
    assert.match(lines[1] ?? "", /^ {2}SERVICE +STATE +SINCE +RESTARTS +PID +CPU +MEMORY +PORTS/);
    assert.equal((lines[1] ?? "").includes("WHY"), columns === 200);
    assert.match(lines[2] ?? "", /^› alpha +ready +\d+ s +0 +\d+ +\d+\.\d% +\d+ [KM]iB/);
    assert.match(lines[4] ?? "", /^ {2}broken +failed/);
    assert.match(lines[6] ?? "", /^ {2}redis +ready/);
    assert.match(lines[7] ?? "", /^── alpha ── is ready ─+$/);
    assert.deepEqual(lines.slice(8, 11), ["alpha line 1", "alpha line 2", "alpha line 3"]);
    assert.match(lines[rows - 1] ?? "", /select.*q quit$/);
    for (const line of lines) assert.ok(widthOf(line) <= columns, line);
  });
}

function disposing<P extends { readonly terminal: Terminal }>(parts: P): P & AsyncDisposable {
  return { ...parts, [Symbol.asyncDispose]: async () => await parts.terminal[Symbol.asyncDispose]() };
}

test("keys select, filter, show help, and open a log that scrolls and follows", { skip }, async (t) => {
  await using parts = await openTop(t, 80, 24).then(disposing);
  const { terminal } = parts;
  await terminal.press("j");
  await terminal.until((text) => text.includes("› beta") && text.includes("beta line 3"), "beta and its log");
  await terminal.press("Down");
  await terminal.until((text) => /── broken ── the disk is full/.test(text), "why broken is down");
  await terminal.press("k", "Up", "Up");
  await terminal.until((text) => text.includes("› alpha"), "the first again");
  await terminal.press("/", "b", "e", "t");
  await terminal.until((text) => text.includes("/bet█") && !text.includes("alpha"), "only beta");
  await terminal.press("Enter");
  await terminal.until((text) => text.includes("[/bet]") && text.includes("beta line 3"), "the filter kept");
  await terminal.press("Escape");
  await terminal.until((text) => text.includes("alpha"), "all again");
  await terminal.press("?");
  await terminal.until((text) => text.includes("without a gap"), "the help");
  await terminal.press("s");
  await terminal.until((text) => text.includes("› beta"), "the table");
  assert.equal(recordOf(parts.manager, "beta").state, "ready", "a key that ends the help does nothing else");
  await terminal.press("Enter");
  const log = await terminal.until(
    (text) => !text.includes("SERVICE") && text.includes("G follow"),
    "the log",
  );
  assert.deepEqual(log.split("\n").slice(2, 5), ["beta line 1", "beta line 2", "beta line 3"]);
  await terminal.press("Escape");
  await terminal.until((text) => text.includes("SERVICE"), "the table");
});

test("a long log scrolls by lines and pages and to its ends, and follows again", { skip }, async (t) => {
  await using parts = await openTop(t, 80, 24).then(disposing);
  const { terminal } = parts;
  await terminal.press("/", "c", "h", "Enter", "l");
  await terminal.until(
    (text) => text.includes("chatty line 100\n") && !text.includes("SERVICE"),
    "the last line",
  );
  await terminal.press("k");
  const up = await terminal.until((text) => text.includes(", 1 more below"), "one up");
  assert.match(up, /chatty line 99\n.*\n$/);
  await terminal.press("PageUp");
  await terminal.until((text) => text.includes(", 22 more below") && text.includes("line 78\n"), "a page up");
  await terminal.press("g");
  const first = await terminal.until((text) => text.includes("chatty line 1\n"), "the first line");
  assert.match(first.split("\n")[22] ?? "", /^chatty line 21$/);
  await terminal.press("G");
  await terminal.until((text) => text.includes("line 100\n") && !text.includes("below"), "the end");
});

test("keys restart, stop and start the selected service, and what goes wrong is said", {
  skip,
}, async (t) => {
  await using parts = await openTop(t, 80, 24).then(disposing);
  const { terminal, manager } = parts;
  const { pid } = recordOf(manager, "alpha");
  await terminal.press("r");
  await untilRecord(manager, "alpha", (record) => record.state === "ready" && record.pid !== pid);
  await terminal.until((text) => text.includes("alpha: ready"), "that it is done");
  await terminal.press("s");
  await untilState(manager, "alpha", "stopped");
  await terminal.until((text) => /› alpha +stopped/.test(text), "that it has stopped");
  await terminal.press("S");
  await untilState(manager, "alpha", "ready");
  await terminal.press("End");
  await terminal.until((text) => text.includes("› redis"), "redis");
  await terminal.press("s");
  await terminal.until((text) => text.includes("redis is run by others"), "that it cannot be stopped");
});

test("a service that changes by itself is seen at once, and the screen follows the terminal's size", {
  skip,
}, async (t) => {
  await using parts = await openTop(t, 80, 24).then(disposing);
  const { terminal, manager } = parts;
  await manager.stop("beta");
  await terminal.until((text) => /beta +stopped/.test(text), "that beta has stopped");
  await terminal.resize(160, 40);
  const wide = await terminal.until(
    (text) => text.includes("WHY") && text.includes("q quit"),
    "a wide table",
  );
  assert.match(wide.split("\n")[39] ?? "", /q quit$/);
  await terminal.resize(30, 5);
  await terminal.until((text) => text.startsWith("pugmark top needs 40×6"), "that there is no room");
  await terminal.resize(80, 24);
  await terminal.until((text) => text.includes("› alpha"), "the table again");
});

test("a station that ends is waited for, and shown again when it is back", { skip }, async (t) => {
  await using parts = await openTop(t, 80, 24).then(disposing);
  const { terminal, manager, fixture } = parts;
  await manager.stopAll();
  await terminal.until(
    (text) => /no station.*the station has ended; waiting for it to come back/s.test(text),
    "that it has ended",
  );
  const next = await fixture.open(definitions);
  await terminal.until((text) => text.includes("the station is back"), "that it is back");
  await next.start(["alpha"]);
  await terminal.until((text) => /alpha +ready/.test(text) && text.includes("alpha line 3"), "alpha");
  await terminal.press("q");
  await terminal.until((text) => text.includes("prompt:"), "the prompt");
});

for (const [what, end] of [
  ["q", async (terminal: Terminal) => await terminal.press("q")],
  ["Ctrl+C", async (terminal: Terminal) => await terminal.press("C-c")],
  ["SIGTERM", async (_terminal: Terminal, pid: number) => void process.kill(pid, "SIGTERM")],
] as const) {
  test(`after ${what} the terminal is as it was`, { skip }, async (t) => {
    await using parts = await openTop(t, 80, 24).then(disposing);
    const { terminal, fixture } = parts;
    assert.deepEqual([await terminal.flag("alternate_on"), await terminal.flag("cursor_flag")], ["1", "0"]);
    await end(terminal, await pidOfTop(fixture));
    await terminal.until((text) => text.includes("prompt:"), "the prompt");
    assert.deepEqual([await terminal.flag("alternate_on"), await terminal.flag("cursor_flag")], ["0", "1"]);
    await terminal.type("stty -a; echo $((6 * 7)) is the answer");
    const after = await terminal.until((text) => text.includes("42 is the answer"), "an echo");
    assert.match(after, / icanon /);
    assert.match(after, / echo /);
  });
}

async function pidOfTop(fixture: Fixture): Promise<number> {
  return await eventually("top runs", async () => {
    const { stdout } = await new Promise<{ stdout: string }>((resolve) => {
      execFile("ps", ["-eo", "pid=,args="], (_error, text) => resolve({ stdout: text }));
    });
    const pids = await fixture.pids();
    const line = stdout
      .split("\n")
      .find((one) => one.endsWith(`${main} top`) && pids.includes(Number.parseInt(one, 10)));
    assert.ok(line, stdout);
    return Number.parseInt(line, 10);
  });
}

test("a program that throws while it has the screen gives it back, and its error can be read", {
  skip,
}, async (t) => {
  const fixture = await Fixture.create(t);
  await using terminal = await Terminal.open(fixture, 80, 24);
  const screen = pathToFileURL(join(import.meta.dirname, "screen.ts")).href;
  const script = await fixture.script(
    "throws.mjs",
    `import { Screen } from ${JSON.stringify(screen)};
     const { stdin: input, stdout: output } = process;
     const shown = new Screen({ input, output, render: () => ["on the screen"] });
     shown.refresh();
     input.on("data", () => { throw new Error("a broken assumption"); });`,
  );
  await terminal.type(`${process.execPath} ${script}`);
  await terminal.until((text) => text.startsWith("on the screen"), "the frame");
  await terminal.press("x");
  await terminal.until((text) => text.includes("a broken assumption"), "the error");
  assert.deepEqual([await terminal.flag("alternate_on"), await terminal.flag("cursor_flag")], ["0", "1"]);
});

test("without a terminal it says so", async (t) => {
  const fixture = await Fixture.create(t);
  const { code, stderr } = await new Promise<{ code: number | null; stderr: string }>((resolve) => {
    const env = { ...fixture.env, PUGMARK_HOME: fixture.home };
    const child = execFile(process.execPath, [main, "top"], { env }, (_error, _stdout, text) =>
      resolve({ code: child.exitCode, stderr: text }),
    );
  });
  assert.equal(code, 2);
  assert.match(stderr, /top needs a terminal/);
});
