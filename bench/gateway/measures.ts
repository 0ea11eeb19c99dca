import { setTimeout as delay } from "node:timers/promises";
import { percentile } from "../support/report.ts";
import { type Asking, ask, askFor, type Observed, saidIn, type Target, within } from "./ask.ts";
import type { RunningGateway } from "./gateways/gateway.ts";
import { type Load, load } from "./load.ts";
import { type Counts, faults, question, textOf, tokensByDefault, type Wish } from "./question.ts";
import { residentMiB } from "./resident-memory.ts";

/** What one measure works on. */
export interface Bench {
  readonly gateway: RunningGateway;
  /** The stand-in for LM Studio, asked directly. */
  readonly direct: Target;
  readonly counts: () => Promise<Counts>;
  readonly resetCounts: () => Promise<void>;
  /** Seconds of each load. */
  readonly seconds: number;
}

/** Cells of one column by the names of their rows. */
type Findings = Readonly<Record<string, string>>;

/** Each takes some seconds but `memory`, which takes minutes and runs only where it is named. */
export const measures = {
  right,
  latency,
  throughput,
  stream,
  cache,
  identical,
  leave,
  faults: failing,
  memory,
};

/** Nothing is timed of a gateway that answers wrongly. One that does not stream is left out where streams are timed. */
async function right({ gateway, direct }: Bench): Promise<Findings> {
  const wrong: string[] = [];
  for (const stream of [false, true]) {
    for (const [who, target] of Object.entries({ direct, gateway })) {
      const answer = await askFor(target, question({ stream }));
      const fine =
        answer.status === 200 && answer.end === "whole" && saidIn(answer) === textOf(tokensByDefault);
      if (fine) continue;
      const what = stream ? "streams" : "whole answers";
      if (who === "direct" || !stream) throw new Error(`wrong ${what} from ${target.origin}: ${answer.body}`);
      wrong.push(`${what}: ${answer.status || answer.end}`);
    }
  }
  return { "answers rightly": wrong.length === 0 ? "yes" : `not all: ${wrong.join(", ")}` };
}

/** One call at a time, by turns directly and through the gateway: the differences of neighbours. */
async function latency({ gateway, direct }: Bench): Promise<Findings> {
  const { straight, added } = await pairs(1_000, 200, direct, gateway, false, ({ ms }) => ms);
  return { "alone: added ms, p50 / p99 (× direct)": addedCell(straight, added) };
}

async function throughput({ gateway, direct, seconds }: Bench): Promise<Findings> {
  const options = { connections: 64, seconds };
  await load(gateway, { ...options, seconds: Math.min(3, seconds) });
  const straight: Load[] = [];
  const through: Load[] = [];
  for (const _round of [1, 2]) {
    straight.push(await load(direct, options));
    through.push(await load(gateway, options));
  }
  const [before, after] = [meanOf(straight), meanOf(through)];
  const failed = after.failed > 0 ? `, ${whole(after.failed)} failed` : "";
  const times = ({ p50Ms, p99Ms }: Omit<Load, "text">) => `${p50Ms.toFixed(1)} / ${p99Ms.toFixed(1)}`;
  return {
    "64 connections, all different: /s (of direct)": `${whole(after.rps)} (${share(after.rps / before.rps)})${failed}`,
    "… p50 / p99 ms (direct)": `${times(after)} (${times(before)})`,
    ...(gateway.logged ? await logOf(gateway.logged, through) : {}),
  };
}

/** Whether each call that was answered is in the gateway's durable log, be it a moment later. */
async function logOf(logged: (text: string) => Promise<number>, loads: readonly Load[]): Promise<Findings> {
  const answered = loads.reduce((sum, { requests }) => sum + requests, 0);
  let found = 0;
  await within(20_000, async () => {
    const each = await Promise.all(
      loads.map(({ text, requests }) => logged(text).then((n) => Math.min(n, requests))),
    );
    found = each.reduce((sum, one) => sum + one, 0);
    return found === answered ? true : undefined;
  });
  return {
    "… of those, in its durable log": found === answered ? "all" : `${whole(found)} of ${whole(answered)}`,
  };
}

