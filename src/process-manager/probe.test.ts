import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import http from "node:http";
import net, { type AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import { askProbe, untilPasses } from "./probe.ts";

const run = promisify(execFile);
const signal = new AbortController().signal;
const context = { cwd: "/", env: { PATH: "/usr/bin:/bin" } };

async function listen(t: TestContext, server: net.Server | http.Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    if (server instanceof http.Server) server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

test("an http probe opens a connection of its own each time", async (t) => {
  const server = http.createServer((_request, response) => response.end("ok"));
  let connections = 0;
  server.on("connection", () => {
    connections += 1;
  });
  const url = `http://127.0.0.1:${await listen(t, server)}/livez`;
  for (let time = 0; time < 3; time += 1) await askProbe({ kind: "http", url }, context, signal);
  assert.equal(connections, 3);
});

test("a server that accepts and says nothing, or begins and never ends, fails the probe in its time", async (t) => {
  const silent = await listen(t, net.createServer());
  const slow = await listen(
    t,
    http.createServer((_request, response) => response.write("and")),
  );
  for (const port of [silent, slow])
    await assert.rejects(
      askProbe({ kind: "http", url: `http://127.0.0.1:${port}/`, timeoutMs: 50 }, context, signal),
      {
        message: "no answer within 50 ms",
      },
    );
});

test("a check that does not heed its signal is not waited for", async () => {
  const check = (): Promise<void> => new Promise(() => undefined);
  await assert.rejects(askProbe({ kind: "check", check, timeoutMs: 20 }, context, signal), {
    message: "no answer within 20 ms",
  });
});

test("as many passes in a row are needed as the threshold says", async () => {
  const answers = [true, false, true, true, true];
  let asked = 0;
  const check = async (): Promise<void> => {
    asked += 1;
    if (!answers.shift()) throw new Error("not yet");
  };
  const failures: string[] = [];
  await untilPasses({ kind: "check", check, successThreshold: 2 }, context, signal, (reason) =>
    failures.push(reason),
  );
  assert.equal(asked, 4);
  assert.deepEqual(failures, ["not yet"]);
});

test("a server that answers with another protocol fails the probe in its time", async (t) => {
  const port = await listen(
    t,
    net.createServer((socket) => {
      socket.on("error", () => undefined);
      socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    }),
  );
  const probe = { kind: "http", url: `http://127.0.0.1:${port}/`, timeoutMs: 50 } as const;
  await assert.rejects(askProbe(probe, context, signal), /no answer within 50 ms/);
});

test("a probe's program that cannot be run for want of descriptors fails the probe and nothing else", async () => {
  const script = `
    const { openSync, closeSync } = await import("node:fs");
    const { askExec } = await import(${JSON.stringify(import.meta.resolve("./exec-probe.ts"))});
    const held = [];
    try { for (;;) held.push(openSync("/dev/null")); } catch {}
    const failure = await askExec(["true"], ${JSON.stringify(context)}, new AbortController().signal).catch((error) => error);
    for (const fd of held) closeSync(fd);
    console.log(failure.message);
  `;
  const node = [process.execPath, "--input-type=module", "-e", script];
  const { stdout } = await run("/bin/sh", ["-c", 'ulimit -n 64; exec "$@"', "sh", ...node]);
  assert.equal(stdout, "spawn true EMFILE\n");
});
