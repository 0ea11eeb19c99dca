import type { RestartPolicy } from "./definition.ts";

/** What is remembered of a service's restarts: when, within the policy's period, and how many in a row. */
export interface RestartHistory {
  readonly restartedAt: readonly number[];
  readonly streak: number;
}

export const noRestarts: RestartHistory = { restartedAt: [], streak: 0 };

/** How a life ended, as far as restarting goes. */
export interface LifeEnd {
  /** It ended by itself with an exit code that means success. */
  readonly clean: boolean;
  /** How long it was ready, 0 when it never was. */
  readonly readyForMs: number;
}

export type RestartDecision =
  | { readonly kind: "retry"; readonly delayMs: number; readonly history: RestartHistory }
  | { readonly kind: "finish" }
  | { readonly kind: "give-up"; readonly reason: string };

/**
 * Whether and when to start again: at once the first time, then exponential backoff with full jitter;
 * given up when there were more than `intensity` restarts within `periodMs` (OTP's rule).
 * Times in milliseconds of a clock that nobody sets; `random` is in [0, 1).
 */
export function decideRestart(
  policy: RestartPolicy,
  history: RestartHistory,
  end: LifeEnd,
  now: number,
  random: number,
): RestartDecision {
  if (end.clean && policy.policy !== "always") return { kind: "finish" };
  if (policy.policy === "never") return { kind: "give-up", reason: "its policy is to never restart it" };
  const recent = history.restartedAt.filter((at) => now - at < policy.periodMs);
  if (recent.length >= policy.intensity) return { kind: "give-up", reason: tooMany(policy) };
  const streak = end.readyForMs >= policy.stableMs ? 0 : history.streak;
  const ceilingMs = Math.min(policy.backoffCapMs, policy.backoffBaseMs * 2 ** (streak - 1));
  const delayMs = streak === 0 ? 0 : Math.round(random * ceilingMs);
  return { kind: "retry", delayMs, history: { restartedAt: [...recent, now], streak: streak + 1 } };
}

function tooMany({ intensity, periodMs }: RestartPolicy): string {
  return `more than ${intensity} restarts within ${periodMs / 1000} s`;
}