async function stream({ gateway, direct }: Bench): Promise<Findings> {
  if (!(await streams(gateway))) return { "first chunk: added ms, p50 / p99 (× direct)": "does not stream" };
  const { straight, added } = await pairs(300, 30, direct, gateway, true, ({ firstMs }) => firstMs);
  const paced = question({ stream: true, wish: { tokens: 50, gapMs: 20 } });
  const [through, straightPaced] = [await askFor(gateway, paced), await askFor(direct, paced)];
  const pace = ({ reads, largestGapMs }: Observed) => `${reads}, ${largestGapMs.toFixed(0)} ms`;
  return {
    "first chunk: added ms, p50 / p99 (× direct)": addedCell(straight, added),
    "50 tokens at 20 ms: reads, longest gap (direct)": `${pace(through)} (${pace(straightPaced)})`,
  };
}

async function cache({ gateway, direct, counts, resetCounts, seconds }: Bench): Promise<Findings> {
  const kept = async (stream: boolean) => {
    await resetCounts();
    const body = question({ stream });
    const [first, again] = [await askFor(gateway, body), await askFor(gateway, body)];
    return (await counts()).calls === 1 && saidIn(first) !== undefined && saidIn(first) === saidIn(again);
  };
  const [whole_, streamed] = [await kept(false), await kept(true)];
  const row = { "a second time: from the cache, whole / streamed": `${yes(whole_)} / ${yes(streamed)}` };
  if (!whole_) return row;
  await resetCounts();
  const hot = await load(gateway, { connections: 64, seconds, same: true });
  const { calls } = await counts();
  const straight = await load(direct, { connections: 64, seconds, same: true });
  const failed = hot.failed > 0 ? `, ${hot.failed} failed` : "";
  return {
    ...row,
    "64 connections, all the same: /s (of direct), p50 ms": `${whole(hot.rps)} (${share(hot.rps / straight.rps)}), ${hot.p50Ms.toFixed(1)}${failed}`,
    "… calls of the model": String(calls),
  };
}

/** A hundred callers ask the same while the model still thinks. */
async function identical({ gateway, counts, resetCounts }: Bench): Promise<Findings> {
  const findings: Record<string, string> = {};
  for (const stream of [false, true]) {
    await resetCounts();
    const body = question({ stream, wish: { latencyMs: 300, tokens: 10, gapMs: 30 } });
    const answers = await Promise.all(Array.from({ length: 100 }, () => askFor(gateway, body)));
    const served = answers.filter((answer) => answer.end === "whole" && saidIn(answer) === textOf(10)).length;
    const slowest = Math.max(...answers.map(({ ms }) => ms));
    // Who hears nothing before the end hears all of it at once.
    const live = answers.filter(({ ms, firstMs }) => ms - firstMs > 150).length;
    findings[`100 identical at once, ${stream ? "streamed" : "whole"}: calls of the model, served, slowest`] =
      `${(await counts()).calls}, ${served}, ${slowest.toFixed(0)} ms${stream ? `, ${live} live` : ""}`;
  }
  return findings;
}

/** When does the model hear that nobody listens any more? */
async function leave({ gateway, counts, resetCounts }: Bench): Promise<Findings> {
  const heard = async (leaving: () => number): Promise<string> => {
    const leftAt = leaving();
    const abortedAt = await within(2_000, async () => {
      const found = await counts();
      return found.aborted > 0 ? found.abortedAt : undefined;
    });
    return abortedAt === undefined ? "never" : (abortedAt - leftAt).toFixed(1);
  };
  const underWay = async (stream: boolean, wish: Wish): Promise<[Asking, string]> => {
    await resetCounts();
    const body = question({ stream, wish });
    const asking = ask(gateway, body, { alone: true });
    await within(2_000, async () => ((await counts()).calls > 0 ? true : undefined));
    return [asking, body];
  };
  const [waiting] = await underWay(false, { latencyMs: 4_000 });
  const beforeAnswer = await heard(waiting.leave);
  const [silent] = await underWay(true, { latencyMs: 4_000 });
  const beforeChunk = await heard(silent.leave);
  const [reading] = await underWay(true, { tokens: 80, gapMs: 50 });
  await reading.begun;
  const amid = await heard(reading.leave);

  const [one, body] = await underWay(false, { latencyMs: 700 });
  const other = ask(gateway, body, { alone: true });
  // Long enough for the second to be there; it has no sign of its own where calls are joined.
  await delay(200);
  one.leave();
  const { status, end } = await other.answer;
  return {
    "caller leaves → model aborted, ms: whole / before 1st chunk / amid": `${beforeAnswer} / ${beforeChunk} / ${amid}`,
    "one of two twins leaves: the other gets": end === "whole" ? String(status) : end,
  };
}

