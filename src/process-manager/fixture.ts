import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { TestContext } from "node:test";
import { freePort } from "../../test/support/ports.ts";
import type { Definition } from "./definition.ts";
import type { State } from "./lifecycle.ts";
import { defaultLogPolicy, LogFile, type LogPolicy } from "./log-file.ts";
import { LogFolder } from "./log-folder.ts";
import { ProcessManager, type ProcessManagerOptions } from "./process-manager.ts";
import { listProcesses } from "./processes.ts";
import type { ServiceEvent, ServiceRecord } from "./service-status.ts";

/**
 * For tests: a temporary home whose every process can be found again. After the test nothing of it may be left,
 * neither a process nor a port nor the folder.
 */
export class Fixture {
  readonly folder: string;
  readonly env: Record<string, string>;
  readonly #assignment: string;
  readonly #ports: number[] = [];
  readonly #managers: ProcessManager[] = [];

  private constructor(folder: string) {
    const id = randomBytes(8).toString("hex");
    this.folder = folder;
    this.#assignment = `FIXTURE=${id}`;
    this.env = { PATH: "/usr/local/bin:/usr/bin:/bin", FIXTURE: id };
  }

  static async create(t: TestContext): Promise<Fixture> {
    const fixture = new Fixture(await mkdtemp(join(tmpdir(), "process-manager-")));
    t.after(() => fixture.#close());
    return fixture;
  }

  get home(): string {
    return join(this.folder, "home");
  }

  async open(
    definitions: readonly Definition[],
    options: Partial<ProcessManagerOptions> = {},
  ): Promise<ProcessManager> {
    const manager = await ProcessManager.open({
      home: this.home,
      definitions,
      baseEnv: this.env,
      ...options,
    });
    this.#managers.push(manager);
    return manager;
  }

  /** The first of so many ports in a row that are free now; it must be free again after the test. */
  async freePort(inARow = 1): Promise<number> {
    const port = await freePort(inARow);
    this.#ports.push(port);
    return port;
  }

  /** The port that was given out last. */
  get lastPort(): number {
    return this.#ports.at(-1) ?? 0;
  }

  /** Writes a script for Node and returns its path. */
  async script(name: string, text: string): Promise<string> {
    const path = join(this.folder, name);
    await writeFile(path, text);
    return path;
  }

  /** Pids of all processes that were started from this fixture's environment and still run. */
  async pids(): Promise<number[]> {
    const entries = await listProcesses();
    return entries.filter((entry) => entry.carries(this.#assignment)).map((entry) => entry.pid);
  }

  async #close(): Promise<void> {
    for (const manager of this.#managers) await manager.stopAll();
    await eventually("no process is left", async () => assert.deepEqual(await this.pids(), []));
    // A killed process has lost its environment, by which it is found, a moment before its sockets are closed.
    for (const port of this.#ports) {
      await eventually(`port ${port} is not served`, async () => assert.equal(await refuses(port), true));
    }
    await rm(this.folder, { recursive: true, force: true });
    assert.equal(existsSync(this.folder), false);
  }
}

/** A log file, with the default policy where the test does not say. */
export function newLogFile(path: string, policy: Partial<LogPolicy> = {}, logsMaxBytes = 1e12): LogFile {
  return new LogFile(path, { ...defaultLogPolicy, ...policy }, new LogFolder(dirname(path), logsMaxBytes));
}

/** A command that runs until it is stopped. */
export const forever = ["/bin/sh", "-c", "exec sleep 1000"] as const;

/** The record of one service. */
export function recordOf(manager: ProcessManager, name: string): ServiceRecord {
  const record = manager.services().find((one) => one.name === name);
  assert.ok(record, `no service ${name}`);
  return record;
}

/** Resolves when the service is in the state, at once if it is in it by now; fails after 20 s, telling what it saw. */
export async function untilState(
  manager: ProcessManager,
  name: string,
  state: State,
): Promise<ServiceRecord> {
  return await untilRecord(manager, name, (record) => record.state === state, state);
}

/** Resolves when the record is as wanted; looked at now and at each event. */
export function untilRecord(
  manager: ProcessManager,
  name: string,
  isWanted: (record: ServiceRecord) => boolean,
  wanted = "another state",
): Promise<ServiceRecord> {
  const seen: string[] = [];
  const { promise, resolve, reject } = Promise.withResolvers<ServiceRecord>();
  const look = (): void => {
    const record = recordOf(manager, name);
    if (isWanted(record)) resolve(record);
  };
  const end = manager.onEvent((event) => {
    seen.push(`${event.service} ${event.from} → ${event.to}: ${event.reason}`);
    look();
  });
  const late = setTimeout(() => {
    const record = JSON.stringify(recordOf(manager, name));
    reject(new Error(`${name} never came to ${wanted}: ${record}\n${seen.join("\n")}`));
  }, 20_000);
  look();
  return promise.finally(() => {
    end();
    clearTimeout(late);
  });
}

/** Collects every event from now on. */
export function collectEvents(manager: ProcessManager): ServiceEvent[] {
  const events: ServiceEvent[] = [];
  manager.onEvent((event) => events.push(event));
  return events;
}

/** Polls where no event tells: until the look passes, or fails with its last complaint after 10 s. */
export async function eventually<T>(what: string, look: () => Promise<T> | T): Promise<T> {
  const until = performance.now() + 10_000;
  for (;;) {
    try {
      return await look();
    } catch (error) {
      if (performance.now() > until) throw new Error(`never came true: ${what}`, { cause: error });
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Whether a connection to the port is refused. */
export function refuses(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1");
    socket.on("connect", () => {
      socket.destroy();
      resolve(false);
    });
    socket.on("error", () => resolve(true));
  });
}

/** Whether the process still runs; one that ended and waits for its parent to look does not. */
export async function isAlive(pid: number): Promise<boolean> {
  return (await listProcesses()).some((entry) => entry.pid === pid);
}

/**
 * A server for tests: on the held socket or on `argv[2]`. `/pid` tells its pid, `/hang` blocks it for good, `/slow`
 * answers after 50 ms; `/sick` makes `/readyz` fail and `/well` undoes that. Stops on SIGTERM when the answers
 * that it owes are out.
 */
export const serverScript = `
const http = require("node:http");
let sick = false;
const server = http.createServer((request, response) => {
  response.setHeader("connection", "close");
  if (request.url === "/hang") { for (;;); }
  if (request.url === "/sick") sick = true;
  if (request.url === "/well") sick = false;
  if (request.url === "/readyz" && sick) {
    response.statusCode = 503;
    response.end(JSON.stringify({ detail: "the store is away" }));
  } else if (request.url === "/slow") setTimeout(() => response.end(String(process.pid)), 50);
  else response.end(String(process.pid));
});
const where = process.env.LISTEN_FDS === "1" ? { fd: 3 } : { port: Number(process.argv[2]), host: "127.0.0.1" };
server.listen(where, () => {
  if (process.env.NOTIFY_FD && process.env.MUTE !== "1")
    require("node:fs").writeSync(Number(process.env.NOTIFY_FD), "READY=1\\n");
});
process.on("SIGTERM", () => server.close(() => process.exit(0)));
`;

/** Asks the server above; resolves with the body, rejects when refused or cut off. */
export async function ask(port: number, path: string): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`);
  return await response.text();
}
