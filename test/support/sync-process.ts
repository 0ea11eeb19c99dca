import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { projectRoot } from "../../src/config/config.ts";

/** The sync service of a station, as the manager runs it. */
export interface SyncProcess extends AsyncDisposable {
  /** What `PUGMARK_HOME` is: a folder of its own. */
  readonly home: string;
  /** Its socket. */
  readonly socket: string;
  /** Starts it. Resolves when it says that it is ready. */
  readonly start: () => Promise<void>;
  /** Ends it with SIGKILL. Resolves when it has gone. */
  readonly kill: () => Promise<void>;
  /** Ends it with SIGTERM. Resolves when it has gone; rejects where it fails at that. */
  readonly end: () => Promise<void>;
  /** Everything that it has printed, in all its lives. */
  readonly output: () => string;
}

/** Prepares one with these settings besides its home; nothing runs before `start`. */
export function syncProcess(settings: Readonly<Record<string, string>>): SyncProcess {
  const home = mkdtempSync(join(tmpdir(), "pugmark-sync-"));
  let child: ChildProcess | undefined;
  let output = "";
  const kill = async () => {
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  };
  return {
    home,
    socket: join(home, "sync.sock"),
    output: () => output,
    kill,
    end: async () => {
      if (!child) return;
      const exited = once(child, "exit");
      child.kill("SIGTERM");
      const [code] = await exited;
      if (code !== 0) throw new Error(`the sync service ended with ${code}: ${output}`);
    },
    start: async () => {
      const started = spawn(process.execPath, [join(projectRoot, "src", "sync", "main.ts")], {
        env: { PATH: process.env.PATH, HOME: home, PUGMARK_HOME: home, NOTIFY_FD: "3", ...settings },
        stdio: ["ignore", "pipe", "pipe", "pipe"],
      });
      child = started;
      for (const stream of [started.stdout, started.stderr]) {
        stream?.setEncoding("utf8").on("data", (text: string) => {
          output += text;
        });
      }
      const notice = started.stdio[3];
      if (!notice) throw new Error("no pipe to be told by");
      await Promise.race([
        once(notice, "data"),
        once(started, "exit").then(([code]) => {
          throw new Error(`the sync service did not start (${code}): ${output}`);
        }),
      ]);
    },
    async [Symbol.asyncDispose]() {
      await kill();
      rmSync(home, { recursive: true, force: true });
    },
  };
}