/** What a caller gets to see where LM Studio fails, and how often LM Studio was asked. */
async function failing({ gateway, counts, resetCounts }: Bench): Promise<Findings> {
  const findings: Record<string, string> = {};
  for (const stream of [false, true]) {
    for (const fault of faults) {
      if (fault === "error-event" && !stream) continue;
      // A gateway may well keep away from a model server that has just failed.
      await within(15_000, async () =>
        (await askFor(gateway, question())).status === 200 ? true : undefined,
      );
      await resetCounts();
      const answer = await askFor(gateway, question({ stream, wish: { fault } }), {
        alone: true,
        patienceMs: 6_000,
      });
      const { calls } = await counts();
      findings[`${fault}, ${stream ? "streamed" : "whole"}`] =
        `${outcomeOf(answer)}, ${calls}×, ${answer.ms.toFixed(0)} ms`;
    }
  }
  return findings;
}

/** In a caller's words: an error it can read, a broken connection, or a failure that looks like an answer. */
function outcomeOf(answer: Observed): string {
  const { status, end, body } = answer;
  if (end === "waited") return "no answer";
  if (status === 0) return "connection broken";
  const [, told] = /"message"\s*:\s*"([^"]+)/.exec(body) ?? [];
  const [, bare] = /"error"\s*:\s*"([^"]+)/.exec(body) ?? [];
  if (status >= 400) {
    const isSaid = told !== undefined && !told.includes("undefined");
    return `${status}, ${isSaid ? "reason" : bare ? "bare reason" : "**no reason**"}`;
  }
  if (end === "broken") return `${status}, broken off`;
  if (/"error"/.test(body)) return `${status}, error${body.includes("event: error") ? " event" : ""}`;
  return `${status}, **looks whole**`;
}

/** Resident memory along the way: flat, or does it only grow? */
async function memory({ gateway }: Bench): Promise<Findings> {
  const at: string[] = [`${residentMiB(gateway.pids()).toFixed(0)}`];
  let asked = 0;
  for (const mark of [200_000, 400_000]) {
    while (asked < mark) asked += (await load(gateway, { connections: 64, seconds: 10 })).requests;
    at.push(residentMiB(gateway.pids()).toFixed(0));
  }
  return { "resident MiB: start → 200,000 → 400,000 calls": at.join(" → ") };
}

async function streams(target: Target): Promise<boolean> {
  return saidIn(await askFor(target, question({ stream: true }))) === textOf(tokensByDefault);
}

async function pairs(
  count: number,
  warmUp: number,
  direct: Target,
  gateway: Target,
  stream: boolean,
  of: (answer: Observed) => number,
): Promise<{ straight: number[]; added: number[] }> {
  const straight: number[] = [];
  const added: number[] = [];
  for (let pair = -warmUp; pair < count; pair += 1) {
    const alone = of(await askFor(direct, question({ stream })));
    const through = of(await askFor(gateway, question({ stream })));
    if (pair < 0) continue;
    straight.push(alone);
    added.push(through - alone);
  }
  return { straight, added };
}

function addedCell(straight: readonly number[], added: readonly number[]): string {
  const [p50, p99] = [percentile(added, 0.5), percentile(added, 0.99)];
  const ratio = (p50 + percentile(straight, 0.5)) / percentile(straight, 0.5);
  return `${p50.toFixed(2)} / ${p99.toFixed(1)} (${ratio.toFixed(1)}×)`;
}

function meanOf(loads: readonly Load[]): Omit<Load, "text"> {
  const mean = (of: keyof Omit<Load, "text">) => loads.reduce((sum, one) => sum + one[of], 0) / loads.length;
  return {
    rps: mean("rps"),
    p50Ms: mean("p50Ms"),
    p99Ms: mean("p99Ms"),
    requests: mean("requests"),
    failed: mean("failed"),
  };
}

function whole(value: number): string {
  return Math.round(value).toLocaleString("en");
}

function share(ratio: number): string {
  return `${Math.round(ratio * 100)} %`;
}

function yes(fact: boolean): string {
  return fact ? "yes" : "no";
}
