import { createClient } from "@supabase/supabase-js";
import { type Finding, fails, fine, warns } from "../../config/finding.ts";

export interface ProjectToCheck {
  readonly url: string;
  readonly publishableKey?: string | undefined;
  readonly secretKey?: string | undefined;
  /** Whether tokens that are signed by the legacy secret can be checked here. */
  readonly hasJwtSecret: boolean;
  /** Where photos are to be mirrored; absent: their files stay at the station. */
  readonly photosBucket?: string | undefined;
  /** Versions of all our migrations. */
  readonly versions: readonly string[];
}

/** What `public.sync_project_state()` gives. */
interface ProjectState {
  /** Of migrations: in our own record, and in the Supabase CLI's. */
  readonly versions: { readonly pugmark: readonly string[]; readonly supabase: readonly string[] };
  readonly is_feed: boolean;
  readonly now: string;
}

const timeoutMs = 10_000;
/** Tokens are let pass with clocks this far apart, and whose edit is the later one is said by clocks. */
const skewMaxS = 5;

export interface ProjectReport {
  readonly findings: readonly Finding[];
  /** Versions of the migrations that the project has; null where it does not say. */
  readonly applied: readonly string[] | null;
}

/** Asks a Supabase project for all that a station needs of it. Shows no key. */
export async function checkProject(project: ProjectToCheck): Promise<ProjectReport> {
  const address = await checkAddress(project);
  if (address.outcome === "fail") return { findings: [address], applied: null };
  const edges = Promise.all([checkPublishableKey(project), checkUsers(project), checkFunction(project)]);
  const { findings, applied } = await checkDatabase(project);
  return { findings: [address, ...(await edges), ...findings], applied };
}

async function checkAddress({ url, publishableKey, secretKey }: ProjectToCheck): Promise<Finding> {
  const remedy =
    "copy SUPABASE_URL from the dashboard (Project Settings → Data API); a paused project is resumed there";
  const { status, type } = await ask(url, "/auth/v1/health", publishableKey ?? secretKey);
  const { host, pathname } = new URL(url);
  if (status === 0) return fails("project", `nothing answers at ${host}`, remedy);
  if (status === 540) return fails("project", `${host} is paused`, remedy);
  if (status >= 500) return fails("project", `${host} answers ${status}`, remedy);
  if (status === 404 || !type.includes("json")) {
    const where = `${host}${pathname.replace(/\/+$/, "")}`;
    return fails("project", `what answers at ${where} is no project`, remedy);
  }
  return fine("project", `${host} answers`);
}

async function checkPublishableKey({ url, publishableKey }: ProjectToCheck): Promise<Finding> {
  const where = "copy SUPABASE_KEY from the dashboard (Project Settings → API Keys: publishable, or anon)";
  if (publishableKey === undefined)
    return warns("key", "SUPABASE_KEY is not set: functions of the project cannot be called", where);
  const { status } = await ask(url, "/auth/v1/settings", publishableKey);
  if (status !== 200) return fails("key", `SUPABASE_KEY is refused (${status})`, where);
  const { error } = await stateOf(url, publishableKey);
  return error
    ? fine("key", "SUPABASE_KEY is accepted")
    : fails("key", "SUPABASE_KEY is the secret key, which is for SUPABASE_SERVICE_ROLE alone", where);
}

async function checkUsers({ url, hasJwtSecret }: ProjectToCheck): Promise<Finding> {
  const { status, body } = await ask(url, "/auth/v1/.well-known/jwks.json");
  const { keys = [] } = (body ?? {}) as { keys?: readonly unknown[] };
  const count = status === 200 ? keys.length : 0;
  const legacy = hasJwtSecret ? " and the legacy secret" : "";
  if (count > 0) return fine("users", `are known by the keys that the project publishes (${count})${legacy}`);
  if (hasJwtSecret) return fine("users", "are known by the legacy secret");
  return warns(
    "users",
    "cannot be known: the project publishes no keys, so it signs their tokens by its legacy secret",
    "dashboard: Project Settings → JWT Keys → migrate; or set SUPABASE_JWT_SECRET. Nothing to do without users",
  );
}

async function checkFunction({ url, publishableKey }: ProjectToCheck): Promise<Finding> {
  // Whatever it says to somebody without a device key, it says so in JSON.
  const { status, type } = await ask(url, "/functions/v1/ingest", publishableKey);
  return status > 0 && status !== 404 && type.includes("json")
    ? fine("inbox", "the function ingest is there")
    : warns(
        "inbox",
        "the function ingest is not there: phones cannot report to the project",
        "pugmark functions deploy ingest",
      );
}

