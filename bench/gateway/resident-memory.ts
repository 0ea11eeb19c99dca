import { readdirSync, readFileSync } from "node:fs";

/** MiB of these processes and all their children. */
export function residentMiB(pids: readonly number[]): number {
  const statuses = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((name) => [Number(name), read(`/proc/${name}/status`)] as const);
  const family = new Set(pids);
  // A child's number is nearly always greater than its parent's, so that one pass finds grandchildren too.
  for (const [pid, status] of statuses) if (family.has(figure(status, "PPid"))) family.add(pid);
  return (
    statuses.reduce((sum, [pid, status]) => sum + (family.has(pid) ? figure(status, "VmRSS") : 0), 0) / 1024
  );
}

function figure(status: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0);
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    // It has ended meanwhile.
    return "";
  }
}
