/**
 * A unit file of these sections, `null` and `undefined` values left out. A list is its key repeated. The values are
 * in systemd's own syntax already.
 */
export function unitFile(head: string, sections: Readonly<Record<string, Settings>>): string {
  const blocks = Object.entries(sections).map(([section, settings]) =>
    [`[${section}]`, ...Object.entries(settings).flatMap(([key, value]) => lines(key, value))].join("\n"),
  );
  return `${[head, ...blocks].join("\n\n")}\n`;
}

type Settings = Readonly<Record<string, string | number | readonly string[] | null | undefined>>;

function lines(key: string, value: Settings[string]): string[] {
  if (value === null || value === undefined) return [];
  return (typeof value === "object" ? value : [value]).map((one) => `${key}=${one}`);
}

/**
 * A command for `ExecStart=` and its like. A program without a folder is looked up in the unit's own `PATH`, which
 * systemd itself would not ask.
 */
export function commandOf([program, ...args]: readonly [string, ...string[]]): string {
  const isPath = program.startsWith("/");
  const words = [...(isPath ? [] : [program]), ...args].map((word) => quoted(word).replaceAll("$", "$$$$"));
  // The program's own path is no place for variables, and a doubled dollar sign would stay two.
  return [isPath ? quoted(program) : "/usr/bin/env", ...words].join(" ");
}

/** An assignment for `Environment=`, where a dollar sign stands for itself. */
export function assignment(name: string, value: string): string {
  return quoted(`${name}=${value}`);
}

/** Text that is taken as it is up to the end of the line: a folder, a description. */
export function literal(text: string): string {
  return text.replaceAll("%", "%%").replaceAll(/\s+/g, " ");
}

/** Milliseconds as a time span, exactly: `1500ms`, `90s`. */
export function timeSpan(milliseconds: number): string {
  const whole = Math.ceil(milliseconds);
  return whole % 1000 === 0 ? `${whole / 1000}s` : `${whole}ms`;
}

function quoted(word: string): string {
  const text = word.replaceAll("%", "%%");
  if (/^[\w@%+=:,./-]+$/.test(word)) return text;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the ones that have to be spelt
  const spelt = text.replaceAll(/["\\\x00-\x1f\x7f]/g, (character) => {
    const usual = escapes[character];
    return usual ?? `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
  return `"${spelt}"`;
}

const escapes: Readonly<Record<string, string>> = {
  '"': '\\"',
  "\\": "\\\\",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
};
