import { once } from "node:events";
import { createServer } from "node:net";

/** A TCP port of 127.0.0.1 that nothing listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no TCP port");
  return address.port;
}

/**
 * A TCP port that nothing listens on while a test runs. A port that was only free a moment ago may be a neighbouring
 * test's by now; this one takes privileges to listen on, and, unlike port 1, `fetch` does not refuse it unasked.
 */
export const closedPort = 2;
