import { Type } from "typebox";
import type { App } from "../../http/app.ts";
import { AppError } from "../../http/problem.ts";
import { StoreError } from "../../store/errors.ts";
import { ping } from "../../store/pool.ts";
import type { RouteParts } from "../app.ts";

const Check = Type.Object({ ok: Type.Boolean(), detail: Type.String(), ms: Type.Number() });
const Report = Type.Object({
  ok: Type.Boolean(),
  services: Type.Object({
    chat: Check,
    lm_studio: Check,
    database: Check,
    journal: Check,
    redis: Type.Optional(Check),
  }),
});

/** `POST /test`: is everything there that an answer takes? Asks no model. */
export function testRoute(app: App, { config, pool, upstreams, cache, interactions }: RouteParts): void {
  app.post(
    "/test",
    {
      config: { scope: "read" },
      schema: {
        tags: ["chat"],
        summary: "Try every service that an answer needs",
        description: [
          "Always 200; `ok` is false where something is away, and its detail says what to do. Redis is there where",
          "REDIS_URL is set, and does not count: without it answers are kept in memory.",
        ].join("\n"),
        operationId: "testServices",
        response: { 200: Report },
      },
    },
    async () => {
      const { redis } = cache;
      const [lmStudio, database, shared] = await Promise.all([
        checked(async () => describeModel(await upstreams.models(), config.DEEPSEEK_MODEL)),
        checked(() => ping(pool).then(() => "answers")),
        redis && timed(async () => describeRedis(await redis.whyNotUsed())),
      ]);
      const chat = { ok: true, detail: "answers", ms: 0 };
      const journal = describeJournal(interactions.status());
      const found = { chat, lm_studio: lmStudio, database, journal: { ...journal, ms: 0 } };
      const ok = lmStudio.ok && database.ok && journal.ok;
      return { ok, services: { ...found, ...(shared ? { redis: shared } : {}) } };
    },
  );
}

interface Finding {
  readonly ok: boolean;
  readonly detail: string;
}

async function timed(look: () => Promise<Finding>): Promise<Finding & { ms: number }> {
  const begun = performance.now();
  return { ...(await look()), ms: Math.round((performance.now() - begun) * 10) / 10 };
}

function checked(look: () => Promise<string>): ReturnType<typeof timed> {
  return timed(async () => {
    try {
      return { ok: true, detail: await look() };
    } catch (error) {
      const known = error instanceof AppError || error instanceof StoreError;
      return { ok: false, detail: known ? error.message : "does not answer" };
    }
  });
}

function describeRedis(fault: string | undefined): Finding {
  if (fault === undefined) return { ok: true, detail: "answers" };
  return { ok: false, detail: `${fault}; answers are kept in memory alone until it is back` };
}

type Status = ReturnType<RouteParts["interactions"]["status"]>;

/** Past its bound nothing more is answered; a little before that is when somebody should look. */
function describeJournal({ records, bytes, bytesMax, oldestAgeS }: Status): Finding {
  const ok = bytes < bytesMax * 0.9;
  if (bytes === 0) return { ok, detail: "empty: the database has all interactions" };
  const size = `${records} interactions (${(bytes / 1024).toFixed(0)} KiB of ${bytesMax / 1024} KiB)`;
  return { ok, detail: `${size} wait for the database, the oldest for ${Math.ceil(oldestAgeS)} s` };
}

type Listed = Awaited<ReturnType<RouteParts["upstreams"]["models"]>>;

/** A model that is only on disk is loaded when it is asked; one that is unknown is a fault to mend. */
function describeModel(models: Listed, name: string): string {
  const model = models.find(({ id }) => id === name);
  const loaded = models.filter(({ state }) => state === "loaded").map(({ id }) => id);
  const others = loaded.length > 0 ? `loaded: ${loaded.join(", ")}` : "no model is loaded";
  if (!model) return `answers, but does not have ${name} (DEEPSEEK_MODEL); ${others}`;
  if (model.state === undefined) return `${name} is there`;
  const context = model.loaded_context_length
    ? ` with a context of ${model.loaded_context_length} tokens`
    : "";
  if (model.state === "loaded") return `${name} is loaded${context}`;
  return `${name} is there and is loaded when first asked; ${others}`;
}
