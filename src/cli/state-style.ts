import { styleText } from "node:util";

type Style = Parameters<typeof styleText>[0];

const styles: Readonly<Record<string, Style>> = {
  ready: "green",
  completed: "green",
  starting: "yellow",
  waiting: "yellow",
  backoff: "yellow",
  stopping: "yellow",
  unhealthy: "red",
  failed: ["red", "bold"],
  stopped: "dim",
};

/** The state in its colour, where the terminal has any. */
export function styledState(state: string): string {
  return styleText(styles[state] ?? "reset", state);
}

const prefixes: readonly Style[] = ["cyan", "magenta", "blue", "yellow", "green"];

/** The service's name in a colour that is the same for all of its lines. */
export function styledName(name: string, width: number): string {
  const sum = [...name].reduce((total, letter) => total + letter.charCodeAt(0), 0);
  return styleText(prefixes[sum % prefixes.length] ?? "cyan", name.padEnd(width));
}
