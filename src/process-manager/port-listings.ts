/** What `lsof -FpcL` says of the first process that it lists: its pid, the start of its name, and its user. */
export function parseLsofOwner(
  text: string,
): { pid: number; command: string | null; user: string | null } | null {
  const field = (letter: string): string | null => new RegExp(`^${letter}(.+)$`, "m").exec(text)?.[1] ?? null;
  const pid = field("p");
  return pid ? { pid: Number(pid), command: field("c"), user: field("L") } : null;
}

/** What `ps -o lstart=,command=` says of one process, in the C locale and local time; null when it is gone. */
export function parsePsProcess(text: string): { startedAt: Date; command: string } | null {
  const [, start, command] =
    /^\s*\w{3}\s+(\w{3}\s+\d+\s+\d\d:\d\d:\d\d\s+\d{4})\s+(.+?)\s*$/.exec(text) ?? [];
  return start && command ? { startedAt: new Date(start), command } : null;
}

/** The pid that listens on the port in what Windows' `netstat -ano` prints, in whatever language. */
export function parseNetstatOwner(text: string, port: number): number | null {
  // Listening is what has no other end; the word for it is translated.
  const listening = new RegExp(
    `^\\s*TCP\\s+\\S+:${port}\\s+(?:0\\.0\\.0\\.0|\\[::\\]):0\\s.*?(\\d+)\\s*$`,
    "m",
  );
  const pid = listening.exec(text)?.[1];
  return pid ? Number(pid) : null;
}

/** Program and user in what Windows' `tasklist /v /fo csv /nh` prints of one process. */
export function parseTasklist(text: string): { command: string | null; user: string | null } {
  const [command, , , , , , user] = [...text.matchAll(/"([^"]*)"/g)].map(([, cell]) => cell);
  return { command: command ?? null, user: user && user !== "N/A" ? user : null };
}

/** A variable's value in an environment as Linux (`\0` between) or macOS's `ps -E` (a space between) shows it. */
export function variableIn(environment: string, name: string): string | null {
  const value = new RegExp(`(?:^|\\0|\\s)${name}=(.*?)(?:\\0|\\s+[A-Za-z_]\\w*=|\\s*$)`, "s").exec(
    environment,
  )?.[1];
  return value ?? null;
}
