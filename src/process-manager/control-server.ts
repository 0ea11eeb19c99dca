import { once } from "node:events";
import { chmod, rename, rm } from "node:fs/promises";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { join } from "node:path";
import type { Change } from "./change-plan.ts";
import { controlSocketPath, openSocketAddress } from "./control-socket.ts";
import { http } from "./http-module.ts";
import type { LogLine } from "./log-reader.ts";
import { messageOf, ProcessManagerError, type ProcessManagerErrorCode } from "./process-manager-error.ts";
import type { MeasuredService } from "./process-usage.ts";
import type { ServiceEvent, ServiceRecord } from "./service-status.ts";

/** What the control API needs of the manager. */
export interface Controllable {
  services(): readonly ServiceRecord[];
  measuredServices(): Promise<readonly MeasuredService[]>;
  metrics(): Promise<string>;
  /** Resolve when the service is ready, or throw why it is not. */
  startAndWait(name: string): Promise<ServiceRecord>;
  restart(name: string, why: string | null, isRolling: boolean): Promise<ServiceRecord>;
  stop(name: string): Promise<ServiceRecord>;
  plan(): Promise<readonly Change[]>;
  apply(): Promise<readonly Change[]>;
  scale(group: string, replicas: number): Promise<readonly Change[]>;
  stopAll(): Promise<void>;
  events(): AsyncIterableIterator<ServiceEvent, undefined>;
  subscribeLogs(options: LogQuery): AsyncIterableIterator<LogLine, undefined>;
}

/** Which lines are wanted. */
export interface LogQuery {
  /** One service, or all of them. */
  readonly service?: string;
  /** Lines from the file first. Default 0. */
  readonly tailLines?: number;
  /** Go on with new lines. Default true. */
  readonly follow?: boolean;
}

const statusOf = {
  "definition-invalid": 422,
  "service-unknown": 404,
  "service-external": 409,
  "home-held": 500,
  "home-unusable": 500,
  "port-taken": 502,
  "start-failed": 502,
  "restart-failed": 502,
  "manager-stopping": 409,
  "not-running": 500,
  "request-invalid": 400,
  "control-failed": 500,
} satisfies Record<ProcessManagerErrorCode, number>;

/**
 * The manager's control API: HTTP over a Unix socket that only its owner may open. JSON answers, problem JSON
 * (`code`, `detail`) for errors, NDJSON for what goes on.
 */
export class ControlServer {
  readonly #home: string;
  readonly #manager: Controllable;
  readonly #server: Server;
  readonly #released = Promise.withResolvers<void>();

  private constructor(home: string, manager: Controllable) {
    this.#home = home;
    this.#manager = manager;
    this.#server = http.createServer((request, response) => void this.#answer(request, response));
    this.#server.requestTimeout = 0; // a restart may take as long as the service does
  }

