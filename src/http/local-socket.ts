import { createHash } from "node:crypto";
import { once } from "node:events";
import { closeSync, constants, openSync } from "node:fs";
import { chmod, rename, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { dirname, join, resolve } from "node:path";
import { toProblem } from "./problem.ts";
import { uuidv7 } from "./uuid.ts";

/** A question to a service over its socket. */
interface LocalRequest {
  /** The body's JSON; undefined where there is none. */
  readonly body: unknown;
  readonly query: URLSearchParams;
  /** Aborts when whoever asked has left. */
  readonly signal: AbortSignal;
}

/** Answers with an object, or with many of them, a JSON line each, as they come. */
export type LocalHandler = (request: LocalRequest) => Promise<object> | AsyncIterable<object>;

export interface LocalServerOptions {
  readonly path: string;
  /** By method and path: `GET /status`. */
  readonly routes: Readonly<Record<string, LocalHandler>>;
  /** Status of each error code that a handler may throw. */
  readonly statusOf: Readonly<Record<string, number>>;
  /** Hears of every failure that was not planned. */
  readonly onError: (error: unknown) => void;
}

const bodyBytesMax = 64 * 1024;
/** Room in `sockaddr_un` is 108 bytes on Linux and 104 on macOS. */
const pathBytesMax = 100;

/** The path of a service's socket in a home; a named pipe on Windows. */
export function localSocketPath(home: string, name: string): string {
  const path = join(resolve(home), `${name}.sock`);
  if (process.platform !== "win32") return path;
  const id = createHash("sha256").update(path.toLowerCase()).digest("hex").slice(0, 16);
  return `\\\\.\\pipe\\pugmark-${name}-${id}`;
}

/** A path to bind or connect to, however long it is, and what keeps it valid. Dispose after that. */
export function openLocalPath(path: string): Disposable & { readonly path: string } {
  const isShort = Buffer.byteLength(path) <= pathBytesMax || process.platform !== "linux";
  if (isShort) return { path, [Symbol.dispose]: () => undefined };
  const folder = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  const name = path.slice(dirname(path).length + 1);
  return { path: `/proc/self/fd/${folder}/${name}`, [Symbol.dispose]: () => closeSync(folder) };
}

/** Serves HTTP on a socket that its owner alone can open, and that replaces one which a dead process left. */
export async function serveLocally(options: LocalServerOptions): Promise<AsyncDisposable> {
  const { path } = options;
  const server = createServer((request, response) => void answer(options, request, response));
  server.requestTimeout = 0; // a backfill takes as long as it takes
  const isPipe = process.platform === "win32";
  // Made under another name and moved when it is closed to others: there is no moment in between.
  const made = isPipe ? path : `${path}.new`;
  if (!isPipe) await rm(made, { force: true });
  using address = openLocalPath(made);
  server.listen(address.path);
  await once(server, "listening");
  if (!isPipe) {
    await chmod(made, 0o600);
    await rename(made, path);
  }
  return {
    async [Symbol.asyncDispose]() {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
      if (!isPipe) await rm(path, { force: true });
    },
  };
}

async function answer(
  { routes, statusOf, onError }: LocalServerOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const gone = new AbortController();
  response.on("close", () => gone.abort(new Error("whoever asked has left")));
  response.on("error", () => undefined);
  response.setHeader("connection", "close");
  try {
    const url = new URL(request.url ?? "/", "http://local");
    const handler = routes[`${request.method} ${url.pathname}`];
    if (!handler) throw coded("route-unknown", "Nothing here answers on that path.");
    const body = await bodyOf(request);
    const answered = handler({ body, query: url.searchParams, signal: gone.signal });
    if (!(answered instanceof Promise)) return await sendLines(response, answered, gone.signal);
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(await answered));
  } catch (error) {
    if (gone.signal.aborted) return;
    const problem = toProblem(error, uuidv7(), { ...ownStatusOf, ...statusOf });
    if (problem.code === "internal") onError(error);
    // In the middle of lines the problem is the last of them.
    if (response.headersSent) response.end(`${JSON.stringify({ problem })}\n`);
    else
      response
        .writeHead(problem.status, { "content-type": "application/problem+json" })
        .end(JSON.stringify(problem));
  }
}

const ownStatusOf = { "route-unknown": 404, "request-invalid": 400, "body-too-large": 413 };

function coded(code: keyof typeof ownStatusOf, message: string): Error {
  return Object.assign(new Error(message), { code });
}

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > bodyBytesMax) throw coded("body-too-large", `A body may have ${bodyBytesMax} bytes.`);
    parts.push(part);
  }
  if (bytes === 0) return undefined;
  try {
    return JSON.parse(Buffer.concat(parts).toString());
  } catch {
    throw coded("request-invalid", "The body is not JSON.");
  }
}

/** One JSON line for each item, as fast as whoever asked reads. */
async function sendLines(
  response: ServerResponse,
  items: AsyncIterable<object>,
  gone: AbortSignal,
): Promise<void> {
  for await (const item of items) {
    if (!response.headersSent) response.writeHead(200, { "content-type": "application/x-ndjson" });
    if (response.write(`${JSON.stringify(item)}\n`)) continue;
    await once(response, "drain", { signal: gone });
  }
  response.end();
}
