import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ChatParts, createChat } from "../../src/chat/app.ts";
import { loadConfig } from "../../src/config/config.ts";
import { openPool, type Pool, query } from "../../src/store/pool.ts";

export interface TestChat extends AsyncDisposable {
  readonly url: string;
  /** To look at the rows with. */
  readonly pool: Pool;
  readonly post: (path: string, body: unknown, init?: RequestInit) => Promise<Response>;
  readonly get: (path: string) => Promise<Response>;
  /** Every interaction recorded so far, oldest first. */
  // biome-ignore lint/suspicious/noExplicitAny: rows are compared as they are
  readonly rows: () => Promise<any[]>;
}

/**
 * A chat server that listens, in front of a stand-in for LM Studio. `env` is what a user would set; unless
 * that has a home, it gets one of its own. */
export async function startChat(
  lm: { readonly url: string },
  databaseUrl: string,
  env: NodeJS.ProcessEnv = {},
  parts: Partial<ChatParts> = {},
): Promise<TestChat> {
  const home = env.PUGMARK_HOME ?? mkdtempSync(join(tmpdir(), "pugmark-chat-"));
  const own = { DEEPSEEK_API_URL: lm.url, LOG_LEVEL: "fatal", PUGMARK_HOME: home };
  const { config } = loadConfig({ ...own, ...env }, "/nowhere/.env");
  const pool = openPool({ url: databaseUrl, name: "chat-test", role: "pugmark_app", max: 4 });
  const app = await createChat({ config, pool, ...parts });
  const url = await app.listen({ host: "127.0.0.1", port: 0 });
  return {
    url,
    pool,
    post: (path, body, init = {}) =>
      fetch(url + path, {
        method: "POST",
        body: JSON.stringify(body),
        ...init,
        headers: { "content-type": "application/json", ...(init.headers as Record<string, string>) },
      }),
    get: (path) => fetch(url + path),
    rows: async () => {
      // Reading the log waits until all that was recorded is in the database.
      await (await fetch(`${url}/interactions?limit=1`)).body?.cancel();
      return (await query(pool, "select * from interactions order by created_at, id")).rows;
    },
    async [Symbol.asyncDispose]() {
      await app.close();
      await pool.end();
      if (env.PUGMARK_HOME === undefined) rmSync(home, { recursive: true });
    },
  };
}

/** Stands between a server and its Postgres, and can take it away. */
export interface Cable extends AsyncDisposable {
  /** The database's URL through the cable. */
  readonly url: string;
  readonly cut: () => Promise<void>;
  readonly mend: () => Promise<void>;
}

export async function cableTo(databaseUrl: string): Promise<Cable> {
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    const other = connect(Number(target.port), target.hostname);
    for (const end of [socket, other]) {
      sockets.add(end);
      end.on("error", () => {});
      end.on("close", () => sockets.delete(end));
    }
    socket.pipe(other).pipe(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  const cut = async () => {
    if (!server.listening) return;
    server.close();
    for (const socket of sockets) socket.destroy();
    await once(server, "close");
  };
  const url = new URL(databaseUrl);
  url.host = `127.0.0.1:${port}`;
  return {
    url: url.href,
    cut,
    mend: async () => {
      server.listen(port, "127.0.0.1");
      await once(server, "listening");
    },
    [Symbol.asyncDispose]: cut,
  };
}

export interface SseEvent {
  readonly event: string;
  // biome-ignore lint/suspicious/noExplicitAny: each test knows what it looks for
  readonly data: any;
}

/** All events of a stream that has ended; `[DONE]` is left as text. */
export async function eventsOf(response: Response): Promise<SseEvent[]> {
  const text = await response.text();
  return text
    .split("\n\n")
    .filter(Boolean)
    .map((block) => {
      const event = /^event: (.*)$/m.exec(block)?.[1] ?? "";
      const data = /^data: (.*)$/m.exec(block)?.[1] ?? "";
      return { event, data: data === "[DONE]" ? data : JSON.parse(data) };
    });
}

/** Resolves once `check` gives something; fails after 10 s, or as long as is said, with what it saw last. */
export async function eventually<T>(
  look: () => Promise<T>,
  isIt: (seen: T) => boolean,
  deadlineMs = 10_000,
): Promise<T> {
  const deadline = Date.now() + deadlineMs;
  for (;;) {
    const seen = await look();
    if (isIt(seen)) return seen;
    if (Date.now() > deadline) throw new Error(`still ${JSON.stringify(seen)}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
