import { setTimeout as delay } from "node:timers/promises";

/** How often memory is looked at, where any service has a limit. */
const periodMs = 2_000;

const mebibyte = 1024 * 1024;

/** What the limits need of the manager. */
export interface MemoryLimitParts {
  /** The limit of each service that has one, MiB. */
  readonly limits: () => ReadonlyMap<string, number>;
  /** Resident bytes of each service that is up. */
  readonly memory: () => Promise<ReadonlyMap<string, number>>;
  /** Rolling where that can be; may throw. */
  readonly restart: (name: string, why: string) => Promise<void>;
}

/** Restarts what uses more memory than it may, all its processes together. Resolves when the signal aborts. */
export async function keepMemoryLimits(parts: MemoryLimitParts, signal: AbortSignal): Promise<void> {
  const restarting = new Set<string>();
  for (;;) {
    await delay(periodMs, undefined, { signal, ref: false }).catch(() => undefined);
    if (signal.aborted) return;
    const limits = parts.limits();
    for (const [name, bytes] of limits.size > 0 ? await parts.memory().catch(() => []) : []) {
      const limitMiB = limits.get(name) ?? Number.POSITIVE_INFINITY;
      const usedMiB = Math.round(bytes / mebibyte);
      if (usedMiB <= limitMiB || restarting.has(name) || signal.aborted) continue;
      restarting.add(name);
      // A restart may take its time; the others' memory is looked at meanwhile.
      void parts
        .restart(name, `it used ${usedMiB} MiB, and ${limitMiB} is its limit`)
        .catch(() => undefined) // its state says why
        .finally(() => restarting.delete(name));
    }
  }
}
