// Runs every test, or those of the files and folders that are named:
//
//   npm test
//   npm test -- src/chat test/station.test.ts
import { spawnSync } from "node:child_process";
import { globSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";

const wanted = process.argv.slice(2).filter((argument) => !argument.startsWith("-"));
const flags = process.argv.slice(2).filter((argument) => argument.startsWith("-"));
const places = wanted.length > 0 ? wanted : ["src", "test"];
const files = places.flatMap((place) =>
  statSync(place).isDirectory() ? globSync(join(place, "**/*.test.ts")).sort() : [place],
);

// Most tests wait for processes and disks: on two cores one file at a time, which is Node's choice, leaves one idle.
const concurrency = Math.max(2, availableParallelism() - 1);
const options = [
  "--test-global-setup=test/support/global-setup.ts",
  "--test-timeout=120000",
  `--test-concurrency=${concurrency}`,
];
const { status, signal } = spawnSync(process.execPath, ["--test", ...options, ...flags, ...files], {
  stdio: "inherit",
});
process.exit(signal ? 1 : (status ?? 1));
