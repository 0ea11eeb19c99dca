import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";

/**
 * The first of so many TCP ports in a row that nothing has on 127.0.0.1 now. Not out of the range from which the system
 * takes ports for connections and for port 0: there, a neighbouring test's next connection may be the one that has it.
 */
export async function freePort(inARow = 1): Promise<number> {
  for (;;) {
    const first = randomInt(10_000, 32_000);
    const ports = Array.from({ length: inARow }, (_, index) => first + index);
    const free = await Promise.all(ports.map(isFree));
    if (free.every(Boolean)) return first;
  }
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  const listening = once(server, "listening").then(
    () => true,
    () => false,
  );
  server.listen(port, "127.0.0.1");
  if (!(await listening)) return false;
  server.close();
  await once(server, "close");
  return true;
}

/**
 * A TCP port that nothing listens on while a test runs. A port that was only free a moment ago may be a neighbouring
 * test's by now; this one takes privileges to listen on, and, unlike port 1, `fetch` does not refuse it unasked.
 */
export const closedPort = 2;
