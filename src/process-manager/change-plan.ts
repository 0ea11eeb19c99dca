import { isDeepStrictEqual } from "node:util";
import { keyDifferences } from "./key-differences.ts";
import type { Resolved, ResolvedService } from "./resolve-definitions.ts";

/** What becoming of new definitions means for one service. */
export interface Change {
  readonly name: string;
  /** `update`: taken over without a new process. */
  readonly action: "add" | "remove" | "restart" | "update" | "keep";
  /** What differs, in words; values of variables are never shown. */
  readonly why: readonly string[];
}

/** What a running process was started with: a change of these needs another one. */
const ofTheProcess = ["kind", "command", "cwd", "env", "user", "listen", "readiness", "schedule"] as const;

/** What the manager alone goes by. */
const ofTheManager = [
  "description",
  "dependsOn",
  "liveness",
  "startTimeoutMs",
  "restart",
  "stop",
  "logs",
  "watch",
  "memoryMaxMiB",
] as const;

/** A definition as far as the manager goes by it, with what its process was started from. */
export function asStarted(definition: ResolvedService, started: ResolvedService): ResolvedService {
  return { ...definition, ...Object.fromEntries(ofTheProcess.map((field) => [field, started[field]])) };
}

/** What has to be done so that what runs is what is defined, in the order of the new definitions; removals last. */
export function planChanges(before: readonly Resolved[], after: readonly Resolved[]): Change[] {
  const old = new Map(before.map((definition) => [definition.name, definition]));
  const changes = after.map((definition): Change => {
    const { name } = definition;
    const previous = old.get(name);
    old.delete(name);
    return previous ? changeOf(previous, definition) : { name, action: "add", why: ["is new"] };
  });
  const gone = [...old.keys()].map(
    (name): Change => ({ name, action: "remove", why: ["is no more defined"] }),
  );
  return [...changes, ...gone];
}

function changeOf(before: Resolved, after: Resolved): Change {
  const { name } = after;
  if (before.kind === "external" || after.kind === "external") {
    const same = before.kind === after.kind && isSame(before, after);
    return { name, action: same ? "keep" : "restart", why: same ? [] : ["is watched in another way"] };
  }
  const restart = ofTheProcess.flatMap((field) => difference(field, before, after));
  const update = ofTheManager.flatMap((field) => difference(field, before, after));
  const action = restart.length > 0 ? "restart" : update.length > 0 ? "update" : "keep";
  return { name, action, why: [...restart, ...update] };
}

function difference(field: keyof ResolvedService, before: ResolvedService, after: ResolvedService): string[] {
  if (isSame(before[field], after[field])) return [];
  if (field !== "env") return [`${field} changed`];
  return keyDifferences(before.env, after.env, "variable ", "was removed");
}

/** Functions are made anew at each load and say nothing. */
function isSame(a: unknown, b: unknown): boolean {
  return isDeepStrictEqual(withoutFunctions(a), withoutFunctions(b));
}

function withoutFunctions(value: unknown): unknown {
  return value === undefined ? undefined : JSON.parse(JSON.stringify(value, (_key, one) => one ?? null));
}
