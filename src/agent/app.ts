import type { Config } from "../config/config.ts";
import { type App, createApp } from "../http/app.ts";
import { type Pool, ping } from "../store/pool.ts";
import { agentStatusOf } from "./agent-error.ts";
import type { Chat } from "./chat.ts";
import { askRoute } from "./routes/ask.ts";
import { toolRoutes } from "./routes/tools.ts";
import { tools } from "./tools/registry.ts";

export interface AgentParts {
  readonly config: Config;
  /** Of a role that can only read. */
  readonly pool: Pool;
  readonly chat: Chat;
  /** Tells models the time. Default: the clock. */
  readonly now?: () => Date;
  /** Milliseconds that a question may take as a whole. Default 15 minutes. */
  readonly timeoutMs?: number;
}

/** Longer than one model call may take on a slow machine, shorter than anybody waits. */
const askTimeoutMs = 15 * 60_000;

/** Tokens of one reply of a model: a plan or a few sentences, and the thinking before them. */
const replyTokensMax = 2048;

/** The agent server: answers questions by reading the store through tools, with its evidence. */
export async function createAgent(parts: AgentParts): Promise<App> {
  const { config, pool, chat, now = () => new Date(), timeoutMs = askTimeoutMs } = parts;
  const app = await createApp({
    name: "agent",
    title: "Pugmark agent",
    description:
      "Answers questions about what is tracked, from the data, and says what each answer rests on.",
    config,
    statusOf: agentStatusOf,
    readiness: { database: () => ping(pool) },
    bodyLimit: 64 * 1024,
  });
  askRoute(app, {
    pool,
    chat,
    tools,
    toolMode: config.AGENT_TOOL_MODE,
    replyTokensMax: Math.min(replyTokensMax, config.CHAT_MAX_TOKENS),
    now,
    timeoutMs,
    defaultModel: config.DEEPSEEK_MODEL,
  });
  toolRoutes(app, { pool, tools, timeoutMs });
  return app;
}
