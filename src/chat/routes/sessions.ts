import { Type } from "typebox";
import type { App } from "../../http/app.ts";
import { problems } from "../../http/problem.ts";
import {
  findConversation,
  listConversations,
  listTurns,
  removeConversation,
  type Conversation as StoredConversation,
} from "../../store/conversations.ts";
import type { RouteParts } from "../app.ts";
import { ChatError } from "../chat-error.ts";
import { sessionPattern } from "./schemas.ts";

const Conversation = Type.Object({
  id: Type.String({ description: "`session_id` of its questions" }),
  title: Type.String({ description: "The first words of its first question" }),
  created_at: Type.String({ format: "date-time" }),
  last_used_at: Type.String({ format: "date-time" }),
  turns: Type.Integer({ description: "Questions that were answered" }),
});

const Turn = Type.Object({
  interaction_id: Type.String({ format: "uuid" }),
  answered_at: Type.String({ format: "date-time" }),
  model: Type.String(),
  question: Type.String(),
  answer: Type.String(),
});

const page = (limitMax: number, limitDefault: number) =>
  Type.Object(
    {
      limit: Type.Integer({ minimum: 1, maximum: limitMax, default: limitDefault }),
      cursor: Type.Optional(Type.String({ maxLength: 512, description: "next_cursor of the page before" })),
    },
    { additionalProperties: false },
  );
const next_cursor = Type.Union([Type.String(), Type.Null()]);
const params = Type.Object({ id: Type.String({ pattern: sessionPattern }) });

/** The conversations of `/chat`: a caller's own, to be listed, read and deleted. */
export function sessionRoutes(app: App, { pool, interactions }: RouteParts): void {
  app.get(
    "/sessions",
    {
      schema: {
        tags: ["sessions"],
        summary: "The caller's conversations, the one last used first",
        operationId: "listSessions",
        querystring: page(200, 50),
        response: {
          200: Type.Object({ data: Type.Array(Conversation), next_cursor }),
          ...problems(400, 503),
        },
      },
    },
    async ({ caller, query: { limit, cursor } }) => {
      const place = cursor === undefined ? undefined : readCursor(cursor, new RegExp(sessionPattern));
      const after = place && { last_used_at: place.at, id: place.id };
      await interactions.settled();
      // One more than asked, to know whether there is a next page.
      const rows = await listConversations(pool, caller, { after, limit: limit + 1 });
      const last = rows.length > limit ? rows[limit - 1] : undefined;
      return {
        data: rows.slice(0, limit).map(conversationOf),
        next_cursor: last ? cursorOf(last.last_used_at, last.id) : null,
      };
    },
  );
  app.get(
    "/sessions/:id",
    {
      schema: {
        tags: ["sessions"],
        summary: "A conversation with its turns, in the order in which they were answered",
        operationId: "getSession",
        params,
        querystring: page(500, 100),
        response: {
          200: Type.Object({
            ...Conversation.properties,
            summary: Type.Union([Type.String(), Type.Null()], {
              description: "What stands for its oldest turns where they no longer fit into the context",
            }),
            data: Type.Array(Turn),
            next_cursor,
          }),
          ...problems(400, 404, 503),
        },
      },
    },
    async ({ caller, params: { id }, query: { limit, cursor } }) => {
      const place = cursor === undefined ? undefined : readCursor(cursor, uuid);
      const after = place && { answered_at: place.at, id: place.id };
      await interactions.settled();
      const found = await findConversation(pool, { caller, id });
      if (!found) throw unknown(id);
      const rows = await listTurns(pool, { caller, id }, { after, limit: limit + 1 });
      const last = rows.length > limit ? rows[limit - 1] : undefined;
      return {
        ...conversationOf(found),
        summary: found.summary,
        data: rows.slice(0, limit).map(({ id: interaction_id, answered_at, ...turn }) => ({
          interaction_id,
          answered_at: answered_at.toISOString(),
          ...turn,
        })),
        next_cursor: last ? cursorOf(last.answered_at, last.id) : null,
      };
    },
  );
  app.delete(
    "/sessions/:id",
    {
      schema: {
        tags: ["sessions"],
        summary: "Delete a conversation and every interaction of it",
        description:
          "Also from the log. A question that is under way at that moment is still logged: deleting the conversation " +
          "again, once it is answered, deletes that too.",
        operationId: "deleteSession",
        params,
        response: {
          200: Type.Object({ interactions: Type.Integer({ description: "How many were deleted" }) }),
          ...problems(400, 404, 503),
        },
      },
    },
    async ({ caller, params: { id } }) => {
      // What is still in the journal would come after, and what was in it with the next process.
      await interactions.leaveJournal();
      const removed = await removeConversation(pool, { caller, id });
      if (removed === undefined) throw unknown(id);
      return { interactions: removed };
    },
  );
}

function conversationOf({ id, title, created_at, last_used_at, turns }: StoredConversation) {
  return {
    id,
    title,
    created_at: created_at.toISOString(),
    last_used_at: last_used_at.toISOString(),
    turns,
  };
}

function unknown(id: string): ChatError {
  return new ChatError("session-unknown", `You have no conversation ${id}.`);
}

function cursorOf(at: Date, id: string): string {
  return Buffer.from(`${at.getTime()} ${id}`).toString("base64url");
}

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

function readCursor(cursor: string, ids: RegExp): { at: Date; id: string } {
  const [, ms, id = ""] = /^(\d{1,15}) (.+)$/.exec(Buffer.from(cursor, "base64url").toString()) ?? [];
  if (!ms || !ids.test(id)) {
    throw new ChatError("cursor-invalid", "This cursor is not one that a page here gave.");
  }
  return { at: new Date(Number(ms)), id };
}
