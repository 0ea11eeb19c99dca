import { listProcessFacts, type ProcessFacts, portsOf } from "./process-facts.ts";
import type { ServiceRecord } from "./service-status.ts";

/**
 * What a service's processes use together: the one that was started, all that descend from it or share its group, and
 * those that left both but carry its mark. Null where nothing runs, where others run it, and on Windows.
 */
export interface Usage {
  /** Of one core: since it was asked for last, at least half a second ago; over its life the first time. */
  readonly cpuPercent: number | null;
  /** Processor time of this process and what it started. */
  readonly cpuSeconds: number | null;
  /** Sum of the resident memory. What processes share, such as Postgres's buffers, counts for each of them. */
  readonly memoryBytes: number | null;
  readonly processes: number | null;
  /** TCP ports that are really listened on, ascending. */
  readonly ports: readonly number[];
}

/** A service's record with what it uses now; the same in the control API and `status --json`. */
export type MeasuredService = ServiceRecord & Usage;

const unknown: Usage = {
  cpuPercent: null,
  cpuSeconds: null,
  memoryBytes: null,
  processes: null,
  ports: [],
};

/** Two watchers at once must not leave each other a window in which a clock tick is a whole core. */
const windowMinMs = 500;

/** Measures services when somebody asks, and never by itself: a station that nobody watches pays nothing. */
export class ProcessUsage {
  readonly #mark: string;
  readonly #sinceMs = Date.now() - process.uptime() * 1000;
  readonly #cpu = new Map<string, CpuReading>();
  /** Whose the processes are that nobody's tree holds; an environment is read once in a process's life. */
  #strays = new Map<string, string | null>();

  /** `mark`: the value of `PROCESS_MANAGER_MARK` that every child of this manager carries. */
  constructor(mark: string) {
    this.#mark = mark;
  }

  /** One walk over the machine's processes for all of the services. */
  async measure(records: readonly ServiceRecord[]): Promise<MeasuredService[]> {
    const facts = await listProcessFacts();
    if (!facts) return records.map((record) => ({ ...record, ...unknown }));
    const members = this.#membersOf(records, facts);
    const pids = [...members.values()].flat().map(({ pid }) => pid);
    const ports = await portsOf(pids);
    return records.map((record) => ({
      ...record,
      ...this.#usageOf(record, members.get(record.name) ?? [], ports),
    }));
  }

  /** Resident bytes of each service that runs, and nothing that would cost more to know. */
  async memoryOf(records: readonly ServiceRecord[]): Promise<ReadonlyMap<string, number>> {
    const members = this.#membersOf(records, (await listProcessFacts()) ?? []);
    const bytesOf = (facts: readonly ProcessFacts[]): number => sum(facts.map((fact) => fact.memoryBytes()));
    return new Map([...members].map(([name, facts]) => [name, bytesOf(facts)]));
  }

  #usageOf(
    { name, pid, startedAt }: ServiceRecord,
    members: readonly ProcessFacts[],
    ports: ReadonlyMap<number, number[]>,
  ): Usage {
    const living = members.filter((member) => !member.isZombie);
    if (living.length === 0) {
      this.#cpu.delete(name);
      return unknown;
    }
    const cpu = nextCpuReading(this.#cpu.get(name), {
      life: `${pid} ${startedAt}`,
      cpuSeconds: sum(members.map((member) => member.cpuSeconds)),
      atMs: performance.now(),
      ageMs: Date.now() - Math.min(...members.map((member) => member.startedAtMs)),
    });
    this.#cpu.set(name, cpu);
    return {
      cpuPercent: cpu.percent,
      cpuSeconds: cpu.cpuSeconds,
      memoryBytes: sum(living.map((member) => member.memoryBytes())),
      processes: living.length,
      ports: [...new Set(living.flatMap((member) => ports.get(member.pid) ?? []))].sort((a, b) => a - b),
    };
  }

  #membersOf(records: readonly ServiceRecord[], facts: readonly ProcessFacts[]): Map<string, ProcessFacts[]> {
    const leaders = new Map(records.flatMap(({ name, pid }) => (pid === null ? [] : [[pid, name] as const])));
    const byPid = new Map(facts.map((fact) => [fact.pid, fact]));
    const strays = new Map<string, string | null>();
    const owners = new Map<number, string | null>([[process.pid, null]]);
    const ownerOf = (fact: ProcessFacts): string | null => {
      const known = owners.get(fact.pid);
      if (known !== undefined) return known;
      owners.set(fact.pid, null); // whatever a walk over a moving tree shows, this ends
      const parent = byPid.get(fact.ppid);
      const owner =
        leaders.get(fact.pid) ??
        leaders.get(fact.pgid) ??
        (parent && ownerOf(parent)) ??
        this.#ownerOfStray(fact, records, strays);
      owners.set(fact.pid, owner);
      return owner;
    };
    const members = new Map<string, ProcessFacts[]>();
    for (const fact of facts) {
      const owner = ownerOf(fact);
      if (owner !== null) members.set(owner, [...(members.get(owner) ?? []), fact]);
    }
    this.#strays = strays; // those that have ended are forgotten
    return members;
  }

  #ownerOfStray(
    fact: ProcessFacts,
    records: readonly ServiceRecord[],
    strays: Map<string, string | null>,
  ): string | null {
    if (fact.startedAtMs < this.#sinceMs - 2_000) return null; // older than this manager, give or take rounding
    const life = `${fact.pid} ${fact.startedAtMs}`;
    const known = this.#strays.get(life);
    const owner = known === undefined ? this.#markedOwner(fact, records) : known;
    strays.set(life, owner);
    return owner;
  }

  #markedOwner(fact: ProcessFacts, records: readonly ServiceRecord[]): string | null {
    const environment = fact.environment();
    const carries = (name: string, value: string): boolean =>
      [`\0${name}=${value}\0`, ` ${name}=${value} `].some((assignment) => environment.includes(assignment));
    if (!carries("PROCESS_MANAGER_MARK", this.#mark)) return null;
    return records.find(({ name }) => carries("PROCESS_MANAGER_SERVICE", name))?.name ?? null;
  }
}

/** Processor time at a moment, and the share of a core since the reading before. */
export interface CpuReading {
  /** Tells a process from the one that followed it. */
  readonly life: string;
  readonly atMs: number;
  readonly cpuSeconds: number;
  readonly percent: number;
}

/** The reading after the last one of the same life; a life's first looks back over the `ageMs` of it. */
export function nextCpuReading(
  last: CpuReading | undefined,
  now: { readonly life: string; readonly atMs: number; readonly cpuSeconds: number; readonly ageMs: number },
): CpuReading {
  const { life, atMs, ageMs } = now;
  const before = last?.life === life ? last : undefined;
  if (before && atMs - before.atMs < windowMinMs) return before;
  // What an orphan used goes with it: the sum never falls, as a counter must not.
  const cpuSeconds = Math.max(now.cpuSeconds, before?.cpuSeconds ?? 0);
  const usedMs = (cpuSeconds - (before?.cpuSeconds ?? 0)) * 1000;
  const passedMs = before ? atMs - before.atMs : Math.max(ageMs, 10);
  return { life, atMs, cpuSeconds, percent: Math.round((usedMs / passedMs) * 1000) / 10 };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
