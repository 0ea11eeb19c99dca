import { once } from "node:events";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { openLocalPath } from "./local-socket.ts";

/** Why a service could not be asked, or what it refused. */
export class LocalError extends Error {
  override readonly name = "LocalError";
  /** `not-running` where nothing answers, else the service's own code. */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

export interface LocalQuestion {
  readonly method: "GET" | "POST" | "DELETE";
  /** With its query. */
  readonly path: string;
  readonly body?: object;
  readonly signal?: AbortSignal;
}

/** Asks the service behind a socket (see `localSocketPath`) and gives its answer. Throws `LocalError`. */
export async function askLocally<T>(socket: string, question: LocalQuestion): Promise<T> {
  return JSON.parse(await text(await responseTo(socket, question)));
}

/** Gives the lines of an answer as they come. Throws `LocalError`, also for one that breaks off. */
export async function* linesLocally<T>(socket: string, question: LocalQuestion): AsyncGenerator<T> {
  const response = await responseTo(socket, question);
  let rest = "";
  try {
    for await (const part of response.setEncoding("utf8")) {
      const lines = `${rest}${part}`.split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const item = JSON.parse(line);
        if ("problem" in item) throw new LocalError(item.problem.code, item.problem.detail);
        yield item;
      }
    }
  } catch (cause) {
    if (cause instanceof LocalError || question.signal?.aborted) throw cause;
    throw new LocalError("broken-off", "the service ended before its answer did", { cause });
  } finally {
    response.destroy();
  }
}

async function responseTo(
  socket: string,
  { method, path, body, signal }: LocalQuestion,
): Promise<IncomingMessage> {
  try {
    using address = openLocalPath(socket);
    const createConnection = () => connect(address.path);
    const headers = { host: "localhost", ...(body ? { "content-type": "application/json" } : {}) };
    const request = httpRequest({ createConnection, method, path, headers, ...(signal ? { signal } : {}) });
    request.end(body ? JSON.stringify(body) : undefined);
    const [response] = (await once(request, "response")) as [IncomingMessage];
    request.on("error", () => undefined); // once there is an answer, a broken connection ends that
    if ((response.statusCode ?? 500) < 400) return response;
    const { code, detail } = JSON.parse(await text(response)) as { code: string; detail: string };
    throw new LocalError(code, detail);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (!["ENOENT", "ECONNREFUSED", "ECONNRESET", "ENOTDIR"].includes(code ?? "")) throw error;
    throw new LocalError("not-running", `nothing answers at ${socket}`, { cause: error });
  }
}
