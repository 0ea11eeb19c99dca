import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { constants, getPriority } from "node:os";
import { test } from "node:test";

const niceness = constants.priority.PRIORITY_BELOW_NORMAL;
const program = `
  import { giveWay } from ${JSON.stringify(new URL("./priority.ts", import.meta.url))};
  giveWay();
  console.log("done");
  process.stdin.resume();
`;

/** Niceness of a process's session, where the system has that. */
function sessionNiceness(pid: number | string | undefined): number | undefined {
  const path = `/proc/${pid}/autogroup`;
  return existsSync(path) ? Number(readFileSync(path, "utf8").trim().split(" ").at(-1)) : undefined;
}

/** Niceness of a process that has given way, and of its session. */
async function given({ detached }: { readonly detached: boolean }) {
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
    stdio: ["pipe", "pipe", "inherit"],
    detached,
  });
  await once(child.stdout, "data");
  const found = { process: getPriority(child.pid), session: sessionNiceness(child.pid) };
  child.stdin.end();
  await once(child, "exit");
  return found;
}

test("a service in a session of its own gives way with all of it", async () => {
  const session = sessionNiceness("self") === undefined ? undefined : niceness;
  assert.deepEqual(await given({ detached: true }), { process: niceness, session });
});

test("a session that others are in is left as it is", async () => {
  const session = sessionNiceness("self");
  assert.deepEqual(await given({ detached: false }), { process: niceness, session });
});
