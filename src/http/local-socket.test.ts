import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { askLocally, LocalError, linesLocally } from "./local-client.ts";
import { type LocalHandler, localSocketPath, serveLocally } from "./local-socket.ts";

async function served(t: TestContext, routes: Record<string, LocalHandler>, folder = "home") {
  const parent = mkdtempSync(join(tmpdir(), "pugmark-local-"));
  const home = join(parent, folder);
  mkdirSync(home);
  const path = localSocketPath(home, "part");
  // What a process that was killed leaves behind.
  writeFileSync(path, "");
  const errors: unknown[] = [];
  const onError = (error: unknown) => errors.push(error);
  const server = await serveLocally({ path, routes, statusOf: { "too-late": 409 }, onError });
  t.after(async () => {
    await server[Symbol.asyncDispose]();
    assert.equal(existsSync(path), false);
    rmSync(parent, { recursive: true });
  });
  return { path, errors };
}

test("a question is answered over a socket that its owner alone can open", async (t) => {
  const { path } = await served(t, {
    "POST /echo": async ({ body, query }) => ({ body, times: query.get("times") }),
  });
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const answer = await askLocally(path, { method: "POST", path: "/echo?times=2", body: { word: "é" } });
  assert.deepEqual(answer, { body: { word: "é" }, times: "2" });
});

test("a home may have a path longer than a socket's address", async (t) => {
  const { path } = await served(t, { "GET /": async () => ({ ok: true }) }, "x".repeat(150));
  assert.deepEqual(await askLocally(path, { method: "GET", path: "/" }), { ok: true });
});

test("lines come as they are made, and a failure among them is thrown", async (t) => {
  const proceed = Promise.withResolvers<void>();
  const { path } = await served(t, {
    "GET /count": async function* () {
      yield { step: 1 };
      await proceed.promise;
      throw Object.assign(new Error("It is too late."), { code: "too-late" });
    },
  });
  const lines = linesLocally<{ step: number }>(path, { method: "GET", path: "/count" });
  assert.deepEqual((await lines.next()).value, { step: 1 });
  proceed.resolve();
  await assert.rejects(lines.next(), { code: "too-late", message: "It is too late." });
});

test("a handler hears that whoever asked has left", async (t) => {
  const left = Promise.withResolvers<void>();
  const { path } = await served(t, {
    "GET /count": async function* ({ signal }) {
      yield { step: 1 };
      await once(signal, "abort");
      left.resolve();
    },
  });
  const lines = linesLocally(path, { method: "GET", path: "/count" });
  await lines.next();
  await lines.return(undefined);
  await left.promise;
});

test("what was not planned is told without its words, and those are handed on", async (t) => {
  const { path, errors } = await served(t, {
    "GET /": async () => {
      throw new Error("secret");
    },
  });
  const asked = askLocally(path, { method: "GET", path: "/" });
  await assert.rejects(asked, (error) => error instanceof LocalError && !error.message.includes("secret"));
  assert.match(String(errors[0]), /secret/);
  await assert.rejects(askLocally(path, { method: "GET", path: "/other" }), { code: "route-unknown" });
});

test("where nothing answers, that is said", async () => {
  await assert.rejects(askLocally("/nowhere/part.sock", { method: "GET", path: "/" }), {
    code: "not-running",
  });
});
