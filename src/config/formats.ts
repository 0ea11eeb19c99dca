/** What a key may do. `admin` may do everything, `write` may also read. */
export type Scope = "ingest" | "read" | "write" | "admin";

export interface ApiKey {
  readonly name: string;
  readonly key: string;
  readonly scopes: readonly Scope[];
}

const scopes: readonly string[] = ["ingest", "read", "write", "admin"] satisfies readonly Scope[];
const allowedKeys =
  "name:key:scope[+scope],… where a key has 16 or more of A-Z a-z 0-9 - _ . ~, a name is used once, " +
  `and a scope is one of ${scopes.join(", ")}`;

/** Reads `name:key:scope,…`. Throws an `Error` that says the format and shows no key. */
export function parseApiKeys(value: string): ApiKey[] {
  const keys = value
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean)
    .map(parseApiKey);
  if (keys.length === 0 || new Set(keys.map((key) => key.name)).size < keys.length) {
    throw new Error(allowedKeys);
  }
  return keys;
}

function parseApiKey(part: string): ApiKey {
  const match = /^([\w.-]{1,64}):([\w.~-]{16,256}):([a-z+]+)$/.exec(part);
  const [, name, key, given] = match ?? [];
  const wanted = given?.split("+") ?? [];
  if (!name || !key || !wanted.every(isScope)) throw new Error(allowedKeys);
  return { name, key, scopes: wanted };
}

/** Whether this names a scope. */
export function isScope(name: unknown): name is Scope {
  return scopes.some((scope) => scope === name);
}

/**
 * The root of an LM Studio from any URL people copy: its root, or one of its `/v1/...` or `/api/...` paths.
 * Gives it without a trailing slash. Throws an `Error` that says what is allowed.
 */
export function homeOfUpstream(value: string): string {
  if (!URL.canParse(value)) throw new Error("http(s) URLs, comma-separated");
  const url = new URL(value);
  if (!["http:", "https:"].includes(url.protocol) || url.username || url.password || url.search || url.hash) {
    throw new Error("http(s) URLs without user, query or fragment, comma-separated");
  }
  const path = url.pathname.replace(/\/(v1|api\/v[01])(\/.*)?$/, "").replace(/\/+$/, "");
  return `${url.origin}${path}`;
}

/** Tokens that callers may use in a UTC day. */
export interface TokensPerDay {
  /** Of each caller that has no limit of its own; absent: as many as they like. */
  readonly standard: number | undefined;
  readonly byCaller: ReadonlyMap<string, number>;
  /** As it was written. */
  readonly toString: () => string;
}

const allowedTokensPerDay =
  "whole numbers, comma-separated: one for every caller, and name=number for single ones; 0 is no limit";

/** Reads `200000,name=500000,…`. Throws an `Error` that says what is allowed. */
export function parseTokensPerDay(value: string): TokensPerDay {
  const byCaller = new Map<string, number>();
  let standard: number | undefined;
  for (const part of value.split(",").map((item) => item.trim())) {
    const [, name, digits] = /^(?:([\w.-]{1,64})=)?(\d{1,15})$/.exec(part) ?? [];
    const isRepeated = name === undefined ? standard !== undefined : byCaller.has(name);
    if (digits === undefined || isRepeated) throw new Error(allowedTokensPerDay);
    const tokens = Number(digits) || Number.POSITIVE_INFINITY;
    if (name === undefined) standard = tokens;
    else byCaller.set(name, tokens);
  }
  return { standard, byCaller, toString: () => value };
}