async function checkDatabase({
  url,
  secretKey,
  versions,
  photosBucket,
}: ProjectToCheck): Promise<ProjectReport> {
  const where =
    "copy SUPABASE_SERVICE_ROLE from the dashboard (Project Settings → API Keys: secret, or service_role)";
  const refused = (detail: string): ProjectReport => ({
    findings: [fails("secret", detail, where)],
    applied: null,
  });
  if (secretKey === undefined) return refused("SUPABASE_SERVICE_ROLE is not set: nothing is mirrored");
  const askedAt = Date.now();
  const { state, error } = await stateOf(url, secretKey);
  const answeredAt = Date.now();
  const accepted = fine("secret", "SUPABASE_SERVICE_ROLE is accepted");
  if (error === null) {
    const feed = state.is_feed
      ? fine("feed", "changes are recorded for other stations")
      : warns("feed", "no station has come to this project yet", "npm start: the sync service does the rest");
    const clock = checkClock((Date.parse(state.now) - (askedAt + answeredAt) / 2) / 1_000);
    const photos = photosBucket === undefined ? [] : [await checkBucket(url, secretKey, photosBucket)];
    return {
      findings: [accepted, checkSchema(versions, state), feed, clock, ...photos],
      applied: [...state.versions.pugmark, ...state.versions.supabase],
    };
  }
  if (error.code === "PGRST202") {
    const schema = fails("schema", "has not all migrations; the one that could say which is missing", apply);
    return { findings: [accepted, schema], applied: null };
  }
  if (error.code === "42501") return refused("SUPABASE_SERVICE_ROLE is a key, but not the secret one");
  return refused(`SUPABASE_SERVICE_ROLE is refused (${error.status})`);
}

const apply = "pugmark supabase setup --apply; or paste what --sql prints into the dashboard's SQL editor";

function checkSchema(versions: readonly string[], { versions: there }: ProjectState): Finding {
  const applied = new Set([...there.pugmark, ...there.supabase]);
  const missing = versions.filter((version) => !applied.has(version));
  const [first] = missing;
  if (first !== undefined)
    return fails(
      "schema",
      `lacks ${missing.length} of ${versions.length} migrations, from ${first} on`,
      apply,
    );
  const unknown = there.pugmark.filter((version) => !versions.includes(version));
  return unknown.length === 0
    ? fine("schema", `all ${versions.length} migrations are applied`)
    : warns("schema", `has ${unknown.length} migrations that are not known here`, "update this station");
}

async function checkBucket(url: string, key: string, bucket: string): Promise<Finding> {
  const { data, error } = await clientOf(url, key).storage.getBucket(bucket);
  if (data?.public)
    return fails(
      "photos",
      `the bucket ${bucket} is public: no photo is sent there`,
      "dashboard: Storage → the bucket → Edit bucket → not public; or name another in SUPABASE_PHOTOS_BUCKET",
    );
  if (data) return fine("photos", `the bucket ${bucket} is there, and private`);
  return error.statusCode === "404" || error.status === 404
    ? warns("photos", `there is no bucket ${bucket} yet`, "npm start: the sync service makes it, private")
    : fails(
        "photos",
        `Storage does not say whether there is a bucket ${bucket} (${error.statusCode ?? error.message})`,
        "try again; where it stays so, see Storage in the dashboard",
      );
}

function checkClock(aheadS: number): Finding {
  const apart = Math.abs(aheadS).toFixed(1);
  return Math.abs(aheadS) <= skewMaxS
    ? fine("clock", `${apart} s from the project's`)
    : warns(
        "clock",
        `is ${apart} s ${aheadS > 0 ? "behind" : "ahead of"} the project's`,
        "have this machine's clock set by NTP: the later of two edits wins",
      );
}

function clientOf(url: string, key: string) {
  return createClient(url, key, {
    auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
    db: { timeout: timeoutMs },
    global: {
      fetch: (input, init) => {
        const deadline = AbortSignal.timeout(timeoutMs);
        const signal = init?.signal ? AbortSignal.any([init.signal, deadline]) : deadline;
        return fetch(input, { ...init, signal });
      },
    },
  });
}

async function stateOf(url: string, key: string) {
  const { data, error, status } = await clientOf(url, key).rpc("sync_project_state");
  return error
    ? { state: undefined, error: { code: error.code ?? "", status } }
    : { state: data as ProjectState, error: null };
}

/** Status 0 where nothing answers. */
async function ask(url: string, path: string, key?: string) {
  try {
    const headers: Record<string, string> = key === undefined ? {} : { apikey: key };
    const response = await fetch(`${url.replace(/\/+$/, "")}${path}`, {
      headers,
      signal: AbortSignal.timeout(timeoutMs),
    });
    const type = response.headers.get("content-type") ?? "";
    const body: unknown = type.includes("json") ? await response.json() : await response.body?.cancel();
    return { status: response.status, type, body };
  } catch {
    return { status: 0, type: "", body: undefined };
  }
}
