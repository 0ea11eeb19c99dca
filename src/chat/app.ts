import { join } from "node:path";
import type { Config } from "../config/config.ts";
import { type App, createApp, sendProblem } from "../http/app.ts";
import { edgeStatusOf } from "../http/problem.ts";
import { storeStatusOf } from "../store/errors.ts";
import { type InteractionLog, openInteractionLog } from "../store/interaction-log.ts";
import { type Redact, redactionOf } from "../store/interaction-record.ts";
import { keepInteractionsFor } from "../store/interaction-retention.ts";
import type { Pool } from "../store/pool.ts";
import { tokensUsedSince } from "../store/token-use.ts";
import { BatchWorker, standardSettings, type WorkerSettings } from "./batches/worker.ts";
import type { AnswerCache } from "./cache/answer-cache.ts";
import { cacheMetrics } from "./cache/cache-metrics.ts";
import { openAnswerCache } from "./cache/open-answer-cache.ts";
import { logCall } from "./call-log.ts";
import { callMetrics } from "./call-metrics.ts";
import { chatStatusOf } from "./chat-error.ts";
import { type Complete, createComplete } from "./complete.ts";
import { journalMetrics } from "./journal-metrics.ts";
import { Limits } from "./limits.ts";
import { Upstreams } from "./lm-studio/upstreams.ts";
import { batchRoutes } from "./routes/batches.ts";
import { cacheRoutes } from "./routes/cache.ts";
import { chatRoute } from "./routes/chat.ts";
import { chatBatchRoute } from "./routes/chat-batch.ts";
import { fileRoutes } from "./routes/files.ts";
import { interactionRoutes } from "./routes/interactions.ts";
import { openAiRoutes } from "./routes/openai.ts";
import { sendOpenAiError } from "./routes/openai-errors.ts";
import { queueRoute } from "./routes/queue.ts";
import { sessionRoutes } from "./routes/sessions.ts";
import { testRoute } from "./routes/test.ts";
import { TokenBudgets } from "./token-budgets.ts";

export interface ChatParts {
  readonly config: Config;
  readonly pool: Pool;
  /** Milliseconds since 1970, for what expires. */
  readonly clock?: () => number;
  /** What is to be other than usual for the batches. */
  readonly batches?: Partial<WorkerSettings>;
}

/** What the routes of the chat server are handed. */
export interface RouteParts extends Required<Omit<ChatParts, "batches">> {
  readonly upstreams: Upstreams;
  readonly cache: AnswerCache;
  readonly complete: Complete;
  readonly interactions: InteractionLog;
  readonly limits: Limits;
  readonly worker: BatchWorker;
  readonly redact: Redact | undefined;
  readonly statusOf: Readonly<Record<string, number>>;
}

/** Images come inside of messages. */
const bodyLimit = 8 * 1024 * 1024;

/** The chat server: the one door to LM Studio. Closing it closes its connections to LM Studio. */
export async function createChat({ config, pool, clock = Date.now, batches }: ChatParts): Promise<App> {
  const statusOf = { ...edgeStatusOf, ...chatStatusOf, ...storeStatusOf };
  const app = await createApp({
    name: "chat",
    title: "Pugmark chat server",
    description: "The one door to the local language model: questions, their log, and OpenAI's API.",
    config,
    statusOf,
    // Without LM Studio there are cached answers and the log, and without the database answers and the journal: no
    // single one is a reason to send nobody here. `/test` says what is away.
    readiness: {},
    bodyLimit,
    sendUnrouted: (error, request, reply) => {
      const send = /^\/v1([/?]|$)/.test(request.raw.url ?? "") ? sendOpenAiError : sendProblem;
      return send(error, request, reply, statusOf);
    },
  });
  const upstreams = new Upstreams({
    roots: config.DEEPSEEK_API_URL,
    key: config.DEEPSEEK_API_KEY,
    concurrency: config.DEEPSEEK_CONCURRENCY,
    silenceMs: config.API_TIMEOUT * 1000,
    firstTokenMs: config.API_FIRST_TOKEN_TIMEOUT * 1000,
    loadMs: config.API_LOAD_TIMEOUT * 1000,
  });
  app.addHook("onClose", () => upstreams[Symbol.asyncDispose]());
  const cache = await openAnswerCache(config, app.log);
  app.addHook("onClose", () => cache[Symbol.asyncDispose]());
  cacheMetrics(app.metrics, cache);
  const folder = join(config.PUGMARK_HOME, "journal", "chat");
  const redact = redactionOf(config.INTERACTION_REDACT);
  const contents = config.CHAT_LOG_CONTENTS === "true" ? (redact ?? ((text: string) => text)) : undefined;
  const interactions = openInteractionLog({ pool, folder, log: app.log, redact });
  app.addHook("onClose", () => interactions[Symbol.asyncDispose]());
  const days = config.INTERACTION_RETENTION_DAYS;
  if (days > 0) {
    const retention = keepInteractionsFor({ pool, days, log: app.log });
    app.addHook("onClose", () => retention[Symbol.asyncDispose]());
  }
  journalMetrics(app, interactions);
  const limits = createLimits(app, { config, pool, interactions });
  const metrics = callMetrics(app);
  const complete = createComplete({
    upstreams,
    cache,
    interactions,
    observer: {
      began: metrics.began,
      ended: (call, end) => {
        metrics.ended(call, end);
        logCall(call, end, contents);
      },
    },
    limits,
    contextOf: (model) => upstreams.contextOf(model),
  });
  const worker = new BatchWorker({
    ...standardSettings,
    // As many as run at once: more would only wait.
    linesAtOnce:
      (config.DEEPSEEK_CONCURRENCY ?? standardSettings.linesAtOnce) * config.DEEPSEEK_API_URL.length,
    ...batches,
    config,
    pool,
    clock,
    complete,
    statusOf,
    reachModels: () => upstreams.models(),
    log: app.log,
  });
  app.addHook("onReady", async () => worker.start());
  // Before people's questions end: another server may go on with its lines.
  app.addHook("preClose", () => worker[Symbol.asyncDispose]());
  const parts: RouteParts = {
    config,
    pool,
    clock,
    upstreams,
    cache,
    complete,
    interactions,
    limits,
    worker,
    redact,
    statusOf,
  };
  chatRoute(app, parts);
  sessionRoutes(app, parts);
  chatBatchRoute(app, parts);
  testRoute(app, parts);
  queueRoute(app, parts);
  cacheRoutes(app, parts);
  interactionRoutes(app, parts);
  await app.register(
    async (scope) => {
      openAiRoutes(scope as unknown as App, parts);
      // Of its own, for only its routes take forms.
      await scope.register(async (inner) => fileRoutes(inner as unknown as App, parts));
      batchRoutes(scope as unknown as App, parts);
    },
    { prefix: "/v1" },
  );
  return app;
}

/** Where nobody has a limit of tokens, nothing looks after them. */
function createLimits(
  app: App,
  { config, pool, interactions }: ChatParts & { readonly interactions: InteractionLog },
): Limits {
  const { CHAT_TOKENS_PER_DAY: perDay } = config;
  if (!perDay) return new Limits();
  const usedSince = async (caller: string, since: Date) => {
    // What an earlier process left in the journal counts as well.
    await interactions.settled();
    return tokensUsedSince(pool, caller, since);
  };
  const warn = (err: unknown) => app.log.warn({ err }, "tokens of the day not read");
  const limits = new Limits(new TokenBudgets({ limits: perDay, usedSince, warn }));
  app.addHook("preHandler", async (request, reply) => {
    if (request.method === "POST") reply.headers(await limits.headersFor(request.caller));
  });
  return limits;
}
