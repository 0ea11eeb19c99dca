import { eventually } from "../fixture.ts";
import { ProcessManagerError } from "../process-manager-error.ts";
import { signalProcess } from "../processes.ts";
import type { Random } from "./random.ts";
import { names, type World } from "./world.ts";

/** One thing that is done to the services. All of it is drawn beforehand: the same seed does the same. */
export interface Deed {
  readonly what: keyof typeof deeds;
  readonly target: string;
  readonly size: number;
}

type Targets = readonly [string, ...string[]];

interface DeedKind {
  /** How often it comes, beside the others. */
  readonly weight: number;
  readonly targets: Targets;
  /** Resolves when it is over and the manager has had its answer to it. */
  readonly run: (world: World, target: string, size: number) => Promise<unknown>;
}

/** All that can happen. */
const deeds = {
  kill: { weight: 10, targets: names.all, run: kill },
  "kill what starts": { weight: 6, targets: names.all, run: killWhatStarts },
  freeze: { weight: 4, targets: names.probed, run: freeze },
  spin: { weight: 3, targets: names.probed, run: spin },
  exit: {
    weight: 6,
    targets: names.all,
    run: (world, name, size) => suffer(world, name, `/exit?size=${size % 2}`),
  },
  flood: {
    weight: 8,
    targets: names.all,
    run: (world, name, size) => onProcess(world, name, `/flood?size=${size}`),
  },
  "flood and kill": { weight: 6, targets: names.all, run: floodAndKill },
  fork: { weight: 10, targets: names.all, run: (world, name) => onProcess(world, name, "/fork") },
  restart: { weight: 14, targets: names.all, run: (world, name) => world.manager.restart(name) },
  "restart to nowhere": { weight: 3, targets: names.rolling, run: restartToNowhere },
  stop: { weight: 10, targets: names.all, run: (world, name) => world.manager.stop(name) },
  start: { weight: 14, targets: names.all, run: (world, name) => world.manager.startAndWait(name) },
  "change and apply": { weight: 12, targets: names.all, run: changeAndApply },
  scale: { weight: 5, targets: ["worker"], run: (world, name, size) => world.manager.scale(name, size % 4) },
  "kill the guard": { weight: 3, targets: ["guard"], run: killGuard },
} satisfies Record<string, DeedKind>;

const kinds = Object.entries(deeds).flatMap(([what, { weight }]) =>
  Array<keyof typeof deeds>(weight).fill(what as keyof typeof deeds),
);

/** The next step: mostly one deed, now and then up to three at once. */
export function drawStep(random: Random): Deed[] {
  const count = random.pick([1, 1, 1, 2, 2, 3]);
  return Array.from({ length: count }, () => {
    const what = kinds[random.below(kinds.length)] ?? "kill";
    const targets: Targets = deeds[what].targets;
    return { what, target: random.pick(targets), size: random.below(600) };
  });
}

/**
 * Does it. Returns the refusal, or null: a service that another deed of the step stopped does not get ready, one that
 * waits for a stopped one neither.
 */
export async function run(world: World, { what, target, size }: Deed): Promise<Error | null> {
  try {
    await deeds[what].run(world, target, size);
    return null;
  } catch (error) {
    const explained = ["start-failed", "restart-failed", "service-unknown"];
    if (!(error instanceof ProcessManagerError && explained.includes(error.code))) throw error;
    return error;
  }
}

async function kill(world: World, name: string): Promise<void> {
  const pid = world.pidOf(name);
  if (pid === null) return;
  signalProcess(pid, "SIGKILL");
  await world.untilReplaced(name, pid);
}

/** Restarts, and kills the new process as soon as it is there. */
async function killWhatStarts(world: World, name: string): Promise<void> {
  const isOf = `PROCESS_MANAGER_SERVICE=${name}`;
  const before = new Set((await world.processes()).map(({ pid }) => pid));
  let isOver = false;
  const restarted = world.manager.restart(name).finally(() => {
    isOver = true;
  });
  restarted.catch(() => undefined);
  await eventually("there is a new process", async () => {
    const fresh = (await world.processes()).filter((entry) => entry.carries(isOf) && !before.has(entry.pid));
    for (const { pid } of fresh) signalProcess(pid, "SIGKILL");
    if (fresh.length === 0 && !isOver) throw new Error("there is none");
  });
  await restarted;
}

/** It lives, and answers nothing. */
async function freeze(world: World, name: string): Promise<void> {
  const pid = world.pidOf(name);
  if (pid === null || world.record(name)?.state !== "ready") return;
  signalProcess(pid, "SIGSTOP");
  await world.untilReplaced(name, pid);
}

async function spin(world: World, name: string): Promise<void> {
  if (world.record(name)?.state === "ready") await suffer(world, name, "/hang");
}

/** Something that ends the process. */
async function suffer(world: World, name: string, command: string): Promise<void> {
  const pid = world.pidOf(name);
  if (pid === null) return;
  await Promise.all([onProcess(world, name, command), world.untilReplaced(name, pid)]);
}

/** Something that its process survives, unless it ends for another reason. */
async function onProcess(world: World, name: string, command: string): Promise<void> {
  const pid = world.pidOf(name);
  if (pid === null) return;
  await eventually(`pid ${pid} was told to ${command}`, async () => {
    await world.tell(pid, command).catch((error: unknown) => {
      if (signalProcess(pid, 0) && world.pidOf(name) === pid) throw error; // its control socket is not open yet
    });
  });
}

async function floodAndKill(world: World, name: string, size: number): Promise<void> {
  const pid = world.pidOf(name);
  if (pid === null) return;
  const flooded = onProcess(world, name, `/flood?size=${size * 10}`);
  await world.tell(pid, "/who").catch(() => undefined);
  await kill(world, name);
  await flooded;
}

/** The new process ends at once; where another still serves, that one must go on. */
async function restartToNowhere(world: World, name: string): Promise<void> {
  const { state, pid } = world.record(name) ?? {};
  if (state !== "ready") return;
  await using _ = await world.breakStarts(name);
  const restarted = world.manager.restart(name);
  restarted.catch(() => undefined);
  await Promise.race([
    restarted.catch(() => undefined),
    eventually(`${name} has died for another reason`, () => {
      if (world.pidOf(name) === pid) throw new Error("it still serves");
    }).catch(() => undefined),
  ]);
}

async function changeAndApply(world: World, name: string, size: number): Promise<void> {
  const { written } = world;
  const index = written.portIndex[name];
  if (size % 5 === 0) written.hasGuest = !written.hasGuest;
  else if (size % 5 === 1) written.deafDependsOn = written.deafDependsOn === "web" ? "store" : "web";
  else if (size % 5 === 2) written.stopTimeoutMs = 300 + size;
  else if (size % 5 === 3 && index !== undefined) written.portIndex[name] = index === 0 ? 1 : 0;
  else written.version[name.replace(/-\d$/, "")] = size;
  await world.manager.apply();
}

async function killGuard(world: World): Promise<void> {
  const pid = await world.guardPid();
  if (pid !== null) signalProcess(pid, "SIGKILL");
  await eventually("there is another guard", async () => {
    const now = await world.guardPid();
    if (now === null || now === pid) throw new Error(`the guard is ${now}`);
  });
}