  /** Listens. Whoever calls holds the home's lock: a socket that is already there is a dead manager's. */
  static async open(home: string, manager: Controllable): Promise<ControlServer> {
    const control = new ControlServer(home, manager);
    const isPipe = process.platform === "win32";
    // Made where nobody else can go, and moved when it is closed to them: there is no moment in between. The
    // move also replaces a dead manager's.
    const place = isPipe ? home : join(home, "lock");
    if (!isPipe) await rm(controlSocketPath(place), { force: true });
    using address = openSocketAddress(place);
    control.#server.listen(address.path);
    await once(control.#server, "listening");
    if (isPipe) return control;
    await chmod(controlSocketPath(place), 0o600);
    await rename(controlSocketPath(place), controlSocketPath(home));
    return control;
  }

  /** No new requests, and the socket is gone; those that wait for the end of it all still do. */
  async stopListening(): Promise<void> {
    this.#server.close();
    if (process.platform !== "win32") await rm(controlSocketPath(this.#home), { force: true });
  }

  /** Answers those who wait for the end, and closes every connection. */
  async close(): Promise<void> {
    this.#released.resolve();
    this.#server.closeIdleConnections();
    const closed = once(this.#server, "close").catch(() => undefined);
    const late = setTimeout(() => this.#server.closeAllConnections(), 500);
    if (await this.#hasConnections()) await closed;
    clearTimeout(late);
  }

  async #hasConnections(): Promise<boolean> {
    return await new Promise((resolve) => {
      this.#server.getConnections((_error, count) => resolve(count > 0));
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on("error", () => undefined); // the client is gone
    response.setHeader("connection", "close");
    try {
      await this.#route(request, response);
    } catch (error) {
      const code = error instanceof ProcessManagerError ? error.code : "control-failed";
      const status = statusOf[code];
      if (response.headersSent) response.destroy();
      else
        sendJson(response, status, {
          type: `urn:problem:${code}`,
          title: code,
          status,
          code,
          detail: messageOf(error),
        });
    }
  }

  async #route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://manager");
    const route = `${request.method} ${url.pathname}`;
    const [, name = "", verb] = /^POST \/services\/([^/]+)\/(start|stop|restart|scale)$/.exec(route) ?? [];
    if (verb === "start") return sendJson(response, 200, await this.#manager.startAndWait(name));
    if (verb === "stop") return sendJson(response, 200, await this.#manager.stop(name));
    if (verb === "restart")
      return sendJson(response, 200, await this.#manager.restart(name, null, isTrue(url, "rolling")));
    if (verb === "scale")
      return sendJson(response, 200, { changes: await this.#manager.scale(name, replicas(url)) });
    if (route === "GET /plan") return sendJson(response, 200, { changes: await this.#manager.plan() });
    if (route === "POST /apply") return sendJson(response, 200, { changes: await this.#manager.apply() });
    if (route === "GET /services")
      return sendJson(response, 200, { services: await this.#manager.measuredServices() });
    if (route === "GET /metrics") return sendMetrics(response, await this.#manager.metrics());
    if (route === "POST /stop") return await this.#stopAll(response);
    if (route === "GET /events") return await this.#sendEvents(response);
    if (route === "GET /logs") return await stream(response, this.#manager.subscribeLogs(logQuery(url)));
    const code = "request-invalid";
    sendJson(response, 404, {
      type: `urn:problem:${code}`,
      title: code,
      status: 404,
      code,
      detail: `no ${route}`,
    });
  }

  /** Answers only when everything has stopped and the home is free: another manager may then start. */
  async #stopAll(response: ServerResponse): Promise<void> {
    void this.#manager.stopAll();
    await this.#released.promise;
    sendJson(response, 200, { services: this.#manager.services() });
  }

  async #sendEvents(response: ServerResponse): Promise<void> {
    // Subscribed before the snapshot is taken: nothing falls in between.
    const events = this.#manager.events();
    response.setHeader("content-type", "application/x-ndjson");
    response.write(`${JSON.stringify({ services: this.#manager.services() })}\n`);
    await stream(response, events);
  }
}

function isTrue(url: URL, parameter: string): boolean {
  return url.searchParams.get(parameter) === "true";
}

function replicas(url: URL): number {
  const text = url.searchParams.get("replicas") ?? "";
  if (/^\d{1,4}$/.test(text)) return Number(text);
  throw new ProcessManagerError("request-invalid", "replicas is a whole number from 0 to 1000");
}

function logQuery(url: URL): LogQuery {
  const service = url.searchParams.get("service");
  const lines = Number(url.searchParams.get("lines") ?? 0);
  if (!Number.isInteger(lines) || lines < 0 || lines > 100_000)
    throw new ProcessManagerError("request-invalid", "lines is a whole number from 0 to 100000");
  const follow = url.searchParams.get("follow") === "true";
  return { tailLines: lines, follow, ...(service === null ? {} : { service }) };
}

function sendMetrics(response: ServerResponse, text: string): void {
  response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }).end(text);
}

function sendJson(response: ServerResponse, status: number, body: object): void {
  const type = status < 400 ? "application/json" : "application/problem+json";
  response.writeHead(status, { "content-type": type }).end(JSON.stringify(body));
}

/** One JSON line for each item, as fast as the client reads, until either side ends it. */
async function stream(
  response: ServerResponse,
  items: AsyncIterableIterator<object, undefined>,
): Promise<void> {
  const gone = new AbortController();
  response.on("close", () => {
    gone.abort();
    items.return?.()?.catch(() => undefined); // what cannot be closed was told by its last next()
  });
  if (!response.headersSent) response.setHeader("content-type", "application/x-ndjson");
  response.flushHeaders();
  for await (const item of items) {
    if (response.destroyed) return;
    if (!response.write(`${JSON.stringify(item)}\n`))
      await once(response, "drain", { signal: gone.signal }).catch(() => undefined);
  }
  response.end();
}
