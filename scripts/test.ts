// Runs every test, or those of the files and folders that are named:
//
//   npm test
//   npm test -- src/chat test/station.test.ts
import { spawnSync } from "node:child_process";
import { globSync, statSync } from "node:fs";
import { join } from "node:path";

const wanted = process.argv.slice(2).filter((argument) => !argument.startsWith("-"));
const flags = process.argv.slice(2).filter((argument) => argument.startsWith("-"));
const places = wanted.length > 0 ? wanted : ["src", "test"];
const files = places.flatMap((place) =>
  statSync(place).isDirectory() ? globSync(join(place, "**/*.test.ts")).sort() : [place],
);

const { status, signal } = spawnSync(
  process.execPath,
  ["--test", "--test-global-setup=test/support/global-setup.ts", "--test-timeout=120000", ...flags, ...files],
  { stdio: "inherit" },
);
process.exit(signal ? 1 : (status ?? 1));
