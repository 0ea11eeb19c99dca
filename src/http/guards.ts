import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import { isIP } from "node:net";
import { hostname } from "node:os";
import { isLoopback } from "../config/config.ts";
import type { ApiKey, Scope } from "../config/formats.ts";
import { EdgeError } from "./problem.ts";

export interface Reachability {
  /** Address that the server is bound to. */
  readonly host: string;
  /** Ports of this station whose pages may call its servers. */
  readonly ports: readonly number[];
  /** Further names under which the station is reached. */
  readonly allowedHosts: readonly string[];
}

/** Host headers that one guard remembers to be fine. */
const hostsMax = 64;

/**
 * Gives the check that refuses a request which came by a name that is not this station's: a web page elsewhere can
 * point its own name at 127.0.0.1, and is then told apart only by the Host header. On an address that others can reach,
 * IP literals are fine too, because nobody can re-point those.
 * A request that names several hosts, or in its target another one than in its header, names none.
 * The check throws `EdgeError` `host-foreign`.
 */
export function hostGuard(
  reach: Reachability,
): (request: Pick<IncomingMessage, "rawHeaders" | "url">) => void {
  // Nearly every request names the same host: reading it as a URL once is enough.
  const fine = new Set<string>();
  return ({ rawHeaders, url }) => {
    const header = onlyHost(rawHeaders);
    const elsewhere = url?.[0] !== "/" && /^[a-z][a-z+.-]*:/i.test(url ?? "");
    if (!elsewhere && header !== undefined) {
      if (fine.has(header)) return;
      const host = authority.test(header) ? hostOf(`http://${header}`) : undefined;
      if (host !== undefined && isOwnHost(host, reach)) {
        if (fine.size < hostsMax) fine.add(header);
        return;
      }
    }
    throw new EdgeError("host-foreign", "This station does not answer under that host name.");
  };
}

/** The value of the one Host header; `undefined` where there is none, or several. */
function onlyHost(rawHeaders: readonly string[]): string | undefined {
  let host: string | undefined;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index] as string;
    if (name.length !== 4 || name.toLowerCase() !== "host") continue;
    if (host !== undefined) return undefined;
    host = rawHeaders[index + 1];
  }
  return host;
}

/** A host and perhaps a port. A URL parser would find a host in much more: after an @, before a slash, unescaped. */
const authority = /^([\w.-]+|\[[\da-f:.]+\])(:\d{1,5})?$/i;

/**
 * Refuses what a web page of somebody else sent: by `Origin`, and where a browser leaves that out (images,
 * forms, plain GETs) by `Sec-Fetch-Site`. Programs that are not browsers send neither.
 * Throws `EdgeError` `origin-foreign`.
 */
export function checkOrigin(headers: IncomingHttpHeaders, reach: Reachability): void {
  const { origin } = headers;
  if (origin !== undefined) {
    if (isOwnOrigin(origin, reach)) return;
    throw new EdgeError("origin-foreign", "Pages of another origin may not call this station.");
  }
  const site = headers["sec-fetch-site"];
  if (site === "cross-site" || site === "same-site") {
    throw new EdgeError("origin-foreign", "Pages of another origin may not call this station.");
  }
}

function isOwnOrigin(origin: string, reach: Reachability): boolean {
  const host = hostOf(origin);
  if (host === undefined || !isOwnHost(host, reach)) return false;
  const url = new URL(origin);
  // A browser writes nothing but scheme, host and port.
  if (url.origin !== origin.toLowerCase()) return false;
  // A name in front of a proxy keeps the proxy's port; a bare address must be one of our own servers.
  return reach.allowedHosts.includes(host) || reach.ports.includes(Number(url.port || 80));
}

function isOwnHost(host: string, reach: Reachability): boolean {
  const bare = host.replace(/^\[|\]$/g, "");
  if (isLoopback(bare) && (isIP(bare) || bare === "localhost")) return true;
  if (reach.allowedHosts.includes(host)) return true;
  if (isLoopback(reach.host)) return false;
  const own = hostname().toLowerCase();
  return isIP(bare) !== 0 || host === own || host === `${own}.local`;
}

function hostOf(url: string): string | undefined {
  if (!URL.canParse(url)) return undefined;
  const parsed = new URL(url);
  return parsed.protocol === "http:" || parsed.protocol === "https:" ? parsed.hostname : undefined;
}

/** Who shows a key or a token, and what it may do. */
export interface Holder {
  readonly name: string;
  readonly scopes: readonly Scope[];
}

export interface KeyRing {
  /** The holder of a key, if it is one of ours. */
  holderOf(key: string): Holder | undefined;
}

/** Keys by digest, compared without telling by the time taken how much of one was right. */
export function keyRing(keys: readonly ApiKey[], internalKey: string | undefined): KeyRing | undefined {
  if (keys.length === 0) return undefined;
  const station: ApiKey[] = internalKey ? [{ name: "station", key: internalKey, scopes: ["admin"] }] : [];
  const held = [...keys, ...station].map((key) => ({ ...key, digest: digest(key.key) }));
  return {
    holderOf(key) {
      const given = digest(key);
      return held.find((candidate) => timingSafeEqual(candidate.digest, given));
    },
  };
}

/** Everybody on this machine, where no keys are set. */
export const everybodyHere: Holder = { name: "local", scopes: ["admin"] };

/** Throws `EdgeError` `scope-missing` unless the holder has the scope. */
export function checkScope({ scopes }: Holder, wanted: Scope): void {
  const allowed =
    scopes.includes("admin") || scopes.includes(wanted) || (wanted === "read" && scopes.includes("write"));
  if (!allowed) throw new EdgeError("scope-missing", `This key or user lacks the scope ${wanted}.`);
}

/** The key of a request, from the places where clients put it. */
export function keyOf(headers: IncomingHttpHeaders): string | undefined {
  const [, bearer] = /^Bearer\s+(\S+)$/i.exec(headers.authorization ?? "") ?? [];
  const header = headers["x-api-key"];
  return bearer ?? (typeof header === "string" ? header : undefined);
}

/**
 * Tells callers apart who show different keys where none is asked for: a program of a machine has reasons to show
 * one of its own. Nothing can be learnt of the key by it.
 */
export function markOf(key: string): string {
  return digest(key).toString("base64url").slice(0, 22);
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
