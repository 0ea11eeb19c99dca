import { type Static, Type } from "typebox";
import type { App } from "../../http/app.ts";
import { EdgeError, problems } from "../../http/problem.ts";
import { findInteraction, type InteractionSummary, listInteractions } from "../../store/interactions.ts";
import type { RouteParts } from "../app.ts";
import { ChatError } from "../chat-error.ts";
import { sessionPattern } from "./schemas.ts";

const nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) =>
  Type.Union([schema, Type.Null()]);

const common = {
  id: Type.String({ format: "uuid" }),
  created_at: Type.String({ format: "date-time" }),
  route: Type.String({ description: "Which door it came by" }),
  caller: Type.String({ description: "Name of the key that asked, or local" }),
  request_id: Type.String(),
  session_id: nullable(Type.String()),
  run_id: nullable(Type.String({ format: "uuid" })),
  model: Type.String(),
  finish_reason: nullable(Type.String()),
  prompt_tokens: nullable(Type.Integer()),
  completion_tokens: nullable(Type.Integer()),
  reasoning_tokens: nullable(Type.Integer()),
  cached: Type.Boolean({ description: "Whether cache is HIT" }),
  cache: nullable(
    Type.Enum(["HIT", "MISS", "JOINED", "BYPASS"], {
      description: "HIT: from the cache; JOINED: of an identical call under way; else of the model",
    }),
  ),
  upstream: nullable(Type.String({ description: "Which LM Studio answered" })),
  outcome: Type.String({ description: "ok, or the code of the error that was answered" }),
  error: nullable(Type.String()),
  queued_ms: nullable(Type.Number({ description: "Until its turn came" })),
  first_token_ms: nullable(Type.Number()),
  processing_time_ms: Type.Number(),
};

const Summary = Type.Object({
  ...common,
  prompt_preview: nullable(Type.String({ description: "The last message, 200 characters of it" })),
  response_preview: nullable(Type.String()),
});

const Interaction = Type.Object({
  ...common,
  prompt: Type.Unsafe<unknown>({ description: "The messages, or the text where there were none" }),
  parameters: Type.Record(Type.String(), Type.Unsafe<unknown>({})),
  response: nullable(Type.String()),
  reasoning: nullable(Type.String()),
  tool_calls: nullable(Type.Array(Type.Unsafe<unknown>({}))),
});

const Filter = Type.Object(
  {
    limit: Type.Integer({ minimum: 1, maximum: 200, default: 50 }),
    cursor: Type.Optional(Type.String({ maxLength: 128, description: "next_cursor of the page before" })),
    session_id: Type.Optional(Type.String({ pattern: sessionPattern })),
    run_id: Type.Optional(Type.String({ format: "uuid" })),
    model: Type.Optional(Type.String({ pattern: "^[^\\u0000]{1,256}$" })),
    outcome: Type.Optional(Type.String({ pattern: "^[a-z-]{1,64}$" })),
    from: Type.Optional(Type.String({ format: "date-time", description: "Not before" })),
    to: Type.Optional(Type.String({ format: "date-time", description: "Before" })),
  },
  { additionalProperties: false },
);

/** The log of every call of a model, to be read. */
export function interactionRoutes(app: App, { pool, interactions }: RouteParts): void {
  app.get(
    "/interactions",
    {
      // Other people's questions are in there.
      config: { scope: "admin" },
      schema: {
        tags: ["interactions"],
        summary: "Past calls of a model, newest first",
        operationId: "listInteractions",
        querystring: Filter,
        response: {
          200: Type.Object({ data: Type.Array(Summary), next_cursor: nullable(Type.String()) }),
          ...problems(400, 503),
        },
      },
    },
    async (request) => {
      const { limit } = request.query;
      await interactions.settled();
      const rows = await listInteractions(pool, filterOf(request.query));
      const data = rows.slice(0, limit).map((row) => ({ ...row, created_at: row.created_at.toISOString() }));
      const last = rows.length > limit ? rows[limit - 1] : undefined;
      return { data, next_cursor: last ? cursorOf(last) : null };
    },
  );
  app.get(
    "/interactions/:id",
    {
      // Other people's questions are in there.
      config: { scope: "admin" },
      schema: {
        tags: ["interactions"],
        summary: "One call of a model, with all that was asked and answered",
        operationId: "getInteraction",
        params: Type.Object({ id: Type.String({ format: "uuid" }) }),
        response: { 200: Interaction, ...problems(400, 404, 503) },
      },
    },
    async (request) => {
      await interactions.settled();
      const found = await findInteraction(pool, request.params.id);
      if (!found) throw new ChatError("interaction-unknown", "There is no such interaction.");
      return {
        ...found,
        created_at: found.created_at.toISOString(),
        tool_calls: found.tool_calls && [...found.tool_calls],
      };
    },
  );
}

function filterOf(query: Static<typeof Filter>) {
  const date = (text: string | undefined) => {
    if (text === undefined) return undefined;
    const at = new Date(text);
    // The format allows leap seconds, which JavaScript does not know.
    if (Number.isNaN(at.getTime()))
      throw new EdgeError("request-invalid", `${text} is no time that is known here.`);
    return at;
  };
  return {
    sessionId: query.session_id,
    runId: query.run_id,
    model: query.model,
    outcome: query.outcome,
    from: date(query.from),
    to: date(query.to),
    after: query.cursor === undefined ? undefined : readCursor(query.cursor),
    // One more than asked, to know whether there is a next page.
    limit: query.limit + 1,
  };
}

function cursorOf({ created_at, id }: InteractionSummary): string {
  return Buffer.from(`${created_at.getTime()} ${id}`).toString("base64url");
}

function readCursor(cursor: string): { createdAt: Date; id: string } {
  const [, ms, id] =
    /^(\d{1,15}) ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/.exec(
      Buffer.from(cursor, "base64url").toString(),
    ) ?? [];
  if (!ms || !id) throw new ChatError("cursor-invalid", "This cursor is not one that a page here gave.");
  return { createdAt: new Date(Number(ms)), id };
}
