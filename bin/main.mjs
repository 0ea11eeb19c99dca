// The command line, with what it is compiled to kept between runs: without that, Node loads its type stripper each
// time, which costs 35 MiB and 80 ms. Plain JavaScript, since the cache must be on before the first .ts is loaded.
import { accessSync, constants, lstatSync, mkdirSync } from "node:fs";
import { enableCompileCache } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = cacheFolder();
if (folder) enableCompileCache(folder);
await import(join(root, "src", "cli", "main.ts"));

/** Beside the packages, or, where we may not write, one of this user's own in the temporary folder. */
function cacheFolder() {
  const beside = join(root, "node_modules", ".cache", "pugmark");
  return usable(beside) ?? usable(join(tmpdir(), `pugmark-compile-cache-${process.getuid?.() ?? "user"}`));
}

/** The folder, if nobody else can have put code into it. */
function usable(path) {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    accessSync(path, constants.W_OK);
    const { uid, mode } = lstatSync(path);
    const isOurs = !process.getuid || (uid === process.getuid() && (mode & 0o022) === 0);
    return isOurs ? path : undefined;
  } catch {
    return undefined;
  }
}
