import { type Redact, redactIn } from "../store/interaction-record.ts";
import { overheadMs } from "./call-metrics.ts";
import type { Call, CallEnd } from "./complete.ts";

/**
 * One line in the server's own log for each call: where it came from, what became of it and what it took, and
 * nothing of what was asked and said unless `contents` is there, which hides of that what nobody may read. What the
 * model was not asked for is told at `debug`.
 */
export function logCall(
  call: Call,
  { outcome, source, timing, completion }: CallEnd,
  contents: Redact | undefined,
): void {
  const wasAsked = source.cache === "MISS" || source.cache === "BYPASS";
  if (!wasAsked && !/^(debug|trace)$/.test(call.log.level)) return;
  const { usage, head } = completion ?? {};
  call.log[wasAsked ? "info" : "debug"](
    {
      interactionId: call.id,
      route: call.route,
      caller: call.caller,
      priority: call.priority,
      model: head?.model ?? call.body.model,
      outcome,
      cache: source.cache,
      promptTokens: usage?.prompt_tokens,
      completionTokens: usage?.completion_tokens,
      queuedMs: rounded(timing.queuedMs),
      firstTokenMs: rounded(timing.firstTokenMs),
      totalMs: rounded(timing.totalMs),
      overheadMs: rounded(overheadMs(timing)),
      ...(contents ? redactIn({ asked: call.body, answered: completion?.text }, contents) : {}),
    },
    "call ended",
  );
}

function rounded(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Math.round(ms * 100) / 100;
}
