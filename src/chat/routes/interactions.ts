import { Readable } from "node:stream";
import { type Static, Type } from "typebox";
import type { App } from "../../http/app.ts";
import { EdgeError, problems } from "../../http/problem.ts";
import type { InteractionFilter } from "../../store/interaction-filter.ts";
import {
  deleteInteraction,
  deleteInteractions,
  exportInteractions,
  findInteraction,
  type InteractionSummary,
  listInteractions,
  type Interaction as StoredInteraction,
} from "../../store/interactions.ts";
import type { Pool } from "../../store/pool.ts";
import { otherStations } from "../../store/stations.ts";
import type { RouteParts } from "../app.ts";
import { ChatError } from "../chat-error.ts";
import { sessionPattern } from "./schemas.ts";

const nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) =>
  Type.Union([schema, Type.Null()]);

const common = {
  id: Type.String({ format: "uuid" }),
  created_at: Type.String({ format: "date-time" }),
  station: nullable(Type.String({ description: "The other station that made it; null: this one" })),
  route: Type.String({ description: "Which door it came by" }),
  caller: Type.String({ description: "Name of the key that asked, user:ID, or local" }),
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
  prompt_preview: nullable(
    Type.String({ description: "The last message without its pictures, 200 characters of it" }),
  ),
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

const filters = {
  session_id: Type.Optional(Type.String({ pattern: sessionPattern })),
  run_id: Type.Optional(Type.String({ format: "uuid" })),
  model: Type.Optional(Type.String({ pattern: "^[^\\u0000]{1,256}$" })),
  caller: Type.Optional(Type.String({ pattern: "^(user:)?[\\w.-]{1,64}$" })),
  route: Type.Optional(Type.String({ pattern: "^/[\\w/.-]{1,128}$" })),
  cache: Type.Optional(Type.Enum(["HIT", "MISS", "JOINED", "BYPASS"])),
  outcome: Type.Optional(Type.String({ pattern: "^[a-z-]{1,64}$" })),
  q: Type.Optional(
    Type.String({
      pattern: "^[^\\u0000]{1,500}$",
      description:
        'Words of the question or the answer, in any order; `"as they stand"`, `or`, `-without`. ' +
        "Repeats from the cache are left out, unless `cache=HIT` asks for them",
    }),
  ),
  from: Type.Optional(Type.String({ format: "date-time", description: "Not before" })),
  to: Type.Optional(Type.String({ format: "date-time", description: "Before" })),
};

const closed = { additionalProperties: false };

/** Those of others can be read here, and are deleted where they were made. */
const readFilters = {
  ...filters,
  station: Type.Optional(
    Type.String({
      pattern: "^[^\\u0000]{1,200}$",
      description:
        "Name or id of another station whose calls the mirror brought; `all`: of every station. Absent: of this one",
    }),
  ),
};

const Page = Type.Object(
  {
    limit: Type.Integer({ minimum: 1, maximum: 200, default: 50 }),
    cursor: Type.Optional(Type.String({ maxLength: 128, description: "next_cursor of the page before" })),
    ...readFilters,
  },
  closed,
);
const Export = Type.Object(readFilters, closed);
const Deletion = Type.Object(
  { before: filters.to, session_id: filters.session_id, q: filters.q },
  { ...closed, minProperties: 1 },
);

/** The log of every call of a model, to be read, searched, taken along and deleted. */
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
        querystring: Page,
        response: {
          200: Type.Object({ data: Type.Array(Summary), next_cursor: nullable(Type.String()) }),
          ...problems(400, 404, 503),
        },
      },
    },
    async (request) => {
      const { limit, cursor } = request.query;
      await interactions.settled();
      const after = cursor === undefined ? undefined : readCursor(cursor);
      const filter = { ...filterOf(request.query), stations: await stationsOf(pool, request.query.station) };
      // One more than asked, to know whether there is a next page.
      const rows = await listInteractions(pool, { ...filter, after, limit: limit + 1 });
      const data = rows.slice(0, limit).map((row) => ({ ...row, created_at: row.created_at.toISOString() }));
      const last = rows.length > limit ? rows[limit - 1] : undefined;
      return { data, next_cursor: last ? cursorOf(last) : null };
    },
  );
  app.get(
    "/interactions/export",
    {
      config: { scope: "admin" },
      schema: {
        tags: ["interactions"],
        summary: "Past calls of a model, whole, as JSON Lines, newest first",
        operationId: "exportInteractions",
        querystring: Export,
        produces: ["application/x-ndjson"],
        response: {
          200: {
            description: "A call on each line; broken off, not ended, where not all could be read",
            content: { "application/x-ndjson": { schema: Type.String() } },
          },
          ...problems(400, 503),
        },
      },
    },
    async (request, reply) => {
      const filter = { ...filterOf(request.query), stations: await stationsOf(pool, request.query.station) };
      await interactions.settled();
      const pages = exportInteractions(pool, filter);
      // Read before anything is sent, so that what fails at once has its status.
      const first = await pages.next();
      const lines = Readable.from(linesOf(first.value ?? [], pages));
      return reply.type("application/x-ndjson; charset=utf-8").send(lines as never);
    },
  );
  app.delete(
    "/interactions",
    {
      config: { scope: "admin" },
      schema: {
        tags: ["interactions"],
        summary: "Delete past calls for good; at least one condition has to be given, and all of them count",
        operationId: "deleteInteractions",
        querystring: Deletion,
        response: { 200: Type.Object({ deleted: Type.Integer() }), ...problems(400, 503) },
      },
    },
    async (request) => {
      const { before, ...rest } = request.query;
      const filter = filterOf(before === undefined ? rest : { ...rest, to: before });
      await interactions.leaveJournal();
      return { deleted: await deleteInteractions(pool, filter) };
    },
  );
  app.delete(
    "/interactions/:id",
    {
      config: { scope: "admin" },
      schema: {
        tags: ["interactions"],
        summary: "Delete one call of a model for good",
        operationId: "deleteInteraction",
        params: Type.Object({ id: Type.String({ format: "uuid" }) }),
        response: { 200: Type.Object({ deleted: Type.Integer() }), ...problems(400, 404, 503) },
      },
    },
    async (request) => {
      await interactions.leaveJournal();
      if (!(await deleteInteraction(pool, request.params.id)))
        throw new ChatError("interaction-unknown", "There is no such interaction.");
      return { deleted: 1 };
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

async function* linesOf(
  first: readonly StoredInteraction[],
  rest: AsyncIterable<readonly StoredInteraction[]>,
): AsyncGenerator<string> {
  const lines = (rows: readonly StoredInteraction[]) =>
    rows.map((row) => `${JSON.stringify(row)}\n`).join("");
  yield lines(first);
  for await (const rows of rest) yield lines(rows);
}

async function stationsOf(pool: Pool, wanted: string | undefined): Promise<InteractionFilter["stations"]> {
  if (wanted === undefined || wanted === "all") return wanted;
  const stations = await otherStations(pool);
  const meant = stations.filter(({ id, name }) => id === wanted.toLowerCase() || name === wanted);
  if (meant.length > 0) return meant.map(({ id }) => id);
  const names = stations.map(({ name }) => name).join(", ");
  throw new ChatError(
    "station-unknown",
    `No other station of that name or id is known here${names ? `; there are: ${names}` : ""}.`,
  );
}

function filterOf(query: Omit<Static<typeof Export>, "station">): Omit<InteractionFilter, "stations"> {
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
    caller: query.caller,
    route: query.route,
    cache: query.cache,
    outcome: query.outcome,
    words: query.q,
    from: date(query.from),
    to: date(query.to),
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
