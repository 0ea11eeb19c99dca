import { Subscription } from "./feed.ts";
import type { LogLine, ServiceLog } from "./service-log.ts";

/** Characters that may wait for one slow reader; what comes then is dropped, and a line says how much was. */
const waitingCharactersMax = 1024 * 1024;

/**
 * The last lines of some logs, and then, when following, each new line as it comes. Ends with the logs, or when
 * its reader returns, also while it waits for a line.
 */
export function followLogs(
  logs: readonly ServiceLog[],
  tailLines: number,
  follow: boolean,
): AsyncIterableIterator<LogLine, undefined> {
  const live = new Subscription<LogLine>({
    weightMax: waitingCharactersMax,
    weigh: ({ line }) => line.length + 64,
    noticeOf: droppedNotice,
  });
  // In one turn: what is in the file by now, and everything after it.
  if (follow) for (const log of logs) log.follow(live);
  else live.end();
  const tails = Promise.all(tailLines > 0 ? logs.map((log) => log.tail(tailLines)) : []);
  tails.catch(() => undefined); // an unreadable file fails the first next()
  let past: LogLine[] | null = null;
  return {
    next: async () => {
      past ??= (await tails).flat().reverse();
      const line = past.pop();
      return line ? { value: line, done: false } : await live.next();
    },
    return: async () => {
      past = [];
      return await live.return();
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

function droppedNotice(dropped: number): LogLine {
  const line = `${dropped} lines were dropped here: this reader is too slow`;
  return { service: "manager", stream: null, at: new Date().toISOString(), line, dropped };
}
