import { isIP } from "node:net";
import { homeOfUpstream, parseApiKeys, parseTokensPerDay } from "./formats.ts";

/** How one environment variable is read. `parse` throws an `Error` whose message says what is allowed. */
export interface Variable<T> {
  readonly parse: (text: string) => T;
  /** What an unset variable stands for, written as it would be in `.env`; absent: unset stays `undefined`. */
  readonly standard?: string;
  /** Its value is never printed. */
  readonly secret?: boolean;
  /** Set by the manager for its services, not by people. */
  readonly internal?: boolean;
  readonly meaning: string;
}

/** Every variable that Pugmark reads, and nothing else reads the environment. */
export const variables = {
  PORT: { parse: port, standard: "5000", meaning: "TCP port of the agent server" },
  API_PORT: { parse: port, standard: "8080", meaning: "TCP port of the API server" },
  CHAT_PORT: { parse: port, standard: "5001", meaning: "TCP port of the chat server" },
  HOST: {
    parse: host,
    standard: "127.0.0.1",
    meaning: "address to bind; any other than loopback needs PUGMARK_API_KEYS",
  },
  PUGMARK_HOME: {
    parse: text(1024),
    standard: ".pugmark",
    meaning: "folder of database files, logs and control socket; two homes are two stations",
  },
  PUGMARK_ALLOWED_HOSTS: {
    parse: list(/^[a-z0-9.-]{1,253}$/i, "host names without port, comma-separated"),
    standard: "",
    meaning: "further host names under which browsers reach this station",
  },
  DATABASE_URL: {
    parse: url("postgres:", "postgresql:"),
    secret: true,
    meaning: "a Postgres 15 or newer to use instead of the embedded one",
  },
  DATABASE_PORT: {
    parse: port,
    standard: "54329",
    meaning: "TCP port of the embedded Postgres, on loopback only",
  },
  DEEPSEEK_API_URL: {
    parse: upstreams,
    standard: "http://127.0.0.1:1234/v1/completions",
    meaning: "LM Studio: its root or any of its /v1/... URLs; several, comma-separated, are a pool",
  },
  DEEPSEEK_API_KEY: {
    parse: text(512),
    secret: true,
    meaning: "LM Studio's API token, where it asks for one",
  },
  DEEPSEEK_MODEL: {
    parse: text(256),
    standard: "deepseek-r1-distill-qwen-7b",
    meaning: "model that is asked when a request names none",
  },
  DEEPSEEK_CONCURRENCY: {
    parse: integer(1, 128),
    meaning: "requests at once for one model at one LM Studio; unset: as many as LM Studio says, else 4",
  },
  API_TIMEOUT: {
    parse: seconds(0.1, 3600),
    standard: "10",
    meaning: "seconds of silence of LM Studio before a 504: to connect, to answer, between two tokens",
  },
  API_FIRST_TOKEN_TIMEOUT: {
    parse: seconds(0.1, 86_400),
    standard: "120",
    meaning: "seconds that reading a prompt may take before its first token",
  },
  API_LOAD_TIMEOUT: {
    parse: seconds(0.1, 86_400),
    standard: "300",
    meaning: "seconds that a model may take that LM Studio is still loading",
  },
  CACHE_TTL: {
    parse: seconds(0, 31_536_000),
    standard: "3600",
    meaning: "seconds that a chat answer is reused; 0 turns the cache off",
  },
  CACHE_MAX_MB: {
    parse: integer(0, 1_048_576),
    standard: "64",
    meaning: "MiB of memory for chat answers that are reused; 0 keeps none there",
  },
  CHAT_MAX_TOKENS: {
    parse: integer(1, 1_000_000),
    standard: "4096",
    meaning: "the most tokens that one request may ask a model for",
  },
  CHAT_TOKENS_PER_DAY: {
    parse: parseTokensPerDay,
    meaning: "tokens that each caller may use in a UTC day; name=tokens for single ones; 0: no limit",
  },
  INTERACTION_RETENTION_DAYS: {
    parse: integer(0, 36_500),
    standard: "0",
    meaning: "days that calls of a model are kept in the log; 0 keeps them for ever",
  },
  INTERACTION_REDACT: {
    parse: patterns,
    standard: "",
    meaning: "regular expressions, separated by ;; or line ends, of what the log is not to keep",
  },
  CHAT_LOG_CONTENTS: {
    parse: oneOf("false", "true"),
    standard: "false",
    meaning: "whether the chat server's own log has the words of questions and answers too",
  },
  AGENT_TOOL_MODE: {
    parse: oneOf("auto", "native", "planner"),
    standard: "auto",
    meaning: "how the agent calls tools: natively, by a JSON plan, or as the model can",
  },
  SUPABASE_URL: { parse: url("http:", "https:"), meaning: "Supabase project to mirror to" },
  SUPABASE_KEY: { parse: text(4096), secret: true, meaning: "its publishable or anon key" },
  SUPABASE_SERVICE_ROLE: {
    parse: text(4096),
    secret: true,
    meaning: "its secret or service-role key",
  },
  SUPABASE_MIRROR: {
    parse: mirroredTables,
    standard: "all",
    meaning: "tables that are mirrored to the project, comma-separated; all or none",
  },
  SUPABASE_POSITION_PRECISION_M: {
    parse: integer(0, 1_000_000),
    standard: "0",
    meaning: "metres of the grid that mirrored positions are rounded to; 0 mirrors them as they are",
  },
  SUPABASE_PHOTOS_BUCKET: {
    parse: bucketName,
    meaning: "bucket of the project's Storage that photos are mirrored to; unset: their files stay here",
  },
  STATION_NAME: {
    parse: text(200),
    meaning: "what other stations on the project call this one; unset: the machine's name",
  },
  SUPABASE_JWT_SECRET: {
    parse: text(512, 32),
    secret: true,
    meaning: "its legacy JWT secret, where it still signs its users' tokens by that",
  },
  FUNCTIONS_PORT: {
    parse: port,
    meaning: "TCP port on which the station serves the edge functions, under Deno; unset: it serves none",
  },
  REDIS_URL: {
    parse: redisUrl,
    secret: true,
    meaning: "Redis for a cache and fan-out that several machines share",
  },
  PUGMARK_API_KEYS: {
    parse: parseApiKeys,
    secret: true,
    meaning: "name:key:scope,… with scopes ingest, read, write, admin (several: ingest+read)",
  },
  LOG_LEVEL: {
    parse: oneOf("trace", "debug", "info", "warn", "error", "fatal"),
    standard: "info",
    meaning: "least level that is logged",
  },
  PUGMARK_INTERNAL_KEY: {
    parse: text(512),
    secret: true,
    internal: true,
    meaning: "key by which the station's own services know each other",
  },
  PUGMARK_DATABASE_ROLE: {
    parse: oneOf("pugmark_app", "pugmark_reader"),
    internal: true,
    meaning: "database role that a service takes on",
  },
} satisfies Record<string, Variable<unknown>>;

