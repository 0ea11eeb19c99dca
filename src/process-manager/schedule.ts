import { Cron } from "croner";

/** The next time after `from` that the cron expression names, local time; null when there is none. Throws when it is none. */
export function nextRunAfter(schedule: string, from: Date): Date | null {
  return new Cron(schedule, { paused: true, mode: "5-part" }).nextRun(from);
}
