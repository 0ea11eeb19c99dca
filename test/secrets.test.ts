import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { askLocally } from "../src/http/local-client.ts";
import { localSocketPath } from "../src/http/local-socket.ts";
import { testStation } from "./support/station.ts";
import { startSupabaseProject } from "./support/supabase-project.ts";

test("the service-role key is in the mirror's environment, and nowhere else that anybody could look", async () => {
  await using project = await startSupabaseProject();
  const key = project.secretKey;
  await using station = await testStation({
    SUPABASE_URL: project.url,
    SUPABASE_KEY: project.publishableKey,
    SUPABASE_SERVICE_ROLE: key,
    SUPABASE_JWT_SECRET: project.jwtSecret,
    LOG_LEVEL: "trace",
  });
  const printed = [await station.start()];
  const { pid: mirror } = await station.until("sync", ({ state }) => state === "ready");

  // The manager has the environment that it was started with: its owner's shell has that too.
  const manager = station.manager().pid;
  const holders = everywhere("environ").filter(({ pid, text }) => text.includes(key) && pid !== manager);
  assert.deepEqual(
    holders.map(({ pid }) => pid),
    [mirror],
  );

  // Everything that is shown, while all goes well and after the project has gone in the middle of it.
  const look = async (commands: readonly string[]) => {
    for (const base of [station.api, station.agent, station.chat]) {
      for (const path of ["/metrics", "/readyz", "/openapi.json"])
        printed.push(await textOf(`${base}${path}`));
    }
    for (const path of ["services", "metrics", "sync"])
      printed.push(await textOf(`${station.api}/api/v1/system/${path}`));
    const shown = await Promise.all(commands.map((words) => station.pugmark(...words.split(" "))));
    for (const [index, { stdout, stderr }] of shown.entries()) {
      assert.notEqual(stdout, "", `${commands[index]}: ${stderr}`);
      printed.push(stdout, stderr);
    }
    for (const { text } of everywhere("cmdline")) printed.push(text);
  };
  await look(["supabase setup"]);
  await project.kill();
  const position = { device: "d", time: "2026-11-22T09:00:00Z", lat: 1, lon: 2 };
  const headers = { "content-type": "application/json" };
  const body = JSON.stringify(position);
  assert.equal(
    (await fetch(`${station.api}/api/v1/positions`, { method: "POST", headers, body })).status,
    200,
  );
  printed.push(await pushFails(station.home));
  await look(commands);
  printed.push((await station.pugmark("stop", "sync")).stdout);
  const stopped = await station.until("sync", ({ state }) => state === "stopped");
  assert.equal(stopped.lastExit?.code, 0, "it ends by itself when it is asked to");
  printed.push((await station.end("SIGTERM")).output);

  assert.ok(printed.some((text) => text.includes("sync")));
  assert.deepEqual(
    printed.filter((text) => text.includes(key)),
    [],
  );
  const files = filesIn(station.home);
  assert.ok(files.some((file) => file.endsWith("sync.log")));
  assert.deepEqual(
    files.filter((file) => readFileSync(file).includes(key)),
    [],
  );
});

const commands = [
  "status --json",
  "why sync --json",
  "plan --json",
  "config --json",
  "doctor --json",
  "sync status --json",
  "logs -n 1000 --json",
];

/** Resolves when the mirror says that it cannot send. */
async function pushFails(home: string): Promise<string> {
  const deadline = Date.now() + 20_000;
  let last: { readonly push_error?: string | null } = {};
  while (Date.now() < deadline) {
    last = await askLocally(localSocketPath(home, "sync"), { method: "GET", path: "/status" });
    if (last.push_error) return JSON.stringify(last);
  }
  throw new Error(`it never said so; last seen: ${JSON.stringify(last)}`);
}

async function textOf(url: string): Promise<string> {
  return await (await fetch(url)).text();
}

/** A file of /proc for every process of the machine that may be looked at; `cmdline` is what `ps` shows. */
function everywhere(file: "environ" | "cmdline"): { pid: number; text: string }[] {
  return readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .flatMap((pid) => {
      try {
        return [{ pid: Number(pid), text: readFileSync(`/proc/${pid}/${file}`, "utf8") }];
      } catch {
        return []; // it has ended, or is somebody else's
      }
    });
}

function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile());
}