export type VariableName = keyof typeof variables;

function port(value: string): number {
  return integer(1, 65_535)(value);
}

function integer(min: number, max: number): (value: string) => number {
  return (value) => {
    const number = /^\d+$/.test(value) ? Number(value) : Number.NaN;
    if (!(number >= min && number <= max)) throw new Error(`a whole number from ${min} to ${max}`);
    return number;
  };
}

function seconds(min: number, max: number): (value: string) => number {
  return (value) => {
    const number = /^\d+(\.\d+)?$/.test(value) ? Number(value) : Number.NaN;
    if (!(number >= min && number <= max)) throw new Error(`seconds, from ${min} to ${max}`);
    return number;
  };
}

function text(max: number, min = 1): (value: string) => string {
  return (value) => {
    if (value.length < min) throw new Error(`at least ${min} characters`);
    if (value.length > max) throw new Error(`at most ${max} characters`);
    return value;
  };
}

function bucketName(value: string): string {
  if (/^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$/.test(value)) return value;
  throw new Error("3 to 63 lower-case letters, digits, dots, dashes and underscores");
}

function list(item: RegExp, allowed: string): (value: string) => string[] {
  return (value) => {
    const items = value
      .split(",")
      .map((part) => part.trim())
      .filter(Boolean);
    if (!items.every((part) => item.test(part))) throw new Error(allowed);
    return items;
  };
}

/** `none` stands alone: beside a name it would say two things, of which one sends what the other keeps. */
function mirroredTables(value: string): string[] {
  const allowed = "all, none, or names of tables, comma-separated";
  const names = list(/^[a-z_]{1,63}$/, allowed)(value);
  if (names.includes("none") && names.length > 1) throw new Error(`${allowed}; none stands alone`);
  return names;
}

/** Each in Unicode mode, to be replaced wherever it matches. */
function patterns(value: string): RegExp[] {
  const sources = value
    .split(/;;|\r?\n/)
    .map((part) => part.trim())
    .filter(Boolean);
  return sources.map((source) => {
    const pattern = compiled(source);
    if (pattern.test("")) throw new Error(`patterns that match some text: ${source} matches none at all`);
    return pattern;
  });
}

function compiled(source: string): RegExp {
  try {
    return new RegExp(source, "gu");
  } catch (error) {
    throw new Error(`JavaScript regular expressions: ${error instanceof Error ? error.message : error}`);
  }
}

function oneOf<const T extends readonly string[]>(...allowed: T): (value: string) => T[number] {
  return (value) => {
    if (!allowed.includes(value)) throw new Error(`one of ${allowed.join(", ")}`);
    return value;
  };
}

function host(value: string): string {
  if (value === "localhost" || isIP(value)) return value;
  throw new Error("an IP address of this machine, or localhost");
}

function url(...protocols: readonly string[]): (value: string) => string {
  return (value) => {
    if (!URL.canParse(value) || !protocols.includes(new URL(value).protocol)) {
      throw new Error(`a URL that begins with ${protocols.map((protocol) => `${protocol}//`).join(" or ")}`);
    }
    return value;
  };
}

/** What a Redis client would choke on only once it runs, such as a password with a bare %. */
function redisUrl(value: string): string {
  const { hostname, pathname, username, password } = new URL(url("redis:", "rediss:")(value));
  if (!hostname || !/^(\/\d{0,5})?$/.test(pathname) || /%(?![\da-f]{2})/i.test(username + password)) {
    throw new Error("redis[s]://[user:password@]host[:port][/number], a % in the password written as %25");
  }
  return value;
}

function upstreams(value: string): string[] {
  const parts = value
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean);
  if (parts.length === 0) throw new Error("at least one http(s) URL");
  return parts.map(homeOfUpstream);
}
