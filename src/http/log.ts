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

/** Every secret in the settings, and the passwords inside its URLs, longest first. */
function secretsOf(config: Config): string[] {
  const urls = [config.DATABASE_URL, config.REDIS_URL].filter((url) => url !== undefined);
  const passwords = urls.flatMap((url) => {
    const { password } = new URL(url);
    return [password, decodeURIComponent(password)];
  });
  const keys = (config.PUGMARK_API_KEYS ?? []).map(({ key }) => key);
  const { DEEPSEEK_API_KEY, SUPABASE_KEY, SUPABASE_SERVICE_ROLE, PUGMARK_INTERNAL_KEY } = config;
  return [
    ...urls,
    ...passwords,
    ...keys,
    DEEPSEEK_API_KEY,
    SUPABASE_KEY,
    SUPABASE_SERVICE_ROLE,
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
