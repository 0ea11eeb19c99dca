import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { refuses } from "../fixture.ts";
import type { State } from "../lifecycle.ts";
import { findPortOwner } from "../port-owner.ts";
import type { ServiceEvent, ServiceRecord } from "../service-status.ts";
import { askProgram } from "./program.ts";
import type { World } from "./world.ts";

const atRest: readonly State[] = ["stopped", "completed", "failed", "waiting"];

/** Hears every event and looks at the machine: whatever is not as the manager says is a violation. */
export class Witness {
  /** What was seen in events that must never be. */
  readonly violations: string[] = [];
  /** All events, for whoever has to find out. */
  readonly history: string[] = [];
  readonly #world: World;
  readonly #states = new Map<string, State>();
  readonly #restarts = new Map<string, number>();
  /** What services were until this very turn: who decided on it a moment ago was right. */
  readonly #justWas = new Map<string, State>();
  #isStoppingAll = false;
  #overlapsSeen = 0;

  constructor(world: World) {
    this.#world = world;
    world.manager.onEvent((event) => this.#hear(event));
  }

  /** From now on, who stops must stop after its dependants. */
  expectOrderlyStop(): void {
    this.#isStoppingAll = true;
  }

  /** Throws when what runs is not what the records say, as of now. */
  async assertRealityMatches(): Promise<void> {
    const records = this.#world.manager.services();
    for (const record of records) this.#assertSettled(record);
    const processes = await this.#world.processes();
    const known = new Set<number>();
    for (const { name, pid } of records) {
      const own = processes.filter((entry) => entry.carries(`PROCESS_MANAGER_SERVICE=${name}`));
      const life = pid === null ? null : (await this.#world.tell(pid, "/who")).life;
      for (const entry of own) {
        assert.ok(
          entry.carries(`PROCESS_MANAGER_LIFE=${life}`),
          `${name}: pid ${entry.pid} is not of the life of pid ${pid}`,
        );
        known.add(entry.pid);
      }
    }
    const orphans = processes.filter(({ pid }) => !known.has(pid));
    assert.deepEqual(orphans, [], `nobody knows pid ${orphans.map(({ pid }) => pid)}`);
    for (const [name, ports] of Object.entries(this.#world.ports)) {
      const record = records.find((one) => one.name === name);
      for (const port of ports)
        if (record?.port === port && record.state === "ready") await assertServed(port, record);
        else await assertNotServed(port, known);
    }
    for (const { name, restarts } of records)
      assert.equal(restarts, this.#restarts.get(name) ?? 0, `the restarts of ${name}`);
  }

  /** Throws when the process of a service that is up was not started from what is written now. */
  async assertWrittenIsRun(): Promise<void> {
    const processes = await this.#world.processes();
    for (const { name, group, pid } of this.#world.manager.services()) {
      const version = this.#world.written.version[group] ?? 0;
      const process = processes.find((entry) => entry.pid === pid);
      if (process) assert.ok(process.carries(`VERSION=${version}`), `${name} runs an older definition`);
    }
  }

  /** Throws unless each line that was printed is in the log once and in its place. */
  async assertLogsComplete(): Promise<void> {
    const folder = join(this.#world.fixture.home, "logs");
    const files = (await readdir(folder)).filter((file) => /^(?!manager\.).*\.log(\.\d+)?$/.test(file));
    const age = (file: string): number => Number(file.split(".")[2] ?? 0);
    const counts = new Map<string, number>();
    for (const file of files.sort((a, b) => age(b) - age(a))) {
      const lines = (await readFile(join(folder, file), "utf8")).split("\n");
      if (lines.at(-1) === "") lines.pop();
      for (const [index, line] of lines.entries()) {
        const [life, stream, number] = line.split(" ");
        const key = `${life} ${stream}`;
        const next = (counts.get(key) ?? 0) + 1;
        const wanted = `${key} ${next} ${"x".repeat(next % 61)}`;
        assert.equal(
          line,
          wanted,
          `line ${number} of ${key} in ${file}, at ${lines.slice(index, index + 9)}`,
        );
        counts.set(key, next);
      }
    }
    for (const [key, printed] of this.#world.printed)
      assert.ok((counts.get(key) ?? 0) >= printed, `${key}: ${counts.get(key)} of ${printed} lines`);
  }

  /** Services of which two processes served at once since the last call. */
  async newOverlaps(): Promise<string[]> {
    const text = await readFile(join(this.#world.fixture.folder, "overlaps"), "utf8").catch(() => "");
    const lines = text.split("\n").filter((line) => line !== "");
    const found = lines.slice(this.#overlapsSeen);
    this.#overlapsSeen = lines.length;
    return found.map((line) => line.split(" ")[0] ?? "");
  }

  #assertSettled({ name, state, reason, pid, kind, dependsOn }: ServiceRecord): void {
    const where = `${name} is ${state}: ${reason}`;
    if (state === "ready") assert.notEqual(pid, null, where);
    else assert.ok(atRest.includes(state) && pid === null, `${where} (pid ${pid})`);
    if (state === "completed") assert.equal(kind, "task", where);
    if (state === "waiting")
      assert.ok(
        dependsOn.some((other) => !this.#isThere(name, other)),
        where,
      );
    if (state === "failed" && kind === "service") assert.match(reason, /more than 6 restarts within/);
  }

  #hear({ service, from, to, reason }: ServiceEvent): void {
    this.history.push(`${service}: ${from} → ${to}: ${reason}`);
    const last = this.#states.get(service) ?? "stopped";
    if (last !== from) this.#complain(`${service} was ${last} and went from ${from} to ${to}`);
    this.#states.set(service, to);
    this.#justWas.set(service, from);
    setImmediate(() => this.#justWas.delete(service));
    const isOneMore = reason.startsWith("is being restarted: ");
    if (from !== to && to === "waiting")
      this.#restarts.set(service, isOneMore ? (this.#restarts.get(service) ?? 0) + 1 : 0);
    if ((from === "backoff" && to === "starting") || (from === to && / took over from /.test(reason)))
      this.#restarts.set(service, (this.#restarts.get(service) ?? 0) + 1);
    if (from === "waiting" && to === "starting") this.#checkStart(service);
    if (this.#isStoppingAll && to === "stopping" && from !== to) this.#checkStop(service);
  }

  #checkStart(service: string): void {
    for (const dependency of this.#world.record(service)?.dependsOn ?? [])
      if (!this.#isThere(service, dependency) && !isUp(this.#justWas.get(dependency)))
        this.#complain(`${service} started though ${dependency} is ${this.#world.record(dependency)?.state}`);
  }

  #checkStop(service: string): void {
    for (const { name, dependsOn, state } of this.#world.manager.services())
      if (dependsOn.includes(service) && !atRest.includes(state))
        this.#complain(`${service} was stopped while ${name}, which needs it, was ${state}`);
  }

  /** Whether a dependency is in the state that the definitions of the world ask for. */
  #isThere(service: string, dependency: string): boolean {
    const { state, pid, completedAt } = this.#world.record(dependency) ?? {};
    if (dependency === "migrate") return completedAt !== null && completedAt !== undefined;
    const isStarted = service === "deaf" || service.startsWith("worker");
    return isStarted ? pid !== null && pid !== undefined : state === "ready";
  }

  #complain(what: string): void {
    this.violations.push(what);
  }
}

function isUp(state: State | undefined): boolean {
  return state === "ready" || state === "completed";
}

/** The port is served by the very process that the record names. */
async function assertServed(port: number, { name, pid }: ServiceRecord): Promise<void> {
  const answer = await askProgram({ port }, "/who");
  assert.equal(answer.pid, pid, `port ${port} of ${name} is served by pid ${answer.pid}`);
}

/** Neither we nor one of those listens there. Others of this machine may: it was free, not reserved. */
async function assertNotServed(port: number, ours: ReadonlySet<number>): Promise<void> {
  if (await refuses(port)) return;
  const pid = (await findPortOwner(port))?.pid ?? null;
  const isOurs = pid !== null && (pid === process.pid || ours.has(pid));
  assert.ok(!isOurs, `port ${port} is served by pid ${pid} though nothing should`);
}
