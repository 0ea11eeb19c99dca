import type { SupabaseClient } from "@supabase/supabase-js";
import { Type } from "typebox";
import type { App } from "../../http/app.ts";
import { problems } from "../../http/problem.ts";
import { ApiError } from "../api-error.ts";
import { forms } from "../schemas.ts";

export interface FunctionParts {
  /** `SUPABASE_URL`, and the key that anybody may have. */
  readonly url: string | undefined;
  readonly key: string | undefined;
  /** Milliseconds that a function may take. Default 60,000. */
  readonly timeoutMs?: number;
}

const answerMaxBytes = 1024 * 1024;
const wordsMax = 300;

/** Calls functions of the Supabase project, for those who can reach the station and have no account there. */
export function functionRoutes(app: App, parts: FunctionParts): void {
  let invoke: Promise<Invoke> | undefined;
  app.post(
    "/api/v1/functions/:name",
    {
      schema: {
        tags: ["functions"],
        operationId: "invokeFunction",
        summary: "Call an edge function of the Supabase project",
        description:
          "Posts the body to the function with the project's publishable key, and answers with what it answers, 1 MiB " +
          "and a minute at most. A function that does more than that key allows needs a token of its own in the body.",
        params: Type.Object({
          name: Type.String({ pattern: "^[A-Za-z][A-Za-z0-9_-]{0,62}$", description: "of its folder" }),
        }),
        body: Type.Unknown({ description: "any JSON" }),
        response: {
          ...forms("What the function answers", {
            "application/json": Type.Unknown(),
            "text/plain": Type.String(),
          }),
          ...problems(404, 409, {
            422: "The function refuses the request: `function-refused`",
            502: "The function failed: `function-failed`",
            503: "The project does not answer: `project-away`",
          }),
        },
      },
    },
    async (request, reply) => {
      invoke ??= functionsOf(parts);
      // A configuration that cannot work is told each time, and a module that could not be loaded is tried again.
      invoke.catch(() => {
        invoke = undefined;
      });
      const answer = await (await invoke)(request.params.name, request.body);
      if (typeof answer === "string") return reply.type("text/plain").send(answer as never);
      return reply.type("application/json").send(JSON.stringify(answer ?? null) as never);
    },
  );
}

type FunctionsResponse = Awaited<ReturnType<SupabaseClient["functions"]["invoke"]>>;
type Invoke = (name: string, body: unknown) => Promise<unknown>;

async function functionsOf({ url, key, timeoutMs = 60_000 }: FunctionParts): Promise<Invoke> {
  if (!url || !key) {
    throw new ApiError("supabase-unset", "No Supabase project is set: SUPABASE_URL and SUPABASE_KEY.");
  }
  // Not before somebody calls a function: no start is to wait for it.
  const { createClient } = await import("@supabase/supabase-js");
  const { functions } = createClient(url, key, {
    auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
    global: { fetch: (input, init) => boundedFetch(input, init, timeoutMs) },
  });
  return async (name, body) => {
    const sent = body === undefined ? {} : { body: JSON.stringify(body) };
    const answered = await functions.invoke(name, {
      ...sent,
      headers: { "content-type": "application/json" },
    });
    if (answered.error === null) return answered.data;
    throw await failureOf(answered);
  };
}

/** Reads an answer to its end, or gives it up where it is too long or takes too long. */
async function boundedFetch(
  input: string | URL | Request,
  init: RequestInit | undefined,
  timeoutMs: number,
): Promise<Response> {
  const response = await fetch(input, { ...init, signal: AbortSignal.timeout(timeoutMs) });
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of response.body ?? []) {
    bytes += part.length;
    if (bytes > answerMaxBytes) throw new Error("the answer is too long");
    parts.push(part);
  }
  const hasBody = bytes > 0 && response.status !== 204;
  return new Response(hasBody ? Buffer.concat(parts) : null, response);
}

/** What went wrong, by who is to blame for it: the network, the function, or what it was sent. */
async function failureOf({ error, response }: FunctionsResponse): Promise<ApiError> {
  if (!response || error.name !== "FunctionsHttpError") {
    return new ApiError(
      "project-away",
      "The function gave no answer that could be read; try again in a moment.",
      {
        cause: error,
        retryAfterS: 5,
      },
    );
  }
  const words = (await response.text()).slice(0, wordsMax);
  const { status } = response;
  if (status === 404 && /NOT_FOUND/.test(words))
    return new ApiError("function-unknown", "The project has no function of that name.");
  const detail = `The function answers ${status}${words ? `: ${words}` : ""}`;
  return new ApiError(status < 500 ? "function-refused" : "function-failed", detail);
}
