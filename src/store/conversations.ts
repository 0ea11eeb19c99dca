import { type Client, type Pool, query, transaction } from "./pool.ts";

/** Whose conversation, and which. */
export interface ConversationKey {
  readonly caller: string;
  readonly id: string;
}

export interface Conversation {
  readonly id: string;
  readonly title: string;
  readonly created_at: Date;
  readonly last_used_at: Date;
  /** Questions that were answered. */
  readonly turns: number;
}

/** A question of a conversation and its answer. */
export interface Turn {
  /** Its interaction. */
  readonly id: string;
  readonly answered_at: Date;
  readonly model: string;
  readonly question: string;
  readonly answer: string;
}

/** The place of a turn: turns stand in the order in which they were answered. */
export type TurnPlace = Pick<Turn, "id" | "answered_at">;

/** What stands for the oldest turns of a conversation. */
export interface Summary {
  readonly text: string;
  /** The last turn in it. */
  readonly until: TurnPlace;
  /** How many turns are in it. */
  readonly turns: number;
}

/** Notes that a conversation is used, and begins it where there is none. Gives its summary, if it has one. */
export async function useConversation(
  pool: Pool,
  { caller, id, title, at }: ConversationKey & { readonly title: string; readonly at: Date },
): Promise<Summary | undefined> {
  const { rows } = await query<{
    summary: string | null;
    summary_until_at: Date;
    summary_until_id: string;
    summary_turns: number;
  }>(
    pool,
    `insert into conversations as c (caller, id, title, created_at, last_used_at)
     values ($1, $2, $3, $4, $4)
     on conflict (caller, id) where station_id is null
       do update set last_used_at = greatest(c.last_used_at, excluded.last_used_at)
     returning summary, summary_until_at, summary_until_id, summary_turns`,
    [caller, id, title, at],
  );
  const [row] = rows;
  if (!row || row.summary === null) return undefined;
  const until = { answered_at: row.summary_until_at, id: row.summary_until_id };
  return { text: row.summary, until, turns: row.summary_turns };
}

/** What a summary was made of. */
export interface SummedUp {
  readonly before: Summary | undefined;
  /** Their interactions. */
  readonly turnIds: readonly string[];
}

/** Keeps a summary, unless another one was kept or any of what it was made of was deleted meanwhile. */
export async function keepSummary(
  pool: Pool,
  { caller, id }: ConversationKey,
  { text, until, turns }: Summary,
  { before, turnIds }: SummedUp,
): Promise<void> {
  await transaction(pool, async (client) => {
    // Locked before the turns are counted: a deletion that is not seen then comes to this row afterwards.
    const { rowCount } = await query(
      client,
      `select from conversations
       where caller = $1 and id = $2 and station_id is null and summary is not distinct from $3
       for update`,
      [caller, id, before?.text ?? null],
    );
    if (!rowCount) return;
    await query(
      client,
      `update conversations
       set summary = $3, summary_until_at = $4, summary_until_id = $5, summary_turns = $6
       where caller = $1 and id = $2 and station_id is null
         and (select count(*) from interactions where id = any($7::uuid[])) = cardinality($7::uuid[])`,
      [caller, id, text, until.answered_at, until.id, turns, turnIds],
    );
  });
}

/**
 * In the transaction that deleted interactions of these sessions, the oldest of each from `since`: removes conversations
 * that have no turn left, and of the others what was made of the deleted words.
 */
export async function forgetTurns(
  client: Client,
  sessions: readonly (ConversationKey & { readonly since: Date })[],
): Promise<void> {
  if (sessions.length === 0) return;
  const values = [
    sessions.map(({ caller }) => caller),
    sessions.map(({ id }) => id),
    sessions.map(({ since }) => since),
  ];
  await query(
    client,
    `delete from conversations c
     using unnest($1::text[], $2::text[], $3::timestamptz[]) as s (caller, id, since)
     where c.caller = s.caller and c.id = s.id and c.station_id is null and not exists (
       select from interactions i where ${isTurnOf}
     )`,
    values,
  );
  await query(
    client,
    // The title is of the first question. Where that was asked at the same time as others, nobody knows which it was.
    `update conversations c
     set summary = null, summary_until_at = null, summary_until_id = null, summary_turns = 0,
       title = case when exists (
         select from interactions i
         where i.session_id = c.id and i.caller = c.caller and i.station_id is null and i.route = '/chat'
           and i.created_at + i.processing_time_ms * interval '1 millisecond' < s.since
       ) then c.title else c.id end
     from unnest($1::text[], $2::text[], $3::timestamptz[]) as s (caller, id, since)
     where c.caller = s.caller and c.id = s.id and c.station_id is null`,
    values,
  );
}

/** Milliseconds, which is what a `Date` holds: what comes back as a cursor then is what was given out. */
const answeredAt = "date_trunc('milliseconds', created_at + processing_time_ms * interval '1 millisecond')";
/** Made here: another station's caller of that name may be somebody else. */
const isTurn =
  "session_id = $2 and caller = $1 and station_id is null and route = '/chat' and outcome = 'ok' and response <> ''";
