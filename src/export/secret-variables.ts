/** The variables whose values an export must not show, by what they are called and what they hold. */
export function secretNames(env: Readonly<Record<string, string>>): string[] {
  return Object.entries(env).flatMap(([name, value]) =>
    telling.test(name) || hasPassword(value) ? [name] : [],
  );
}

/** The variables that an export may show. */
export function openVariables(env: Readonly<Record<string, string>>): [string, string][] {
  const secret = new Set(secretNames(env));
  return Object.entries(env).filter(([name]) => !secret.has(name));
}

const telling =
  /(^|_)(AUTH|CREDENTIALS?|COOKIE|DSN|KEYS?|PASS|PASSPHRASE|PASSWORD|PASSWD|PGPASS|PRIVATE|PWD|SALT|SECRETS?|SERVICE_ROLE|TOKENS?)(_|$)/i;

/** `scheme://user:password@host`, wherever in the value it is. */
function hasPassword(value: string): boolean {
  return /[a-z][a-z0-9+.-]*:\/\/[^/@\s]*:[^/@\s]+@/i.test(value);
}
