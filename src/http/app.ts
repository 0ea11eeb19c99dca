import { isUtf8 } from "node:buffer";
import type { Socket } from "node:net";
import swagger from "@fastify/swagger";
import swaggerUi from "@fastify/swagger-ui";
import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import { Ajv } from "ajv";
import formats from "ajv-formats";
import fastify, {
  type ConnectionError,
  type FastifyReply,
  type FastifyRequest,
  LogController,
} from "fastify";
import type { Config } from "../config/config.ts";
import type { Scope } from "../config/formats.ts";
import {
  checkOrigin,
  checkScope,
  everybodyHere,
  type Holder,
  hostGuard,
  type KeyRing,
  keyOf,
  keyRing,
  markOf,
  type Reachability,
} from "./guards.ts";
import { healthRoutes, type Readiness } from "./health.ts";
import { logOptions } from "./log.ts";
import { requestMetrics } from "./metrics.ts";
import { EdgeError, edgeStatusOf, Problem, problems, toProblem } from "./problem.ts";
import { isToken, type UserTokens, userTokens } from "./user-tokens.ts";
import { uuidv7 } from "./uuid.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /** What a key must allow; `open` asks for none. Default: `read` for GET and HEAD, else `write`. */
    scope?: Scope | "open";
    /** A GET that stores or costs something: guarded like a POST. */
    changes?: boolean;
    /** The key may come as the query parameter `key`, for phone apps that can set no header. */
    keyInQuery?: boolean;
    /** Responses by which the route fails: for its description alone. */
    failures?: Readonly<Record<string, unknown>>;
  }
  interface FastifyRequest {
    /** Name of the key that the caller showed, `user:ID` of a user of the Supabase project, or `local`. */
    caller: string;
    /** Whether the caller may see and change what is another's. */
    isAdmin: boolean;
    /** Mark of the key that was shown where none is asked for. */
    shownKey: string | undefined;
  }
}

export interface AppOptions {
  readonly name: string;
  readonly title: string;
  readonly description: string;
  readonly config: Config;
  /** Status of each error code that this server adds to the common ones. */
  readonly statusOf: Readonly<Record<string, number>>;
  /** What the server cannot do without, by name. */
  readonly readiness: Readiness;
  /** Bytes of a request's body; a route may set its own. Default 1 MiB. */
  readonly bodyLimit?: number;
  /** Answers what reaches no route's error handler, as a path that cannot be decoded. Default: with a problem. */
  readonly sendUnrouted?: (error: unknown, request: FastifyRequest, reply: FastifyReply) => FastifyReply;
}

export type App = Awaited<ReturnType<typeof createApp>>;

/**
 * A server with everything that all servers here share at their edge: host, origin and key checks, limits,
 * problem+json, request ids, security headers, health, metrics and OpenAPI. Routes are added by the caller,
 * who then passes it to `serve` or, in tests, to `inject`.
 */
