import type { FastifyReply } from "fastify";
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
  app.post(
    "/api/v1/functions/:name",
    {
      schema: {
        tags: ["functions"],
        operationId: "invokeFunction",
        summary: "Call an edge function of the Supabase project",
        description:
          "Posts the body to the function with the project's publishable key, and answers with what it answers, of whatever " +
          "media type, 1 MiB and a minute at most. A function that does more than that key allows needs a token of its own in the body.",
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
      const { type, bytes } = await invoke(parts, request.params.name, request.body);
      return (
        (reply as unknown as FastifyReply)
          .type(type)
          // Whatever a function answers, a browser is not to take it for a page of the station.
          .header("content-security-policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
          .send(bytes) as never
      );
    },
  );
}

interface Answer {
  /** Its media type. */
  readonly type: string;
  readonly bytes: Buffer;
}

/** Not by supabase-js, which takes answers apart by their media types: put together again they would be others. */
async function invoke(
  { url, key, timeoutMs = 60_000 }: FunctionParts,
  name: string,
  body: unknown,
): Promise<Answer> {
  if (!url || !key) {
    throw new ApiError("supabase-unset", "No Supabase project is set: SUPABASE_URL and SUPABASE_KEY.");
  }
  const headers: Record<string, string> = { apikey: key, "content-type": "application/json" };
  // Keys of the older kind are tokens too, and are asked for as such.
  if (!key.startsWith("sb_")) headers.authorization = `Bearer ${key}`;
  let response: Response;
  let bytes: Buffer;
  try {
    response = await fetch(`${url.replace(/\/+$/, "")}/functions/v1/${name}`, {
      method: "POST",
      headers,
      body: body === undefined ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(timeoutMs),
    });
    bytes = await readWhole(response);
    // The project's own gateway speaks, and not the function.
    if (response.headers.get("x-relay-error") === "true") throw new Error(String(bytes).slice(0, wordsMax));
  } catch (cause) {
    throw new ApiError(
      "project-away",
      "The function gave no answer that could be read; try again in a moment.",
      { cause, retryAfterS: 5 },
    );
  }
  if (!response.ok) throw failureOf(response.status, String(bytes).slice(0, wordsMax));
  return { type: response.headers.get("content-type") ?? "text/plain", bytes };
}

/** Reads an answer to its end, or gives it up where it is too long. */
async function readWhole(response: Response): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of response.body ?? []) {
    bytes += part.length;
    if (bytes > answerMaxBytes) throw new Error("the answer is too long");
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/** What went wrong, by who is to blame for it: the function, or what it was sent. */
function failureOf(status: number, words: string): ApiError {
  if (status === 404 && /NOT_FOUND/.test(words))
    return new ApiError("function-unknown", "The project has no function of that name.");
  const detail = `The function answers ${status}${words ? `: ${words}` : ""}`;
  return new ApiError(status < 500 ? "function-refused" : "function-failed", detail);
}
