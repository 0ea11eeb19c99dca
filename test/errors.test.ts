import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { agentStatusOf } from "../src/agent/agent-error.ts";
import { statusOf as apiStatusOf } from "../src/api/api-error.ts";
import { chatStatusOf } from "../src/chat/chat-error.ts";
import { projectRoot } from "../src/config/config.ts";
import { edgeStatusOf } from "../src/http/problem.ts";
import { storeStatusOf } from "../src/store/errors.ts";
import { refusalStatusOf } from "../supabase/functions/ingest/refusal.ts";

test("docs/errors.md lists every code with its status, and none that does not exist", () => {
  const page = readFileSync(join(projectRoot, "docs/errors.md"), "utf8");
  const documented = [...page.matchAll(/^\| `([a-z-]+)` \| (\d{3}) \|/gm)].map(
    ([, code, status]) => `${code} ${status}`,
  );
  const tables = [edgeStatusOf, storeStatusOf, apiStatusOf, chatStatusOf, agentStatusOf, refusalStatusOf];
  const known = tables.flatMap((table) => Object.entries(table).map(([code, status]) => `${code} ${status}`));
  assert.deepEqual([...new Set(documented)].sort(), [...new Set(known)].sort());
});