/** The same of an interaction `i` and a conversation `c`. */
const isTurnOf =
  "i.session_id = c.id and i.caller = c.caller and i.station_id is null and i.route = '/chat' and i.outcome = 'ok' and i.response <> ''";

/**
 * The newest turns after a place, oldest first: at most `turnsMax`, and no more than have `charsMax`
 * characters. `total` counts all turns of the conversation.
 */
export async function newestTurns(
  pool: Pool,
  { caller, id }: ConversationKey,
  bounds: { readonly after: TurnPlace | undefined; readonly turnsMax: number; readonly charsMax: number },
): Promise<{ turns: Turn[]; total: number }> {
  const { rows } = await query<{
    turns: (Omit<Turn, "answered_at"> & { answered_at: string })[];
    total: number;
  }>(
    pool,
    // The texts of a long conversation are read only of those turns that are within the bounds.
    `with newest as (
       select id, ${answeredAt} as answered_at, model, prompt, response
       from interactions
       where ${isTurn} and ($3::timestamptz is null or (${answeredAt}, id) > ($3, $4::uuid))
       order by answered_at desc, id desc
       limit $5
     ), measured as (
       select id, answered_at, model, question, response as answer,
         sum(length(question) + length(response)) over (order by answered_at desc, id desc) as chars
       from newest, lateral (select prompt -> -1 ->> 'content' as question) said
       where question is not null
     )
     select
       (select count(*)::int from interactions where ${isTurn}) as total,
       coalesce(json_agg(json_build_object(
         'id', id, 'answered_at', answered_at, 'model', model, 'question', question, 'answer', answer
       ) order by answered_at, id) filter (where chars <= $6), '[]') as turns
     from measured`,
    [
      caller,
      id,
      bounds.after?.answered_at ?? null,
      bounds.after?.id ?? null,
      bounds.turnsMax,
      bounds.charsMax,
    ],
  );
  const { turns = [], total = 0 } = rows[0] ?? {};
  return { turns: turns.map((turn) => ({ ...turn, answered_at: new Date(turn.answered_at) })), total };
}

/** Turns of a conversation in their order, those after a place. */
export async function listTurns(
  pool: Pool,
  { caller, id }: ConversationKey,
  { after, limit }: { readonly after: TurnPlace | undefined; readonly limit: number },
): Promise<Turn[]> {
  const { rows } = await query<Turn>(
    pool,
    `select id, ${answeredAt} as answered_at, model, coalesce(prompt -> -1 ->> 'content', '') as question,
       response as answer
     from interactions
     where ${isTurn} and ($3::timestamptz is null or (${answeredAt}, id) > ($3, $4::uuid))
     order by answered_at, id
     limit $5`,
    [caller, id, after?.answered_at ?? null, after?.id ?? null, limit],
  );
  return rows;
}

const conversation = `id, title, created_at, last_used_at, (
    select count(*)::int from interactions i where ${isTurnOf}
  ) as turns`;

/** A caller's conversations, the one last used first; those after a place. */
export async function listConversations(
  pool: Pool,
  caller: string,
  bounds: { readonly after?: Pick<Conversation, "id" | "last_used_at"> | undefined; readonly limit: number },
): Promise<Conversation[]> {
  const { rows } = await query<Conversation>(
    pool,
    `select ${conversation}
     from conversations c
     where caller = $1 and station_id is null and ($2::timestamptz is null or (last_used_at, id) < ($2, $3))
     order by last_used_at desc, id desc
     limit $4`,
    [caller, bounds.after?.last_used_at ?? null, bounds.after?.id ?? null, bounds.limit],
  );
  return rows;
}

export async function findConversation(
  pool: Pool,
  { caller, id }: ConversationKey,
): Promise<(Conversation & { readonly summary: string | null }) | undefined> {
  const { rows } = await query<Conversation & { summary: string | null }>(
    pool,
    `select ${conversation}, summary from conversations c where caller = $1 and id = $2 and station_id is null`,
    [caller, id],
  );
  return rows[0];
}

/** Removes conversations that nobody has used since then. */
export async function deleteConversationsBefore(pool: Pool, at: Date): Promise<void> {
  await query(pool, "delete from conversations where last_used_at < $1 and station_id is null", [at]);
}

/**
 * Removes a conversation and every interaction of its session. Gives how many; `undefined` where there was neither: a
 * question that was under way when its conversation was removed is logged afterwards.
 */
export async function removeConversation(
  pool: Pool,
  { caller, id }: ConversationKey,
): Promise<number | undefined> {
  return transaction(pool, async (client) => {
    // The interactions first, as whoever deletes some of them does: else two could wait for each other.
    const calls = await query(
      client,
      "delete from interactions where caller = $1 and session_id = $2 and station_id is null",
      [caller, id],
    );
    const known = await query(
      client,
      "delete from conversations where caller = $1 and id = $2 and station_id is null",
      [caller, id],
    );
    return calls.rowCount || known.rowCount ? (calls.rowCount ?? 0) : undefined;
  });
}
