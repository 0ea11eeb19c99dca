import { readFileSync, writeFileSync } from "node:fs";
import { constants, setPriority } from "node:os";

/** Lets whoever waits for an answer of the station go first: this process has time. */
export function giveWay(): void {
  const niceness = constants.priority.PRIORITY_BELOW_NORMAL;
  setPriority(niceness);
  // Linux may weigh sessions against each other, and processes only within one (sched(7), autogroup); the process manager
  // gives each service a session of its own. One that is shared is not ours to slow down.
  try {
    if (session() === process.pid) writeFileSync("/proc/self/autogroup", String(niceness));
  } catch {
    // No Linux, or one without that.
  }
}

/** Process id of the leader of this session. The name of the process, in brackets, may have any characters. */
function session(): number {
  const stat = readFileSync("/proc/self/stat", "utf8");
  const [, , , leader] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(leader);
}
