import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { freePort } from "./ports.ts";

/** Why no Redis can be started here, for the `skip` of a test; false where one can. */
export const noRedis: string | false = whyNot();

/** A real Redis of one's own, without files. */
export interface TestRedis extends AsyncDisposable {
  readonly url: string;
  /** Ends it, with all that it holds. */
  readonly goAway: () => Promise<void>;
  /** Starts it again, empty, at the same address. */
  readonly comeBack: () => Promise<void>;
  /** Frozen, it takes connections and commands, and answers nothing. */
  readonly freeze: (isFrozen: boolean) => void;
}

export async function startRedis({ password = "" } = {}): Promise<TestRedis> {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), "pugmark-redis-"));
  const flags = [
    "--port",
    String(port),
    "--bind",
    "127.0.0.1",
    "--save",
    "",
    "--databases",
    "64",
    "--dir",
    folder,
  ];
  const secret = password ? ["--requirepass", password] : [];
  let server: ChildProcess;

  const comeBack = async () => {
    server = spawn("redis-server", [...flags, ...secret], { stdio: ["ignore", "pipe", "inherit"] });
    if (!server.stdout) throw new Error("no output to read");
    for await (const line of createInterface(server.stdout)) {
      if (line.includes("Ready to accept connections")) break;
    }
    server.stdout.resume();
    if (server.exitCode !== null) throw new Error(`redis-server exited with ${server.exitCode}`);
  };
  const goAway = async () => {
    if (server.exitCode !== null || server.signalCode !== null) return;
    const gone = once(server, "exit");
    server.kill("SIGKILL");
    await gone;
  };

  // A test run that breaks off leaves nothing behind either.
  const end = () => server.kill("SIGKILL");
  process.once("exit", end);
  await comeBack();
  return {
    url: `redis://${password ? `:${password}@` : ""}127.0.0.1:${port}`,
    goAway,
    comeBack,
    freeze: (isFrozen) => server.kill(isFrozen ? "SIGSTOP" : "SIGCONT"),
    async [Symbol.asyncDispose]() {
      await goAway();
      process.off("exit", end);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function whyNot(): string | false {
  try {
    execFileSync("redis-server", ["--version"], { stdio: "ignore" });
    return false;
  } catch {
    return "redis-server is not installed";
  }
}
