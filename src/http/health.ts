import { Type } from "typebox";
import type { App } from "./app.ts";
import { EdgeError, problems } from "./problem.ts";

/** What a server cannot do without: each check resolves, or throws when it is away. */
export type Readiness = Readonly<Record<string, (signal: AbortSignal) => Promise<void>>>;

const checkTimeoutMs = 2_000;

/** `/livez`: the process turns. `/readyz`: so does everything it needs; 503 names what is away. */
export function healthRoutes(app: App, readiness: Readiness): void {
  const Ok = Type.Object({ status: Type.Literal("ok") });
  app.get(
    "/livez",
    {
      config: { scope: "open" },
      schema: {
        tags: ["health"],
        summary: "Is this process alive?",
        operationId: "livez",
        response: { 200: Ok },
      },
    },
    async () => ({ status: "ok" as const }),
  );
  app.get(
    "/readyz",
    {
      config: { scope: "open" },
      schema: {
        tags: ["health"],
        summary: "Can it do its work? 503 names what is away",
        operationId: "readyz",
        response: { 200: Ok, ...problems({ 503: "What is away is named" }) },
      },
    },
    async () => {
      const away = await missing(readiness);
      if (away.length > 0) throw new EdgeError("not-ready", `Away: ${away.join(", ")}.`, { retryAfterS: 1 });
      return { status: "ok" as const };
    },
  );
}

async function missing(readiness: Readiness): Promise<string[]> {
  const results = await Promise.all(
    Object.entries(readiness).map(async ([name, check]) => {
      const signal = AbortSignal.timeout(checkTimeoutMs);
      const late = new Promise<boolean>((resolve) => signal.addEventListener("abort", () => resolve(false)));
      const fine = await Promise.race([
        check(signal).then(
          () => true,
          () => false,
        ),
        late,
      ]);
      return fine ? [] : [name];
    }),
  );
  return results.flat();
}
