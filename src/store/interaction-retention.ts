import { deleteConversationsBefore } from "./conversations.ts";
import { deleteInteractions } from "./interactions.ts";
import type { JournalLog } from "./journal/journal.ts";
import type { Pool } from "./pool.ts";

const everyMs = 3_600_000;

export interface Retention {
  readonly pool: Pool;
  /** Days that interactions are kept. */
  readonly days: number;
  readonly log: JournalLog;
}

/** Deletes what is older than it may become, conversations that were not used for as long included: now, and every hour until it is disposed of. */
export function keepInteractionsFor({ pool, days, log }: Retention): AsyncDisposable {
  const stop = new AbortController();
  const sweep = async () => {
    const to = new Date(Date.now() - days * 86_400_000);
    try {
      const deleted = await deleteInteractions(pool, { to }, stop.signal);
      await deleteConversationsBefore(pool, to);
      if (deleted > 0) log.info({ deleted, olderThan: to }, "old interactions deleted");
    } catch (error) {
      log.warn({ err: error }, "old interactions not deleted; tried again in an hour");
    }
  };
  let sweeping = sweep();
  const timer = setInterval(() => {
    sweeping = sweeping.then(sweep);
  }, everyMs).unref();
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      stop.abort();
      await sweeping;
    },
  };
}
