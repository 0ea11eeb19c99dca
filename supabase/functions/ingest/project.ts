import type { ReportedFix } from "../../../src/tracking/fix.ts";
import { Refusal } from "./refusal.ts";

/** Where the function runs, and the key with which it may write there. */
export interface Project {
  readonly url: string;
  readonly secretKey: string;
}

const answerTimeoutMs = 8_000;

/**
 * Reads what every project gives its functions: `SUPABASE_SECRET_KEYS`, a JSON object of keys by name, and on older
 * projects `SUPABASE_SERVICE_ROLE_KEY`. Throws `Refusal` `inbox-away` where neither is there.
 */
export function projectOf(environment: { get(name: string): string | undefined }): Project {
  const url = environment.get("SUPABASE_URL");
  const secretKey =
    firstOf(environment.get("SUPABASE_SECRET_KEYS")) ?? environment.get("SUPABASE_SERVICE_ROLE_KEY");
  if (!url || !secretKey) throw new Refusal("inbox-away", "This function has no project to write to.");
  return { url, secretKey };
}

function firstOf(keysJson: string | undefined): string | undefined {
  const keys: Record<string, string> = keysJson ? JSON.parse(keysJson) : {};
  return keys.default ?? Object.values(keys)[0];
}

/** As `pugmark supabase device-key add` makes them: what is none is refused without asking. */
const keyForm = /^pmk_[\w-]{43}$/;

/** The device that a key may report for; `*` is any. Throws `Refusal` `key-missing`, `key-unknown` or `inbox-away`. */
export async function deviceOfKey(project: Project, key: string | undefined): Promise<string> {
  if (key === undefined) {
    throw new Refusal(
      "key-missing",
      "A device key is needed: Authorization: Bearer KEY, X-API-Key: KEY, or ?key=KEY.",
    );
  }
  const unknown = new Refusal("key-unknown", "This device key is not known here, or was revoked.");
  if (!keyForm.test(key)) throw unknown;
  const query = new URLSearchParams({
    select: "device",
    key_hash: `eq.${hex(await sha256(key))}`,
    revoked_at: "is.null",
  });
  const [known] = await ask<{ device: string }>(project, `device_keys?${query}`, {});
  if (!known) throw unknown;
  return known.device;
}

/**
 * Leaves fixes for a station to fetch; says whether they were not there already. The same ones have the same id, so
 * what is sent again, because its answer was lost, is there once. Throws `Refusal` `inbox-away`.
 */
export async function leaveInInbox(project: Project, fixes: readonly ReportedFix[]): Promise<boolean> {
  const devices = new Set(fixes.map(({ device }) => device));
  const [device = "*"] = devices.size === 1 ? devices : [];
  const id = uuidOf(await sha256(JSON.stringify(fixes)));
  const left = await ask(project, "inbox?on_conflict=id&select=id", {
    method: "POST",
    headers: {
      "content-type": "application/json",
      prefer: "resolution=ignore-duplicates,return=representation",
    },
    body: JSON.stringify([{ id, device, fixes }]),
  });
  return left.length > 0;
}

/** PostgREST's answer. */
async function ask<T>(
  { url, secretKey }: Project,
  path: string,
  init: { method?: string; headers?: Record<string, string>; body?: string },
): Promise<T[]> {
  const headers: Record<string, string> = { ...init.headers, apikey: secretKey };
  // Keys of the older kind are tokens too, and are asked for as such.
  if (!secretKey.startsWith("sb_")) headers.authorization = `Bearer ${secretKey}`;
  let why: string;
  try {
    const response = await fetch(`${url.replace(/\/$/, "")}/rest/v1/${path}`, {
      ...init,
      headers,
      signal: AbortSignal.timeout(answerTimeoutMs),
    });
    const body = await response.json();
    if (response.ok) return body;
    why = `${response.status} ${body?.code} ${body?.message}`;
  } catch (error) {
    why = error instanceof Error ? error.name : String(error);
  }
  console.error("the project did not take it:", why);
  throw new Refusal("inbox-away", "The inbox cannot be reached; nothing was stored. Try again in a moment.");
}

async function sha256(text: string): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A UUID of version 8, whose bits mean what its maker wants (RFC 9562). */
function uuidOf(digest: Uint8Array): string {
  const bytes = digest.slice(0, 16);
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x80;
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
  return hex(bytes).replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
