import { guessesEnd } from "./guesses.ts";
import { type Pool, query, transaction } from "./pool.ts";

/** The key of a row. Times are text, since a `Date` would lose microseconds. */
export interface RowKey {
  readonly id: string;
  /** RFC 3339 UTC. Null where the table's rows are known by an id alone. */
  readonly time: string | null;
}

/** What a table's rows are known by, in the names of its columns. */
export type KeyColumns = readonly [id: string, time?: string];

/** A table that the mirror knows, as this database has it. */
export interface MirroredTable {
  readonly name: string;
  /** Parents have a lower one than what refers to them. */
  readonly rank: number;
  /** Its rows change, and carry the time and the station of their last change. */
  readonly isEdited: boolean;
  readonly key: KeyColumns;
  readonly columns: readonly string[];
  /** Mirrored tables that its rows refer to. */
  readonly parents: readonly string[];
}

/** A row as it goes over: its key, and the whole of it as JSON text, or null where there was no more room. */
export interface SentRow {
  readonly key: RowKey;
  /** Whether it is as this station made or changed it last; else it came from the project so. */
  readonly isOwn: boolean;
  readonly json: string | null;
}

/** Every table that a migration has let join the mirror, parents first. */
export async function readMirroredTables(pool: Pool): Promise<MirroredTable[]> {
  const { rows } = await query<MirroredTable>(
    pool,
    `select table_name as name, rank, is_edited as "isEdited", key_columns as key,
       array(
         select attname::text from pg_attribute
         where attrelid = relation and attnum > 0 and not attisdropped and attgenerated = '' order by attnum
       ) as columns,
       array(
         select parent.table_name from pg_constraint
         join sync.mirrored_tables parent on to_regclass('public.' || quote_ident(parent.table_name)) = confrelid
         where conrelid = relation and contype = 'f' and confrelid <> relation
       ) as parents
     from sync.mirrored_tables, to_regclass('public.' || quote_ident(table_name)) as relation
     order by rank, table_name`,
  );
  return rows;
}

/**
 * The rows of these keys as they are now, in the keys' order, without those that there are not; each names its station,
 * which for one made here is `station`. Beyond `bytesMax` in all, but for the first, a row comes without its text.
 */
export async function readRows(
  pool: Pool,
  table: MirroredTable,
  keys: readonly RowKey[],
  { station, bytesMax }: { readonly station: string; readonly bytesMax: number },
): Promise<SentRow[]> {
  const columns = table.columns.map((column) => {
    const name = quoted(column);
    return column === "station_id" || column === "changed_by"
      ? `coalesce(t.${name}, $3::uuid) as ${name}`
      : `t.${name}`;
  });
  const { rows } = await query<{ ordinal: number; isOwn: boolean; json: string | null }>(
    pool,
    `with found as materialized (
       select ordinal, r.${authorOf(table)} = $3::uuid as is_own, row_to_json(r)::text as json
       from unnest($1::uuid[], $2::timestamptz[]) with ordinality as wanted (id, "time", ordinal)
       join lateral (select ${columns.join(", ")} from public.${quoted(table.name)} t where ${matches(table)}) r on true
     )
     select ordinal::int as ordinal, is_own as "isOwn",
       case when sum(octet_length(json)) over so_far <= $4 or row_number() over so_far = 1 then json end as json
     from found window so_far as (order by ordinal rows unbounded preceding) order by ordinal`,
    [...columnsOf(keys), station, bytesMax],
  );
  return rows.map(({ ordinal, ...row }) => ({ key: keys[ordinal - 1] as RowKey, ...row }));
}

/** The column that says which station a row is as it is of; null: this one. */
export function authorOf({ isEdited }: MirroredTable): string {
  return isEdited ? "changed_by" : "station_id";
}

/**
 * Of keys of an edited table, which were deleted: those that there is no row of, or that a report has registered anew. Of
 * that, being older than whatever anybody said, the project would keep what it has.
 */
export async function keysToDelete(
  pool: Pool,
  table: MirroredTable,
  keys: readonly RowKey[],
): Promise<RowKey[]> {
  const { rows } = await query<{ ordinal: number }>(
    pool,
    `select ordinal::int as ordinal
     from unnest($1::uuid[], $2::timestamptz[]) with ordinality as wanted (id, "time", ordinal)
     where not exists (select from public.${quoted(table.name)} t where ${matches(table)} and changed_at >= $3)`,
    [...columnsOf(keys), guessesEnd],
  );
  return rows.map(({ ordinal }) => keys[ordinal - 1] as RowKey);
}

/** The next keys of a table after one, in the order of keys; from the first where `after` is null. */
export async function keysAfter(
  pool: Pool,
  table: MirroredTable,
  after: RowKey | null,
  limit: number,
): Promise<RowKey[]> {
  const [id, time] = table.key.map((column) => quoted(column as string));
  const from = `from public.${quoted(table.name)}`;
  const isLater = time ? `(${id}, ${time}) > ($1::uuid, $2::timestamptz)` : `${id} > $1::uuid`;
  const values = after ? [after.id, ...(time ? [after.time] : [])] : [];
  const { rows } = await query<RowKey>(
    pool,
    `select ${id}::text as id, ${time ? utc(time) : "null"} as time ${from}
     ${after ? `where ${isLater}` : ""} order by ${table.key.map((column) => quoted(column as string)).join(", ")}
     limit ${limit}`,
    values,
  );
  return rows;
}

/** Whether none of these tables has a row. */
export async function areEmpty(pool: Pool, tables: readonly string[]): Promise<boolean> {
  const exist = tables.map((table) => `exists (select from public.${quoted(table)})`);
  const { rows } = await query<{ any: boolean }>(pool, `select ${["false", ...exist].join(" or ")} as any`);
  return rows[0]?.any === false;
}

/** How many rows a table has: counted, since an estimate may be far off. */
export async function countRows(pool: Pool, table: string): Promise<number> {
  const [counted] = await patiently<{ rows: number }>(
    pool,
    `select count(*)::float8 as rows from public.${quoted(table)}`,
  );
  return counted?.rows ?? 0;
}

/** What tells whether two databases have the same rows of a table. */
export interface Checksum {
  readonly rows: number;
  readonly checksum: string;
}

/** Of the rows of a table that a station made, or where `madeBy` is null of all. Rows made here are those of `station`. */
export async function tableChecksum(
  pool: Pool,
  table: string,
  { station, madeBy }: { readonly station: string; readonly madeBy: string | null },
): Promise<Checksum> {
  const [sum] = await patiently<Checksum>(
    pool,
    "select row_count::float8 as rows, checksum::text as checksum from sync.checksum($1, $2, $3)",
    [table, station, madeBy],
  );
  return sum ?? { rows: 0, checksum: "" };
}

/** What reads a whole table may take minutes: nobody waits for it but who asked. */
async function patiently<Row extends object>(
  pool: Pool,
  sql: string,
  values: unknown[] = [],
): Promise<Row[]> {
  return await transaction(pool, async (client) => {
    await client.query("set local statement_timeout = 0");
    return (await client.query<Row>(sql, values)).rows;
  });
}

export function columnsOf(keys: readonly RowKey[]): [string[], (string | null)[]] {
  return [keys.map(({ id }) => id), keys.map(({ time }) => time)];
}

export function matches({ key: [id, time] }: MirroredTable): string {
  const sameId = `t.${quoted(id)} = wanted.id`;
  return time === undefined ? sameId : `${sameId} and t.${quoted(time)} = wanted."time"`;
}

function utc(time: string): string {
  return `to_char(${time} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;
}

export function quoted(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`;
}
