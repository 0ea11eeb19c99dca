import { once } from "node:events";
import { writeSync } from "node:fs";
import { Server } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { Supervision } from "../config/supervision.ts";
import type { App } from "./app.ts";

/** How long those who keep a connection may take to hear that its next answer is the last. */
const farewellMs = 500;

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

  app.server.prependListener("request", (_request, response) => {
    if (stop.signal.aborted) response.setHeader("connection", "close");
  });
  await app.ready();
  const { listenFd, notifyFd } = supervision;
  app.server.listen(listenFd === undefined ? address : { fd: listenFd });
  await once(app.server, "listening");
  if (notifyFd !== undefined) writeSync(notifyFd, "READY=1\n");
  app.log.info({ ...address, held: listenFd !== undefined }, "serving");

  if (!stop.signal.aborted) await once(stop.signal, "abort");
  // First only no new connections, which is all that a plain server's close does: a kept one that were closed
  // at once could be the one on which a request is just arriving.
  Server.prototype.close.call(app.server);
  await untilNobodyIsConnected(app);
  await app.close();
}

async function untilNobodyIsConnected({ server }: App): Promise<void> {
  const until = performance.now() + farewellMs;
  const connections = () =>
    new Promise<number>((resolve) => server.getConnections((_error, count) => resolve(count ?? 0)));
  while (performance.now() < until && (await connections()) > 0) await delay(20);
}