export async function createApp(options: AppOptions) {
  const { config } = options;
  const statusOf = { ...edgeStatusOf, ...options.statusOf };
  const sendAsProblem = (error: unknown, request: FastifyRequest, reply: FastifyReply) =>
    sendProblem(error, request, reply, statusOf);
  const { sendUnrouted = sendAsProblem } = options;
  const reach = reachability(config);
  const checkHost = hostGuard(reach);
  const ring = keyRing(config.PUGMARK_API_KEYS ?? [], config.PUGMARK_INTERNAL_KEY);
  const users = config.SUPABASE_URL
    ? userTokens({ url: config.SUPABASE_URL, secret: config.SUPABASE_JWT_SECRET })
    : undefined;

  const app = fastify({
    logger: logOptions(options.name, config),
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: options.bodyLimit ?? 1024 * 1024,
    requestTimeout: 120_000,
    // A server that is being replaced answers whoever still has a connection to it, and then closes that.
    return503OnClosing: false,
    routerOptions: { maxParamLength: 256 },
    // What is not HTTP, and what has no host, is answered here as well, and not by Node with an empty body.
    http: { requireHostHeader: false },
    clientErrorHandler: refuseMalformed,
    frameworkErrors: (error, request, reply) => {
      reply.headers(securityHeaders).header("x-request-id", request.id);
      try {
        checkHost(request.raw);
        sendUnrouted(error, request, reply);
      } catch (foreign) {
        sendUnrouted(foreign, request, reply);
      }
    },
    genReqId: (request) => requestIdOf(request.headers["x-request-id"]),
  }).withTypeProvider<TypeBoxTypeProvider>();

  const validators = { body: ajv(false), rest: ajv("array") };
  app.setValidatorCompiler(({ schema, httpPart }) =>
    (httpPart === "body" ? validators.body : validators.rest).compile(schema),
  );
  app.removeContentTypeParser("text/plain");
  parseAsJson(app, "application/json");
  app.decorateRequest("caller", everybodyHere.name);
  app.decorateRequest("isAdmin", false);
  app.decorateRequest("shownKey", undefined);
  app.addSchema(Problem);

  app.addHook("onRoute", (route) => {
    if (!route.schema) return;
    const isOpen = route.config?.scope === "open";
    const statuses = [...(isOpen ? [403] : [401, 403]), ...(route.schema.body ? [400, 413, 415] : [])];
    const keysAway =
      users && !isOpen ? [{ 503: "The key that an access token names cannot be had now" }] : [];
    const responses = { ...problems(...statuses, ...keysAway), ...(route.schema.response as object) };
    // Failures are sent as finished text: serialisers for them would only cost time at each start (15 %).
    const isFailure = ([status]: [string, unknown]) => Number(status) >= 400;
    const failures = Object.fromEntries(Object.entries(responses).filter(isFailure));
    route.schema.response = Object.fromEntries(
      Object.entries(responses).filter((entry) => !isFailure(entry)),
    );
    route.config = { ...route.config, failures };
    if (isOpen) route.schema.security = [];
  });
  // No hook is asynchronous: a promise for each would cost more than what they do.
  app.addHook("onRequest", (request, reply, done) => {
    reply.headers(securityHeaders).header("x-request-id", request.id);
    checkHost(request.raw);
    const { headers, routeOptions } = request;
    const { config: route } = routeOptions;
    const safe = request.method === "GET" || request.method === "HEAD";
    if (!safe || route.changes || headers.origin !== undefined) checkOrigin(headers, reach);
    const isDocs = safe && routeOptions.url?.startsWith(docsPath);
    const scope = isDocs ? "open" : (route.scope ?? (safe ? "read" : "write"));
    const encoding = headers["content-encoding"];
    if (encoding !== undefined && encoding.toLowerCase() !== "identity") {
      throw new EdgeError("media-type-unsupported", "Bodies are taken as they are, not compressed.");
    }
    if (scope === "open") return done();
    const holder = holderOf(request, ring, users);
    if (!(holder instanceof Promise)) {
      admit(request, holder, scope);
      return done();
    }
    holder.then((found) => admit(request, found, scope)).then(() => done(), done);
  });

  const connections = new Set<Socket>();
  app.server.on("connection", (socket) => {
    connections.add(socket);
    socket.once("close", () => connections.delete(socket));
  });
  // A connection whose answer ends while this closes would stay open for as long as an idle one may: over a minute.
  let sweep: NodeJS.Timeout;
  app.addHook("preClose", async () => {
    sweep = setInterval(() => {
      app.server.closeIdleConnections();
      // One on which nothing ever came is not idle to Node. Browsers open one more than they need.
      for (const socket of connections) if (socket.bytesRead === 0) socket.destroy();
    }, 50);
  });
  app.addHook("onClose", async () => clearInterval(sweep));

  app.setErrorHandler(sendAsProblem);
  app.setNotFoundHandler((request) => {
    throw new EdgeError(
      "route-unknown",
      `Nothing here answers ${request.method} on that path; /docs lists what does.`,
    );
  });

  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: { title: options.title, description: options.description, version: "0.1.0", license },
      servers: [{ url: "/", description: "this server" }],
      components: { securitySchemes },
      security: [{}, { bearer: [] }, { apiKey: [] }],
    },
    transform: ({ schema, url, route }) => ({
      schema: { ...schema, response: { ...(schema?.response as object), ...route.config?.failures } },
      url,
    }),
    refResolver: {
      buildLocalReference: (json, _base, _fragment, index) => String(json.$id ?? `def-${index}`),
    },
  });
  await app.register(swaggerUi, {
    routePrefix: docsPath,
    staticCSP: docsPolicy,
    // The bar on top offers to load any description from anywhere.
    theme: {
      title: options.title,
      css: [{ filename: "theme.css", content: ".swagger-ui .topbar { display: none }" }],
    },
    uiConfig: { validatorUrl: null },
  });
  app.get("/openapi.json", { config: { scope: "open" }, schema: { hide: true } }, async () => app.swagger());
  app.get("/", { config: { scope: "open" }, schema: { hide: true } }, async (_request, reply) =>
    reply.redirect(docsPath),
  );
  requestMetrics(app, options.name);
  healthRoutes(app, options.readiness);
  return app;
}

/** Has bodies of this media type read as JSON. */
export function parseAsJson(app: Pick<App, "addContentTypeParser" | "getDefaultJsonParser">, type: string) {
  app.addContentTypeParser(type, { parseAs: "buffer" }, jsonParser(app));
}

/** Reads a body as JSON: strictly UTF-8, and without keys that would reach an object's prototype. */
export function jsonParser(app: Pick<App, "getDefaultJsonParser">) {
  const parse = app.getDefaultJsonParser("error", "error");
  return (
    request: FastifyRequest,
    body: string | Buffer,
    done: (error: Error | null, body?: unknown) => void,
  ): void => {
    // Many clients name a type for every POST; where nothing follows it, there is no body.
    if (body.length === 0) done(null, undefined);
    // Else what cannot be read would turn into U+FFFD, and two names into one.
    else if (!isUtf8(body as Buffer)) done(new EdgeError("request-invalid", "The body is not UTF-8."));
    else parse(request, String(body), done);
  };
}

