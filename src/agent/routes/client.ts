import type { FastifyReply } from "fastify";
import { AgentError } from "../agent-error.ts";

/**
 * Aborted once nobody waits any more: with `client-gone` when the client leaves before its answer is out, with
 * `ask-timeout` when it took too long.
 */
export function whileAwaited(reply: FastifyReply, timeoutMs: number): AbortSignal {
  const stop = new AbortController();
  const timer = setTimeout(() => {
    stop.abort(
      new AgentError(
        "ask-timeout",
        `No answer came within ${timeoutMs / 1000} s; ask for less, or a faster model.`,
      ),
    );
  }, timeoutMs);
  reply.raw.once("close", () => {
    clearTimeout(timer);
    if (!reply.raw.writableFinished)
      stop.abort(new AgentError("client-gone", "The client left before its answer."));
  });
  return stop.signal;
}
