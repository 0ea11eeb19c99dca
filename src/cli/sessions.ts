import { styleText } from "node:util";
import { type Static, Type } from "typebox";
import type { Config } from "../config/config.ts";
import { ChatClient, ChatClientError, chatAddress } from "./chat-client.ts";
import { fail } from "./failure.ts";
import { oneLine, plain } from "./plain-text.ts";
import { printTable } from "./table.ts";

const nextCursor = Type.Union([Type.String(), Type.Null()]);
const common = {
  id: Type.String(),
  title: Type.String(),
  last_used_at: Type.String(),
  turns: Type.Integer(),
};
const Page = Type.Object({ data: Type.Array(Type.Object(common)), next_cursor: nextCursor });
type Turn = Static<typeof Turn>;
const Turn = Type.Object({ question: Type.String(), answer: Type.String(), answered_at: Type.String() });
const Conversation = Type.Object({
  ...common,
  summary: Type.Union([Type.String(), Type.Null()]),
  data: Type.Array(Turn),
  next_cursor: nextCursor,
});
const Removed = Type.Object({ interactions: Type.Integer() });

/** `pugmark sessions`: the newest conversations. */
export async function listSessions(config: Config, limit: number, json: boolean): Promise<number> {
  return withClient(config, async (client) => {
    const page = await client.get(`/sessions?limit=${limit}`, Page);
    if (json) return console.log(JSON.stringify(page.data, null, 2));
    if (page.data.length === 0) return console.log("No conversations yet; `pugmark chat` begins one.");
    const rows = page.data.map(({ id, title, turns, last_used_at: at }) => [
      oneLine(id),
      String(turns),
      local(at),
      oneLine(title),
    ]);
    printTable(["id", "turns", "last used", "title"], rows);
    if (page.next_cursor !== null) console.log(`There are more; --limit shows up to 200.`);
  });
}

/** `pugmark sessions show`: a conversation from its beginning, page by page as it is read. */
export async function showSession(config: Config, id: string, json: boolean): Promise<number> {
  return withClient(config, async (client) => {
    const turns: Turn[] = [];
    let cursor: string | null = "";
    while (cursor !== null) {
      const query: string = cursor === "" ? "" : `?cursor=${encodeURIComponent(cursor)}`;
      const page: Static<typeof Conversation> = await client.get(
        `/sessions/${encodeURIComponent(id)}${query}`,
        Conversation,
      );
      if (json) turns.push(...page.data);
      else for (const turn of page.data) console.log(shownTurn(turn));
      cursor = page.next_cursor;
    }
    if (json) console.log(JSON.stringify(turns, null, 2));
  });
}

/** `pugmark sessions delete`: removes conversations with every interaction of them. */
export async function deleteSessions(config: Config, ids: readonly string[]): Promise<number> {
  return withClient(config, async (client) => {
    for (const id of ids) {
      const { interactions } = await client.delete(`/sessions/${encodeURIComponent(id)}`, Removed);
      console.log(`${oneLine(id)}: deleted, with ${interactions} interactions`);
    }
  });
}

async function withClient(config: Config, work: (client: ChatClient) => Promise<void>): Promise<number> {
  await using client = new ChatClient(chatAddress(config));
  try {
    await work(client);
    return 0;
  } catch (error) {
    if (!(error instanceof ChatClientError)) throw error;
    return fail([oneLine(error.message)], 1);
  }
}

function shownTurn({ question, answer, answered_at: at }: Turn): string {
  const asked = styleText("bold", `> ${plain(question).trim().replaceAll("\n", "\n> ")}`);
  return `${styleText("dim", local(at))}\n${asked}\n${plain(answer).trim()}\n`;
}

function local(at: string): string {
  return new Date(at).toLocaleString("sv-SE").slice(0, 16);
}
