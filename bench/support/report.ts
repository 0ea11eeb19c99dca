import { cpus, totalmem } from "node:os";

/** Prints what every figure depends on: the machine, the versions, the day. */
export function printMachine(question: string): void {
  const [cpu] = cpus();
  const gib = Math.round(totalmem() / 1024 ** 3);
  console.log(`# ${question}`);
  console.log(
    `${new Date().toISOString().slice(0, 10)} · ${cpus().length} × ${cpu?.model.trim()} · ${gib} GiB · ` +
      `${process.platform} ${process.arch} · Node ${process.versions.node}\n`,
  );
}

/** The value below which the share `p` (0 to 1) of the samples lies. */
export function percentile(samples: readonly number[], p: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? Number.NaN;
}

/** Sample count, median, p90, p99 and greatest, in milliseconds. */
export function spread(samples: readonly number[]): string {
  const at = (p: number) => percentile(samples, p).toFixed(1);
  return `n ${samples.length}, median ${at(0.5)} ms, p90 ${at(0.9)}, p99 ${at(0.99)}, max ${Math.max(...samples).toFixed(1)}`;
}

/** A number of things a second, rounded for people. */
export function rate(count: number, ms: number): number {
  return Math.round((count / ms) * 1000);
}
