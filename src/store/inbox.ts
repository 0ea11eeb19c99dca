import { type Pool, query, transaction } from "./pool.ts";
import { countRowsSent } from "./sync-changes.ts";

/** What somebody left in the project's inbox. */
export interface Delivery {
  readonly id: string;
  readonly device: string;
  /** As it came: not checked. */
  readonly fixes: readonly unknown[];
  /** When it came, by the project's clock, as its server writes times; those set aside by an older version have none. */
  readonly received_at?: string;
}

/** A delivery, or what is left of it, that cannot be stored here, and why. */
export interface Unstorable {
  readonly delivery: Delivery;
  readonly code: string;
  readonly reason: string;
}

/** Which of these were taken before. */
export async function takenOf(pool: Pool, ids: readonly string[]): Promise<Set<string>> {
  const { rows } = await query<{ id: string }>(pool, "select id from sync.inbox_taken where id = any($1)", [
    ids,
  ]);
  return new Set(rows.map(({ id }) => id));
}

/**
 * Notes that deliveries are settled: what they brought is stored, or set aside here with its contents. From then on they
 * are not taken again.
 */
export async function noteTaken(
  pool: Pool,
  ids: readonly string[],
  unstorable: readonly Unstorable[],
): Promise<void> {
  await transaction(pool, async (client) => {
    await client.query(
      "insert into sync.inbox_taken (id) select * from unnest($1::uuid[]) on conflict do nothing",
      [ids],
    );
    await client.query(
      `insert into sync.parked_rows as known (direction, table_name, row_id, row, code, reason)
       select 'inbox', 'inbox', * from unnest($1::uuid[], $2::jsonb[], $3::text[], $4::text[])
       on conflict (direction, table_name, row_id, row_time) do update set
         row = excluded.row, code = excluded.code, reason = excluded.reason,
         attempts = known.attempts + 1, parked_at = now()`,
      [
        unstorable.map(({ delivery }) => delivery.id),
        unstorable.map(({ delivery }) => JSON.stringify(delivery)),
        unstorable.map(({ code }) => code),
        unstorable.map(({ reason }) => reason),
      ],
    );
    const counted = { direction: "inbox", table: "inbox" } as const;
    await countRowsSent(client, [
      { ...counted, outcome: "taken", rows: ids.length },
      { ...counted, outcome: "parked", rows: unstorable.length },
    ]);
  });
}

/** Deliveries that were set aside, the oldest first. */
export async function readUnstorable(pool: Pool, limit: number): Promise<Delivery[]> {
  const { rows } = await query<{ row: Delivery }>(
    pool,
    "select row from sync.parked_rows where direction = 'inbox' order by id limit $1",
    [limit],
  );
  return rows.map(({ row }) => row);
}

/** Forgets that a delivery was set aside: it is stored now. */
export async function forgetUnstorable(pool: Pool, id: string): Promise<void> {
  await query(pool, "delete from sync.parked_rows where direction = 'inbox' and row_id = $1", [id]);
}

/** Forgets what was taken so long ago that the project has forgotten it as well, and so cannot give it again. */
export async function forgetTaken(pool: Pool): Promise<void> {
  await query(pool, "delete from sync.inbox_taken where taken_at < now() - interval '90 days'");
}
