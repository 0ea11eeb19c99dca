import type { RemoteBatch } from "./batch-client.ts";

interface Pace {
  /** Lines a second since it is watched; 0 while nothing is known. */
  readonly rate: number;
  /** Seconds that the rest takes at that pace. */
  readonly leftS: number | undefined;
}

/** How fast a batch is, from two looks at it. */
export function paceOf(first: Look, { done, total, atMs }: Look): Pace {
  const seconds = (atMs - first.atMs) / 1000;
  const rate = seconds > 0 ? (done - first.done) / seconds : 0;
  return { rate, leftS: rate > 0 ? Math.ceil((total - done) / rate) : undefined };
}

interface Look {
  readonly done: number;
  readonly total: number;
  readonly atMs: number;
}

export function lookAt({ request_counts: { total, completed, failed } }: RemoteBatch, atMs: number): Look {
  return { done: completed + failed, total, atMs };
}

const width = 24;

/** The bar as text. */
export function batchLine(batch: RemoteBatch, { rate, leftS }: Pace): string {
  const { total, completed, failed } = batch.request_counts;
  if (batch.status !== "in_progress") return `${batch.status} …`;
  const share = total > 0 ? (completed + failed) / total : 0;
  const filled = Math.round(share * width);
  return [
    `${"█".repeat(filled)}${"░".repeat(width - filled)}`,
    `${Math.floor(share * 100)} %`,
    `${(completed + failed).toLocaleString("en")} of ${total.toLocaleString("en")}`,
    ...(failed > 0 ? [`${failed.toLocaleString("en")} refused`] : []),
    ...(rate > 0 ? [`${rate >= 10 ? Math.round(rate) : rate.toFixed(1)}/s`] : []),
    ...(leftS === undefined ? [] : [`${duration(leftS)} left`]),
  ].join("  ");
}

function duration(seconds: number): string {
  if (seconds < 90) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
}
