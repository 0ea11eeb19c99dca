import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { projectRoot } from "../../src/config/config.ts";
import type { ServiceRecord } from "../../src/process-manager/service-status.ts";
import { freePort } from "./ports.ts";

const main = join(projectRoot, "src", "cli", "main.ts");

interface CommandResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A whole station in a home and on ports of its own, run as a user runs it. */
export interface TestStation extends AsyncDisposable {
  readonly home: string;
  readonly api: string;
  readonly agent: string;
  readonly chat: string;
  readonly ports: readonly number[];
  readonly environment: Readonly<Record<string, string>>;
  /** Starts it and resolves when it says that it is ready. Gives what it printed until then. */
  readonly start: (...names: readonly string[]) => Promise<string>;
  /** The foreground process: the manager. */
  readonly manager: () => ChildProcess;
  /** Sends a signal to the manager and gives its exit code and everything it printed. */
  readonly end: (signal: NodeJS.Signals) => Promise<{ exitCode: number | null; output: string }>;
  /** Runs `pugmark …` beside it. */
  readonly pugmark: (...args: readonly string[]) => Promise<CommandResult>;
  readonly services: () => Promise<ServiceRecord[]>;
  /** Resolves when the condition holds for a service; polls the manager, with a deadline. */
  readonly until: (name: string, holds: (service: ServiceRecord) => boolean) => Promise<ServiceRecord>;
}

/** Prepares a station; nothing runs before `start`. Disposing ends whatever is left and removes its home. */
export async function testStation(environment: Readonly<Record<string, string>> = {}): Promise<TestStation> {
  const home = mkdtempSync(join(tmpdir(), "pugmark-station-"));
  const [api, agent, chat, database] = [
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
  ];
  const env = {
    PATH: process.env.PATH ?? "",
    HOME: home,
    PUGMARK_HOME: home,
    API_PORT: String(api),
    PORT: String(agent),
    CHAT_PORT: String(chat),
    DATABASE_PORT: String(database),
    ...environment,
  };
  let manager: ChildProcess | undefined;
  let output = "";

  const station: TestStation = {
    home,
    api: `http://127.0.0.1:${api}`,
    agent: `http://127.0.0.1:${agent}`,
    chat: `http://127.0.0.1:${chat}`,
    ports: [api, agent, chat, database],
    environment: env,
    manager: () => {
      if (!manager) throw new Error("the station was not started");
      return manager;
    },
    start: async (...names) => {
      output = "";
      const child = spawn(process.execPath, [main, "up", ...names], {
        env,
        stdio: ["ignore", "pipe", "pipe"],
      });
      manager = child;
      const ready = Promise.withResolvers<void>();
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding("utf8").on("data", (text: string) => {
          output += text;
          if (output.includes("\nThe station is ready")) ready.resolve();
        });
      }
      child.once("close", () => ready.reject(new Error(`the station did not start:\n${output}`)));
      await ready.promise;
      return output;
    },
    end: async (signal) => {
      const child = station.manager();
      child.kill(signal);
      // Not merely ended: all that it printed is here.
      if (!child.stdout?.closed) await once(child, "close");
      return { exitCode: child.exitCode, output };
    },
    pugmark: (...args) => runPugmark(args, env),
    services: async () => {
      const { stdout } = await station.pugmark("status", "--json");
      return JSON.parse(stdout).services;
    },
    until: async (name, holds) => {
      const deadline = Date.now() + 30_000;
      let last: ServiceRecord | undefined;
      while (Date.now() < deadline) {
        last = (await station.services()).find((service) => service.name === name);
        if (last && holds(last)) return last;
      }
      throw new Error(`${name} did not get there; last seen: ${JSON.stringify(last)}\n${output}`);
    },
    async [Symbol.asyncDispose]() {
      if (manager && manager.exitCode === null && manager.signalCode === null) await station.end("SIGTERM");
      for (const pid of processesOf(home)) process.kill(pid, "SIGKILL");
      rmSync(home, { recursive: true, force: true });
    },
  };
  return station;
}

/** Runs the command line once, with nothing but the given environment. */
function runPugmark(args: readonly string[], env: Readonly<Record<string, string>>): Promise<CommandResult> {
  return new Promise((resolve) => {
    const options = { env, maxBuffer: 64 * 1024 ** 2 };
    const child = execFile(process.execPath, [main, ...args], options, (_error, stdout, stderr) => {
      resolve({ exitCode: child.exitCode ?? -1, stdout, stderr });
    });
  });
}

/** Processes that carry this home in their environment or their arguments, other than this one. */
export function processesOf(home: string): number[] {
  return readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid)
    .filter((pid) => [`/proc/${pid}/environ`, `/proc/${pid}/cmdline`].some((file) => mentions(file, home)))
    .map(Number);
}

function mentions(file: string, text: string): boolean {
  try {
    return readFileSync(file, "utf8").includes(text);
  } catch {
    // It has ended meanwhile, or is somebody else's.
    return false;
  }
}
