import type { ChatErrorCode } from "../chat-error.ts";

/** What there is to know of an attempt that failed. */
export interface Attempt {
  readonly code: ChatErrorCode;
  /** LM Studio got the request. */
  readonly isSent: boolean;
  /** The caller has a part of the answer. */
  readonly isPassedOn: boolean;
  /** When LM Studio, or what stands in front of it, wants to be asked again. */
  readonly retryAfterS: number | undefined;
}

/** `elsewhere`: at once, from another LM Studio if there is one; `again`: after this long, from any. */
export type Next =
  | { readonly step: "give-up" | "elsewhere" }
  | { readonly step: "again"; readonly afterMs: number };

/** Further attempts after failures that may pass by themselves. */
const retriesMax = {
  // The model is loaded anew by the next request; one that crashes again does so because of it.
  "model-crashed": 1,
  "upstream-cut": 1,
  "upstream-busy": 2,
} satisfies Partial<Record<ChatErrorCode, number>> as Readonly<Partial<Record<ChatErrorCode, number>>>;

const backoffMs = 200;
/** The longest that a busy one is waited for. */
const retryAfterMaxS = 5;

/**
 * What to do after an attempt failed, `retries` having been made before. Never again what has begun to arrive,
 * what was quiet for too long, and what LM Studio refused. `random` gives 0 to 1.
 */
export function nextStep(attempt: Attempt, retries: number, random: () => number = Math.random): Next {
  const { code, isSent, isPassedOn, retryAfterS } = attempt;
  if (isPassedOn) return { step: "give-up" };
  const unreached = !isSent && (code === "lm-studio-away" || code === "upstream-timeout");
  if (unreached || code === "model-not-found" || code === "no-model-loaded") return { step: "elsewhere" };
  if (retries >= (retriesMax[code] ?? 0) || (retryAfterS ?? 0) > retryAfterMaxS) return { step: "give-up" };
  // With jitter, or all that failed together would come back together.
  const afterMs = backoffMs * 2 ** retries * (0.5 + random() / 2);
  return {
    step: "again",
    afterMs: code === "upstream-busy" ? Math.max(afterMs, 1_000 * (retryAfterS ?? 0)) : afterMs,
  };
}

/** Failures of the model itself, which its breaker counts. */
export const breaking: ReadonlySet<ChatErrorCode> = new Set([
  "model-crashed",
  "model-load-failed",
  "upstream-failed",
  "upstream-cut",
  "upstream-timeout",
]);
