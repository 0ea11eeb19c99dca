import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Definition, ServiceDefinition } from "../definition.ts";
import { eventually, type Fixture } from "../fixture.ts";
import type { ProcessManager } from "../process-manager.ts";
import { listProcesses, type ProcessEntry } from "../processes.ts";
import type { ServiceRecord } from "../service-status.ts";
import { type Answer, askProgram, faultProgram } from "./program.ts";

/** The services of the fault test by their names; `worker` has replicas, `guest` comes and goes with `apply`. */
export const names = {
  /** All that can be named in a command. */
  all: ["store", "api", "web", "worker-1", "worker-2", "deaf", "guest", "migrate"],
  /** Those that have a socket of the manager's and say when they are ready: they restart without a gap. */
  rolling: ["store", "api"],
  /** Those whose liveness is probed. */
  probed: ["store", "api", "web"],
} as const;

/** What `apply` may change, as it is written now. */
interface Written {
  version: Record<string, number>;
  portIndex: Record<string, 0 | 1>;
  stopTimeoutMs: number;
  deafDependsOn: "web" | "store";
  hasGuest: boolean;
}

/** A manager under test, what its definitions say by now, and what its services are known to have printed. */
export class World {
  readonly fixture: Fixture;
  readonly written: Written = {
    version: {},
    portIndex: { store: 0, api: 0, web: 0 },
    stopTimeoutMs: 400,
    deafDependsOn: "web",
    hasGuest: true,
  };
  /** For `LIFE STREAM`, how many lines at least must be in the log. */
  readonly printed = new Map<string, number>();
  readonly #ports: Readonly<Record<string, readonly [number, number]>>;
  readonly #script: string;
  #manager: ProcessManager | null = null;

  private constructor(fixture: Fixture, script: string, ports: World["ports"]) {
    this.fixture = fixture;
    this.#script = script;
    this.#ports = ports;
  }

  static async create(fixture: Fixture): Promise<World> {
    const script = await fixture.script("program.cjs", faultProgram);
    const pair = async (): Promise<[number, number]> => [await fixture.freePort(), await fixture.freePort()];
    const ports = { store: await pair(), api: await pair(), web: await pair() };
    const world = new World(fixture, script, ports);
    world.#manager = await fixture.open(world.definitions(), {
      reload: async () => world.definitions(),
    });
    return world;
  }

  get manager(): ProcessManager {
    if (!this.#manager) throw new Error("there is no manager yet");
    return this.#manager;
  }

  /** Both ports of each service that has one; `written.portIndex` says which is in use. */
  get ports(): Readonly<Record<string, readonly [number, number]>> {
    return this.#ports;
  }

  /** What is written by now. */
  definitions(): Definition[] {
    const { deafDependsOn, hasGuest } = this.written;
    const liveness = {
      kind: "http",
      url: "/who",
      periodMs: 50,
      timeoutMs: 250,
      failureThreshold: 2,
    } as const;
    return [
      this.#service("web", {
        dependsOn: ["api"],
        listen: { port: this.#port("web") },
        readiness: { kind: "http", url: "/who", periodMs: 500 },
        liveness,
        restart: { intensity: 6, backoffBaseMs: 5, backoffCapMs: 50 },
      }),
      this.#service("store", {
        listen: { port: this.#port("store"), hold: true },
        readiness: { kind: "notify" },
        liveness,
      }),
      this.#service("api", {
        dependsOn: ["store"],
        listen: { port: this.#port("api"), hold: true },
        readiness: { kind: "notify", watch: { kind: "http", url: "/who", periodMs: 100 } },
        liveness,
      }),
      this.#service("migrate", { kind: "task", dependsOn: ["store"], restart: {} }),
      this.#service("worker", {
        dependsOn: { store: "started", migrate: "completed" },
        replicas: 2,
        readiness: { kind: "log", pattern: " stdout 2 " },
      }),
      this.#service("deaf", { dependsOn: { [deafDependsOn]: "started" }, stop: { timeoutMs: 100 } }),
      ...(hasGuest ? [this.#service("guest", { dependsOn: { migrate: "completed" } })] : []),
    ];
  }

  record(name: string): ServiceRecord | undefined {
    return this.manager.services().find((record) => record.name === name);
  }

  /** The pid, when there is a process. */
  pidOf(name: string): number | null {
    return this.record(name)?.pid ?? null;
  }

  /** Every process that comes from this world, however far it strayed. */
  async processes(): Promise<ProcessEntry[]> {
    const ours = `FIXTURE=${this.fixture.env.FIXTURE}`;
    return (await listProcesses()).filter((entry) => entry.carries(ours));
  }

  /** The guard: of this process's own children the one that carries no mark. */
  async guardPid(): Promise<number | null> {
    const children = (await listProcesses()).filter((entry) => entry.ppid === process.pid);
    const guard = children.find((entry) => !entry.carries(`FIXTURE=${this.fixture.env.FIXTURE}`));
    return guard?.pid ?? null;
  }

  /** Tells a process what to suffer. Its answer counts: what it says it has printed must come to the log. */
  async tell(pid: number, command: string): Promise<Answer> {
    const answer = await askProgram({ socketPath: join(this.fixture.folder, `control-${pid}`) }, command);
    for (const stream of ["stdout", "stderr"] as const) {
      const key = `${answer.life} ${stream}`;
      this.printed.set(key, Math.max(answer.printed[stream], this.printed.get(key) ?? 0));
    }
    return answer;
  }

  /** Resolves when the service's process is another one, or none, and the manager knows. */
  async untilReplaced(name: string, pid: number): Promise<void> {
    await eventually(`${name} is rid of pid ${pid}`, () => {
      if (this.pidOf(name) === pid) throw new Error(JSON.stringify(this.record(name)));
    });
  }

  /** While this is broken, new processes of the service end at once. */
  async breakStarts(name: string): Promise<AsyncDisposable> {
    const flag = join(this.fixture.folder, `broken-${name}`);
    await writeFile(flag, "");
    return { [Symbol.asyncDispose]: () => rm(flag, { force: true }) }; // two at once may break the same
  }

  #port(name: string): number {
    return this.#ports[name]?.[this.written.portIndex[name] ?? 0] ?? 0;
  }

  #service(name: string, more: Partial<ServiceDefinition>): ServiceDefinition {
    const role = more.kind ?? name;
    return {
      name,
      command: [process.execPath, this.#script],
      restart: { intensity: 10_000, backoffBaseMs: 5, backoffCapMs: 50 },
      stop: { timeoutMs: this.written.stopTimeoutMs },
      logs: { fileMaxBytes: 60_000, files: 1_000 }, // every line is kept, through many turns
      ...more,
      env: { FOLDER: this.fixture.folder, ROLE: role, VERSION: String(this.written.version[name] ?? 0) },
    };
  }
}
