import { once } from "node:events";
import { writeSync } from "node:fs";
import type { Supervision } from "../config/supervision.ts";
import type { App } from "./app.ts";

/**
 * Serves until SIGTERM or SIGINT, then lets what is under way finish. Takes over the socket that a manager
 * holds, where it hands one over, and tells it when the first request can be answered.
 */
export async function serve(
  app: App,
  address: { readonly host: string; readonly port: number },
  supervision: Supervision,
): Promise<void> {
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());

  await app.ready();
  const { listenFd, notifyFd } = supervision;
  app.server.listen(listenFd === undefined ? address : { fd: listenFd });
  await once(app.server, "listening");
  if (notifyFd !== undefined) writeSync(notifyFd, "READY=1\n");
  app.log.info({ ...address, held: listenFd !== undefined }, "serving");

  if (!stop.signal.aborted) await once(stop.signal, "abort");
  // A connection whose answer ends only now would stay open for as long as an idle one may: over a minute.
  const sweep = setInterval(() => app.server.closeIdleConnections(), 50);
  await app.close();
  clearInterval(sweep);
}
