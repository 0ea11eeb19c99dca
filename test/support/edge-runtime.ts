import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { denoArguments, findDeno } from "../../src/cli/edge.ts";
import { freePort } from "./ports.ts";

/** The functions of `supabase/functions`, served by Deno as `pugmark functions serve` does. */
export interface EdgeRuntime extends AsyncDisposable {
  /** Functions are at `URL/functions/v1/NAME`. */
  readonly url: string;
  /** All that was printed. */
  readonly log: () => string;
}

/** Starts it with these variables; resolves when it answers. */
export async function startEdgeRuntime(told: Readonly<Record<string, string>>): Promise<EdgeRuntime> {
  const port = await freePort();
  const home = mkdtempSync(join(tmpdir(), "pugmark-deno-"));
  const deno = findDeno();
  if (deno === undefined) throw new Error("no Deno in node_modules");
  const child = spawn(deno, denoArguments({ host: "127.0.0.1", port, told }), {
    env: { ...told, DENO_DIR: home, DENO_NO_UPDATE_CHECK: "1", NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let log = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      log += text;
    });
  }
  await Promise.race([
    once(child.stdout, "data"),
    once(child, "exit").then(([code]) => {
      throw new Error(`Deno did not start (${code}): ${log}`);
    }),
  ]);
  return {
    url: `http://127.0.0.1:${port}`,
    log: () => log,
    async [Symbol.asyncDispose]() {
      await end(child);
      rmSync(home, { recursive: true, force: true });
    },
  };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL");
  await once(child, "exit");
}