/** Answers with the problem that the error stands for; what was not planned goes to the log whole. */
export function sendProblem(
  error: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
  statusOf: Readonly<Record<string, number>>,
): FastifyReply {
  const problem = toProblem(error, request.id, statusOf);
  logProblem(error, request, problem);
  if (error instanceof Error && "retryAfterS" in error)
    reply.header("retry-after", String(error.retryAfterS));
  if (problem.status === 401) reply.header("www-authenticate", "Bearer");
  return reply.code(problem.status).type(problemType).send(JSON.stringify(problem));
}

/** Answers bytes that are no request, where there is no reply to answer with. */
function refuseMalformed(error: ConnectionError, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) return void socket.destroy();
  const refusal =
    error.code === "HPE_HEADER_OVERFLOW"
      ? new EdgeError("headers-too-large", "The headers of a request may have 16 KiB.")
      : error.code === "ERR_HTTP_REQUEST_TIMEOUT"
        ? new EdgeError("request-timeout", "The request did not come to its end in time.")
        : new EdgeError("request-invalid", "This is not an HTTP request.");
  const problem = toProblem(refusal, uuidv7(), edgeStatusOf);
  const body = JSON.stringify(problem);
  const headers = {
    ...securityHeaders,
    "x-request-id": problem.instance,
    "content-type": problemType,
    "content-length": Buffer.byteLength(body),
    connection: "close",
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${problem.status} ${problem.title}\r\n${lines.join("")}\r\n${body}`);
}

const problemType = "application/problem+json; charset=utf-8";

/** One line for every answer that is an error: a warning with its code, or the whole of an unplanned one. */
export function logProblem(
  error: unknown,
  request: FastifyRequest,
  { code, status }: { code: string; status: number },
): void {
  const fields = { method: request.method, route: request.routeOptions.url, code };
  const isBrokenOff = request.raw.destroyed && !request.raw.complete;
  if (isBrokenOff) request.log.info(fields, "caller left before the request was whole");
  else if (code === "internal") request.log.error({ ...fields, err: error }, "request failed");
  else if (status >= 500) request.log.warn({ ...fields, err: error }, "request refused");
  else request.log.info(fields, "request refused");
}

/** A body is taken at its word: a `null` or a string never becomes a number. Queries are all text. */
function ajv(coerceTypes: boolean | "array"): Ajv {
  const validator = new Ajv({ coerceTypes, useDefaults: true, removeAdditional: false, strict: false });
  // The plugin's types describe its CommonJS form.
  (formats as unknown as (ajv: Ajv) => void)(validator);
  return validator;
}

function requestIdOf(header: string | string[] | undefined): string {
  return typeof header === "string" && /^[\w.-]{8,64}$/.test(header) ? header : uuidv7();
}

/**
 * Who asks: the holder of the key or, with Supabase, of the access token that the request shows. Without keys everybody
 * on this machine may do everything, except who shows a token: that is a user, and what is wrong with it is said.
 * Throws `EdgeError` `key-missing`, `key-unknown` or `token-…`.
 */
function holderOf(
  request: FastifyRequest,
  ring: KeyRing | undefined,
  users: UserTokens | undefined,
): Holder | Promise<Holder> {
  const { headers } = request;
  // In nearly every request of a station without keys.
  if (!ring && (headers.authorization ?? headers["x-api-key"]) === undefined) return everybodyHere;
  const shown = keyOf(headers);
  const key = shown ?? (ring && keyInQuery(request));
  const holder = key === undefined ? undefined : ring?.holderOf(key);
  if (holder) return holder;
  if (users && shown !== undefined && isToken(shown)) return users.holderOf(shown);
  if (!ring) {
    request.shownKey = shown === undefined ? undefined : markOf(shown);
    return everybodyHere;
  }
  if (key !== undefined) throw new EdgeError("key-unknown", "This key is not known here.");
  throw new EdgeError("key-missing", "A key is needed: Authorization: Bearer KEY, or X-API-Key: KEY.");
}

function keyInQuery({ routeOptions, query }: FastifyRequest): string | undefined {
  if (!routeOptions.config.keyInQuery) return undefined;
  const { key } = query as { key?: unknown };
  return typeof key === "string" ? key : undefined;
}

/** Throws `EdgeError` `scope-missing`. */
function admit(request: FastifyRequest, holder: Holder, scope: Scope): void {
  checkScope(holder, scope);
  request.caller = holder.name;
  request.isAdmin = holder.scopes.includes("admin");
}

function reachability(config: Config): Reachability {
  return {
    host: config.HOST,
    ports: [config.API_PORT, config.CHAT_PORT, config.PORT],
    allowedHosts: config.PUGMARK_ALLOWED_HOSTS.map((name) => name.toLowerCase()),
  };
}

const docsPath = "/docs";
/** The documentation page is ours alone: it loads nothing from elsewhere and calls only this server. */
const docsPolicy =
  "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; " +
  "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const license = { name: "MIT", identifier: "MIT" };

const securitySchemes = {
  bearer: {
    type: "http",
    scheme: "bearer",
    description: "a key of PUGMARK_API_KEYS, or the access token of a user of the Supabase project",
  },
  apiKey: { type: "apiKey", in: "header", name: "X-API-Key" },
} as const;

const securityHeaders = {
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
};
