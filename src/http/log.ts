import type { FastifyServerOptions } from "fastify";
import type { Config } from "../config/config.ts";

/**
 * Log settings of a server: JSON lines on standard output, with every secret of the configuration blotted
 * out wherever it turns up, also inside the words of a library's error.
 */
export function logOptions(name: string, config: Config): NonNullable<FastifyServerOptions["logger"]> {
  const secrets = secretsOf(config);
  return {
    level: config.LOG_LEVEL,
    base: { service: name },
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    formatters: { level: (label: string) => ({ level: label }) },
    hooks: { streamWrite: (line: string) => blot(line, secrets) },
  };
}

/** Where a service without a server of its own says what happens; as the servers' log, secrets blotted out. */
export interface Log {
  readonly info: (fields: object, message: string) => void;
  readonly warn: (fields: object, message: string) => void;
  readonly error: (fields: object, message: string) => void;
}

const levels = ["trace", "debug", "info", "warn", "error", "fatal"];

/** JSON lines in the form of the servers' log, to standard output unless said otherwise. */
export function openLog(
  name: string,
  config: Config,
  write: (line: string) => void = (line) => void process.stdout.write(line),
): Log {
  const secrets = secretsOf(config);
  const line = (level: "info" | "warn" | "error") => (fields: object, message: string) => {
    if (levels.indexOf(level) < levels.indexOf(config.LOG_LEVEL)) return;
    const shown = Object.entries(fields).map(([key, value]) => [
      key,
      value instanceof Error ? told(value) : value,
    ]);
    const entry = {
      level,
      time: new Date().toISOString(),
      service: name,
      ...Object.fromEntries(shown),
      msg: message,
    };
    write(blot(`${JSON.stringify(entry)}\n`, secrets));
  };
  return { info: line("info"), warn: line("warn"), error: line("error") };
}

function told({ name, message, stack }: Error): object {
  return { type: name, message, stack };
}

/** Every secret in the settings, and the passwords inside its URLs, longest first. */
function secretsOf(config: Config): string[] {
  const urls = [config.DATABASE_URL, config.REDIS_URL].filter((url) => url !== undefined);
  const passwords = urls.flatMap((url) => {
    const { password } = new URL(url);
    return [password, decodeURIComponent(password)];
  });
  const keys = (config.PUGMARK_API_KEYS ?? []).map(({ key }) => key);
  const { DEEPSEEK_API_KEY, PUGMARK_INTERNAL_KEY } = config;
  const { SUPABASE_KEY, SUPABASE_SERVICE_ROLE, SUPABASE_JWT_SECRET } = config;
  return [
    ...urls,
    ...passwords,
    ...keys,
    DEEPSEEK_API_KEY,
    SUPABASE_KEY,
    SUPABASE_SERVICE_ROLE,
    SUPABASE_JWT_SECRET,
    PUGMARK_INTERNAL_KEY,
  ]
    .filter((secret) => secret !== undefined && secret.length >= 4)
    .sort((a, b) => (b?.length ?? 0) - (a?.length ?? 0)) as string[];
}

function blot(line: string, secrets: readonly string[]): string {
  let clean = line;
  for (const secret of secrets) {
    if (clean.includes(secret)) clean = clean.replaceAll(secret, "********");
  }
  return clean;
}
