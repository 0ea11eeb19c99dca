import { styleText } from "node:util";
import { describeExit, type ServiceRecord } from "../process-manager/service-status.ts";
import { withStation } from "./control.ts";
import { fail } from "./failure.ts";
import { readableLine } from "./log-line.ts";
import type { Place } from "./place.ts";
import { ago, isWell } from "./service-table.ts";
import { styledState } from "./state-style.ts";

const linesShown = 20;

/** `pugmark why NAME`: all that is known about why a service is as it is. Exit codes as `status` has them. */
export async function why(place: Place, name: string, json: boolean): Promise<number> {
  return await withStation(place, async (station) => {
    const services = await station.services();
    const chosen = services.filter((service) => service.name === name || service.group === name);
    if (chosen.length === 0) {
      const known = services.map((service) => service.name).join(", ");
      return fail([`no service is named "${name}"; there are: ${known}`], 2);
    }
    if (json) console.log(JSON.stringify({ services: chosen }, null, 2));
    else for (const service of chosen) console.log(explanation(service, services).join("\n"));
    return chosen.every(isWell) ? 0 : 1;
  });
}

function explanation(service: ServiceRecord, services: readonly ServiceRecord[]): string[] {
  const { name, state, since, reason } = service;
  const facts = [
    ["process", processOf(service)],
    ["ended", endOf(service)],
    ["restarts", restartsOf(service)],
    ["changed", service.changes.join("; ")],
    ["needs", needsOf(service, services)],
    ["next", nextOf(service)],
  ].filter(([, fact]) => fact !== "");
  return [
    `${styleText("bold", name)} is ${styledState(state)} for ${ago(since)}${reason === "is ready" ? "" : `: ${reason}`}`,
    ...facts.map(([title = "", fact]) => `  ${styleText("dim", title.padEnd(9))} ${fact}`),
    ...lastLinesOf(service),
  ];
}

function processOf({ pid, port, startedAt }: ServiceRecord): string {
  if (startedAt === null) return "";
  const at = port === null ? "" : `, port ${port}`;
  return pid === null ? `last started ${ago(startedAt)} ago${at}` : `pid ${pid} for ${ago(startedAt)}${at}`;
}

function endOf({ lastExit }: ServiceRecord): string {
  if (!lastExit) return "";
  return `the last process ${describeExit(lastExit)} ${ago(lastExit.at)} ago`;
}

/** How many, and for what: the same reason once, with how often it was. */
function restartsOf({ restarts, recentRestarts }: ServiceRecord): string {
  if (restarts === 0) return "";
  const counts = new Map<string, number>();
  for (const { reason } of recentRestarts) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  const reasons = [...counts].map(([reason, count]) => (count > 1 ? `${reason} (${count} times)` : reason));
  return `${restarts}; ${reasons.join("; ")}`;
}

function needsOf({ dependsOn }: ServiceRecord, services: readonly ServiceRecord[]): string {
  const others = services.filter((service) => dependsOn.includes(service.name));
  return others.map(({ name, state }) => `${name} ${styledState(state)}`).join(", ");
}

function nextOf({ name, kind, state, nextTryAt }: ServiceRecord): string {
  if (nextTryAt !== null) return `tries again at ${nextTryAt}`;
  if (kind === "external") return "";
  if (state === "failed") return `nothing by itself: mend it, then pugmark start ${name}`;
  return state === "stopped" ? `pugmark start ${name}` : "";
}

function lastLinesOf({ lastLines, state }: ServiceRecord): string[] {
  if (lastLines.length === 0 || state === "ready") return [];
  const shown = lastLines
    .slice(-linesShown)
    .map((line) => `  ${styleText("dim", "|")} ${readableLine(line)}`);
  return [`  ${styleText("dim", "its last lines")}`, ...shown];
}
