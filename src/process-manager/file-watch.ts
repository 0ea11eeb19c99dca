import { isAbsolute, matchesGlob, relative, resolve, sep } from "node:path";
import type { WatchPolicy } from "./definition.ts";

/** What no service wants to be restarted for. */
const neverWatched = new Set(["node_modules", ".git"]);

/**
 * Calls `onChange` with the first path that changed, from `cwd`, once all has been quiet for the policy's time.
 * Resolves when every file is being watched, with what ends that. What is in `home` is never watched.
 */
export async function watchFiles(
  policy: Required<WatchPolicy>,
  cwd: string,
  home: string,
  onChange: (path: string) => void,
): Promise<() => Promise<void>> {
  const { watch } = await import("chokidar");
  const isIgnored = (path: string): boolean => {
    const fromCwd = relative(cwd, path);
    if (isWithin(home, path) || fromCwd.split(sep).some((part) => neverWatched.has(part))) return true;
    return policy.ignore.some((glob) => matchesGlob(fromCwd, glob));
  };
  const paths = policy.paths.map((path) => resolve(cwd, path));
  const watcher = watch(paths, { ignoreInitial: true, ignored: isIgnored });
  let first: string | null = null;
  let timer: NodeJS.Timeout | undefined;
  watcher.on("error", () => undefined); // a folder that may not be read is not watched
  watcher.on("all", (_event, path) => {
    first ??= relative(cwd, path);
    clearTimeout(timer);
    timer = setTimeout(() => {
      const changed = first ?? "";
      first = null;
      onChange(changed);
    }, policy.debounceMs);
  });
  await new Promise<void>((ready) => watcher.on("ready", () => ready()));
  return async () => {
    clearTimeout(timer);
    await watcher.close();
  };
}

function isWithin(folder: string, path: string): boolean {
  const from = relative(folder, path);
  return from === "" || !(from.startsWith("..") || isAbsolute(from));
}
