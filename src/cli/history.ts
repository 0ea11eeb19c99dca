import type { Writable } from "node:stream";
import { styleText } from "node:util";
import { type Static, Type } from "typebox";
import type { Config } from "../config/config.ts";
import { ChatClient, ChatClientError, chatAddress } from "./chat-client.ts";
import { fail } from "./failure.ts";
import { fitLine } from "./fit-line.ts";
import { exitInterrupted, untilInterrupted } from "./leaving.ts";
import { oneLine } from "./plain-text.ts";
import { writeWhole } from "./whole-file.ts";

/** Which calls are meant; what is absent says nothing. */
export interface HistoryFilter {
  /** Words of the question or the answer. */
  readonly q?: string;
  readonly session?: string;
  readonly model?: string;
  /** Name or id of another station, or `all`. */
  readonly station?: string;
  /** Not before, milliseconds since 1970. */
  readonly since?: number;
}

export interface HistoryOptions extends HistoryFilter {
  /** How many are listed. Default 20. */
  readonly limit?: number;
  readonly json?: boolean;
}

const nullable = Type.Union([Type.String(), Type.Null()]);
type Listed = Static<typeof Listed>;
const Listed = Type.Object({
  created_at: Type.String(),
  station: nullable,
  model: Type.String(),
  outcome: Type.String(),
  cache: nullable,
  processing_time_ms: Type.Number(),
  prompt_preview: nullable,
  response_preview: nullable,
});
const Page = Type.Object({ data: Type.Array(Listed), next_cursor: nullable });

/** `pugmark history`: the newest calls of a model, a line each and its answer below. */
export async function historyCommand(
  config: Config,
  { limit = 20, json, ...filter }: HistoryOptions,
): Promise<number> {
  return withClient(config, async (client) => {
    const { data, next_cursor: next } = await client.get(`/interactions?${queryOf(filter, limit)}`, Page);
    if (json) return console.log(JSON.stringify(data, null, 2));
    if (data.length === 0) return console.log("No calls of a model are in the log that this means.");
    for (const call of data) console.log(shown(call));
    if (next !== null) console.error("There are more: --limit shows up to 200, `history export` all.");
  });
}

/** `pugmark history export`: whole calls as JSON Lines, into a file that is there only once it is whole, or `-`. */
export async function exportHistory(config: Config, target: string, filter: HistoryFilter): Promise<number> {
  const interrupted = untilInterrupted();
  return withClient(config, async (client) => {
    const bytes = await client.body(`/interactions/export?${queryOf(filter)}`, interrupted);
    await writeWhole(counted(bytes, process.stderr), target, { mode: 0o600 });
  }).catch((error: unknown) => {
    if (!interrupted.aborted) throw error;
    return exitInterrupted;
  });
}

const redrawMs = 100;

/** Passes bytes on, and says on a terminal how many calls went by. */
async function* counted(
  bytes: AsyncIterable<Buffer>,
  screen: Writable & { readonly isTTY?: boolean },
): AsyncGenerator<Buffer> {
  let calls = 0;
  let drawnAt = 0;
  const draw = (end: string) => {
    if (screen.isTTY) screen.write(`\r\u001b[K${calls.toLocaleString("en")} calls${end}`);
  };
  for await (const chunk of bytes) {
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) calls += 1;
    if (performance.now() - drawnAt > redrawMs) {
      draw("");
      drawnAt = performance.now();
    }
    yield chunk;
  }
  draw("\n");
}

function queryOf({ q, session, model, station, since }: HistoryFilter, limit?: number): URLSearchParams {
  const given = {
    q,
    session_id: session,
    model,
    station,
    from: since === undefined ? undefined : new Date(since).toISOString(),
    limit: limit?.toString(),
  };
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(given)) if (value !== undefined) query.set(name, value);
  return query;
}

function shown(call: Listed): string {
  const { created_at: at, station, model, outcome, cache, processing_time_ms: ms } = call;
  const when = new Date(at).toLocaleString("sv-SE"); // local, and reads like an ISO time
  const how = outcome === "ok" ? (cache === "HIT" ? "from the cache" : "") : outcome;
  const where = station === null ? "" : `at ${oneLine(station)}`;
  const parts = [when, oneLine(model), `${(ms / 1000).toFixed(2)} s`, how, where];
  const facts = styleText("dim", parts.filter(Boolean).join("  "));
  const columns = process.stdout.isTTY ? process.stdout.columns : Number.POSITIVE_INFINITY;
  const lines = [`> ${oneLine(call.prompt_preview ?? "")}`, oneLine(call.response_preview ?? "")];
  return [facts, ...lines.filter(Boolean).map((line) => fitLine(line, columns)), ""].join("\n");
}

async function withClient(config: Config, work: (client: ChatClient) => Promise<void>): Promise<number> {
  await using client = new ChatClient(chatAddress(config));
  try {
    await work(client);
    return 0;
  } catch (error) {
    if (error instanceof ChatClientError) return fail([oneLine(error.message)], 1);
    const { code, path } = error as NodeJS.ErrnoException;
    if (path === undefined) throw error;
    return fail([`${path} cannot be written (${code})`], 1);
  }
}
