import { EventEmitter, once } from "node:events";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";

/** An HTTP server that hands every request on to another, and may keep an answer back. */
export interface HoldingProxy extends AsyncDisposable {
  readonly url: string;
  /** Keeps back the next answer that is the one. Resolves when it is here, with what lets it go. */
  readonly hold: (
    isIt: (answer: { readonly path: string; readonly body: string }) => boolean,
  ) => Promise<() => void>;
}

export async function startHoldingProxy(target: string): Promise<HoldingProxy> {
  let wanted: Parameters<HoldingProxy["hold"]>[0] | undefined;
  const news = new EventEmitter();
  const server = createServer(async (asked, answer) => {
    const { method = "", url = "", headers } = asked;
    const onward = request(new URL(url, target), { method, headers: { ...headers, connection: "close" } });
    onward.on("error", () => answer.destroy());
    onward.on("response", async (given) => {
      const body = await buffer(given);
      if (wanted?.({ path: url, body: body.toString() })) {
        wanted = undefined;
        const { promise, resolve } = Promise.withResolvers<void>();
        news.emit("held", resolve);
        await promise;
      }
      const { "transfer-encoding": _, connection: __, ...rest } = given.headers;
      answer.writeHead(given.statusCode ?? 502, { ...rest, "content-length": body.length }).end(body);
    });
    onward.end(await buffer(asked));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    hold: async (isIt) => {
      wanted = isIt;
      const [release] = await once(news, "held");
      return release as () => void;
    },
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}
