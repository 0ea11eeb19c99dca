import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { loadConfig } from "../config/config.ts";
import { planChanges } from "../process-manager/change-plan.ts";
import { resolveDefinitions } from "../process-manager/resolve-definitions.ts";
import { stationDefinitions } from "./station.ts";
import { whatRuns } from "./what-runs.ts";

/** What a change of `.env` means for the services that differ. */
function changesOf(t: TestContext, before: string, after: string): Record<string, readonly string[]> {
  const home = mkdtempSync(join(tmpdir(), "pugmark-station-"));
  t.after(() => rmSync(home, { recursive: true }));
  const [old, now] = [before, after].map((text) => {
    writeFileSync(join(home, ".env"), text);
    const { config, fromFile } = loadConfig(
      { PUGMARK_HOME: home, CHAT_MAX_TOKENS: "99" },
      join(home, ".env"),
    );
    return resolveDefinitions(stationDefinitions(config, fromFile));
  });
  const changes = planChanges(old ?? [], now ?? []).filter(({ action }) => action !== "keep");
  return Object.fromEntries(changes.map(({ name, action, why }) => [name, [action, ...why]]));
}

test("a changed .env restarts those whom it concerns, and a removed variable is gone", (t) => {
  assert.deepEqual(changesOf(t, "CACHE_TTL=5\n", "CACHE_TTL=6\n"), {
    chat: ["restart", "variable CACHE_TTL changed"],
  });
  assert.deepEqual(changesOf(t, "LOG_LEVEL=debug\n", ""), {
    chat: ["restart", "variable LOG_LEVEL was removed"],
    agent: ["restart", "variable LOG_LEVEL was removed"],
    api: ["restart", "variable LOG_LEVEL was removed"],
  });
  assert.deepEqual(changesOf(t, "", "AGENT_TOOL_MODE=planner\n"), {
    agent: ["restart", "variable AGENT_TOOL_MODE is new"],
  });
  assert.deepEqual(changesOf(t, "", "API_PORT=9080\n").api?.[0], "restart");
});

test("a value of the shell's environment stays what it was", (t) => {
  assert.deepEqual(changesOf(t, "CHAT_MAX_TOKENS=5\n", "CHAT_MAX_TOKENS=6\n"), {});
});

test("a station with a project has a mirror, which alone is handed the key that may do everything there", async (t) => {
  const home = mkdtempSync(join(tmpdir(), "pugmark-station-"));
  t.after(() => rmSync(home, { recursive: true }));
  const project = {
    SUPABASE_URL: "http://127.0.0.1:54321",
    SUPABASE_SERVICE_ROLE: "sb_secret_of_the_project",
  };
  const environment = { PUGMARK_HOME: home, ...project };
  const what = await whatRuns({ PUGMARK_HOME: home, file: null }, environment);
  assert.ok(!JSON.stringify(what.environment).includes(project.SUPABASE_SERVICE_ROLE));
  const { definitions } = await what.load();
  const holders = definitions.filter((each) => JSON.stringify(each).includes(project.SUPABASE_SERVICE_ROLE));
  assert.deepEqual(
    holders.map(({ name }) => name),
    ["sync"],
  );
});

test("without a service-role key there is no mirror", (t) => {
  const home = mkdtempSync(join(tmpdir(), "pugmark-station-"));
  t.after(() => rmSync(home, { recursive: true }));
  const { config } = loadConfig(
    { PUGMARK_HOME: home, SUPABASE_URL: "http://127.0.0.1:54321" },
    "/nowhere/.env",
  );
  assert.ok(!stationDefinitions(config).some(({ name }) => name === "sync"));
});
