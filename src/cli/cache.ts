import { stripVTControlCharacters } from "node:util";
import { type Static, type TSchema, Type } from "typebox";
import { Check } from "typebox/value";
import { originOf } from "../config/address.ts";
import type { Config } from "../config/config.ts";
import { exitCodes, fail } from "./failure.ts";
import { sizeOf } from "./service-table.ts";
import { internalKey } from "./station.ts";
import { printTable } from "./table.ts";

/** Which answers are to be forgotten; without any part, all. */
export interface Forgotten {
  readonly model?: string | undefined;
  readonly prefix?: string | undefined;
}

/** A removal may wait for Redis for a while. */
const timeoutMs = 30_000;

/** `pugmark cache`: what answers the chat server keeps. Gives the exit code: 3 where no chat server answers. */
export async function showCache(config: Config, json: boolean): Promise<number> {
  return asked(config, { method: "GET", path: "/cache", schema: Stats }, (stats) => {
    if (json) console.log(JSON.stringify(stats, null, 2));
    else printStats(stats);
  });
}

/** `pugmark cache clear`: forgets answers, those of every caller. Gives the exit code as `showCache` does. */
export async function clearCache(config: Config, forgotten: Forgotten, json: boolean): Promise<number> {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(forgotten)) if (value !== undefined) query.set(name, value);
  const path = `/cache?${query}`;
  return asked(config, { method: "DELETE", path, schema: Removal }, (removal) => {
    if (json) console.log(JSON.stringify(removal, null, 2));
    else {
      console.log(`${counted(removal.removed, "answer")} forgotten.`);
      if (removal.pending) console.log("Redis cannot be reached: it forgets as soon as it can be.");
    }
  });
}

const Stats = Type.Object({
  entries: Type.Integer(),
  bytes: Type.Integer(),
  bytes_max: Type.Integer(),
  ttl_s: Type.Number(),
  hits: Type.Integer(),
  misses: Type.Integer(),
  models: Type.Array(
    Type.Object({
      model: Type.String(),
      entries: Type.Integer(),
      bytes: Type.Integer(),
      hits: Type.Integer(),
    }),
  ),
  redis: Type.Union([Type.Object({ state: Type.String(), hits: Type.Integer() }), Type.Null()]),
});

const Removal = Type.Object({ removed: Type.Integer(), pending: Type.Boolean() });
const ProblemBody = Type.Object({ detail: Type.String(), code: Type.String() });

interface Request<S> {
  readonly method: "GET" | "DELETE";
  readonly path: string;
  readonly schema: S;
}

async function asked<S extends TSchema>(
  config: Config,
  { method, path, schema }: Request<S>,
  show: (body: Static<S>) => void,
): Promise<number> {
  const baseUrl = originOf({ host: config.HOST, port: config.CHAT_PORT });
  const headers: Record<string, string> = config.PUGMARK_API_KEYS
    ? { authorization: `Bearer ${internalKey(config)}` }
    : {};
  let response: Response;
  let body: unknown;
  try {
    response = await fetch(baseUrl + path, { method, headers, signal: AbortSignal.timeout(timeoutMs) });
    body = await response.json().catch(() => undefined);
  } catch {
    const start = "start the station with `npm start`, or see `npm run -s pugmark -- status`";
    return fail([`no chat server answers at ${baseUrl}: ${start}`], exitCodes["not-running"] ?? 1);
  }
  if (response.ok && Check(schema, body)) {
    show(body);
    return 0;
  }
  if (Check(ProblemBody, body)) return fail([plain(body.detail)], 1);
  return fail([`what answers at ${baseUrl} is not Pugmark's chat server; see CHAT_PORT`], 1);
}

function printStats({ bytes_max, ttl_s, hits, misses, models, redis }: Static<typeof Stats>): void {
  if (ttl_s === 0) {
    console.log("The cache is off (CACHE_TTL=0).");
    return;
  }
  if (models.length > 0) {
    printTable(
      ["model", "answers", "memory", "given again"],
      models.map((each) => [plain(each.model), String(each.entries), sizeOf(each.bytes), String(each.hits)]),
    );
  } else console.log("No answers are kept.");
  const looked = hits + misses;
  const share = looked === 0 ? "" : ` (${Math.round((hits / looked) * 100)} %)`;
  const there = redis === null ? "" : `, ${redis.hits} of them in Redis, which is ${redis.state}`;
  console.log(`\nFound ${hits} of ${counted(looked, "question")}${share}${there}.`);
  console.log(`An answer is good for ${ttl_s} s; memory for them: ${sizeOf(bytes_max)}.`);
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Names come from callers, and must not steer the terminal. */
function plain(text: string): string {
  return stripVTControlCharacters(text).replace(/\p{Cc}/gu, " ");
}
