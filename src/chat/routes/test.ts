import { Type } from "typebox";
import type { App } from "../../http/app.ts";
import { AppError } from "../../http/problem.ts";
import { StoreError } from "../../store/errors.ts";
import { ping } from "../../store/pool.ts";
import type { RouteParts } from "../app.ts";

const Check = Type.Object({ ok: Type.Boolean(), detail: Type.String(), ms: Type.Number() });
const Report = Type.Object({
  ok: Type.Boolean(),
  services: Type.Object({ chat: Check, lm_studio: Check, database: Check }),
});

/** `POST /test`: is everything there that an answer takes? Asks no model. */
export function testRoute(app: App, { config, pool, upstream }: RouteParts): void {
  app.post(
    "/test",
    {
      config: { scope: "read" },
      schema: {
        tags: ["chat"],
        summary: "Try every service that an answer needs",
        description: "Always 200; `ok` is false where something is away, and its detail says what to do.",
        operationId: "testServices",
        response: { 200: Report },
      },
    },
    async () => {
      const [lmStudio, database] = await Promise.all([
        checked(async () => describeModel(await upstream.models(), config.DEEPSEEK_MODEL)),
        checked(() => ping(pool).then(() => "answers")),
      ]);
      const chat = { ok: true, detail: "answers", ms: 0 };
      return { ok: lmStudio.ok && database.ok, services: { chat, lm_studio: lmStudio, database } };
    },
  );
}

async function checked(look: () => Promise<string>): Promise<{ ok: boolean; detail: string; ms: number }> {
  const begun = performance.now();
  const took = () => Math.round((performance.now() - begun) * 10) / 10;
  try {
    return { ok: true, detail: await look(), ms: took() };
  } catch (error) {
    const known = error instanceof AppError || error instanceof StoreError;
    return { ok: false, detail: known ? error.message : "does not answer", ms: took() };
  }
}

type Listed = Awaited<ReturnType<RouteParts["upstream"]["models"]>>;

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
