import { lockRegistry } from "./devices.ts";
import { giveWay, type PulledDeployment } from "./guesses.ts";
import { type Client, type Pool, query, transaction } from "./pool.ts";
import { ensurePartitions, keepLastPositions } from "./pulled-positions.ts";
import { addChange, type Landed, readLanded } from "./sync-changes.ts";
import { foreignKeyViolation, wantBack } from "./sync-parked.ts";
import { authorOf, columnsOf, type MirroredTable, matches, quoted, type RowKey } from "./sync-rows.ts";

/** A row as the project gives it: JSON, by column. */
export type PulledRow = Readonly<Record<string, unknown>>;

/** What the project says of a table: rows as they are there, and keys whose rows are gone, or were made anew and are in both. */
export interface Pulled {
  readonly table: MirroredTable;
  readonly rows: readonly PulledRow[];
  readonly gone: readonly RowKey[];
  /** The feed of changes; or a table, read from end to end, of which the feed tells the rest; or keys that were asked for. */
  readonly source: "feed" | "table" | "keys";
}

/** What came of it, in rows of one table. */
export interface Applied {
  readonly table: string;
  /** Rows that this station did not have so before. */
  readonly stored: number;
  readonly deleted: number;
  /** Set aside in `sync.parked_rows`: this database does not take them. */
  readonly parked: number;
}

export interface ApplyOptions {
  readonly stationId: string;
  /** The project's own id: a row without a station was made there. */
  readonly projectId: string;
  /** What had got into the project before it was asked. */
  readonly landed: Landed;
  /** Runs in the same transaction, once all is applied; what it throws undoes everything. */
  readonly settle?: (client: Client, applied: readonly Applied[]) => Promise<void>;
}

/**
 * Brings what was pulled into the station's own tables, in one transaction, unrecorded by the outbox. Rows that this
 * station made come back as its own. Of an edited row the newer version stays, which the database itself decides; but one
 * that was made anew takes the place of what is here. What this station has deleted and not yet told the project does not
 * come back. A row that the database refuses is tried again after all others, since it may have waited for one of them, and
 * then set aside; one that was deleted, but is referred to here, is kept instead and sent again. Throws `StoreError`
 * `database-away`, and `Overtaken`, after which the project is to be asked again.
 */
export async function applyPulled(
  pool: Pool,
  pulled: readonly Pulled[],
  { settle, ...sides }: ApplyOptions,
): Promise<Applied[]> {
  await ensurePartitions(pool, pulled.flatMap(timesOf));
  return transaction(pool, async (client) => {
    await client.query("set local pugmark.applying = 'on'");
    // Each statement is judged at its own end then, not all of them when it is too late to set a row aside.
    await client.query("set constraints all immediate");
    if (pulled.some(({ table }) => table.isEdited)) await lockRegistry(client);
    const { steps, withheld } = await stepsOf(client, pulled, sides);
    await run(steps, client);
    for (const one of pulled) await letGo(client, one, withheld);
    for (const step of steps) await keepReferred(client, step);
    for (const step of steps) await park(client, step);
    const applied = pulled.map(({ table }) => outcomeOf(table.name, steps));
    await settle?.(client, applied);
    return applied;
  });
}

function timesOf({ table, rows }: Pulled): string[] {
  return table.name === "positions" ? rows.map((row) => String(row.time)) : [];
}

type Sides = Omit<ApplyOptions, "settle">;

/** What this station has sent meanwhile, the project's answer does not know: it may say of it that it is gone, or there. */
export class Overtaken extends Error {}

/** Rows of one table that are all to be stored, or all to be deleted. */
interface Step {
  readonly table: MirroredTable;
  readonly isDelete: boolean;
  readonly items: readonly Item[];
  /** Gives how many rows it changed. */
  readonly run: (items: readonly Item[]) => Promise<number>;
  changed: number;
  refused: Refusal[];
}

interface Item {
  readonly key: RowKey;
  /** Absent where it is to be deleted. */
  readonly row?: PulledRow;
}

interface Refusal {
  readonly item: Item;
  readonly code: string;
  readonly reason: string;
}

/** Deletions first, children before parents, so that what comes next finds its place free; then parents before children. */
async function stepsOf(
  client: Client,
  pulled: readonly Pulled[],
  sides: Sides,
): Promise<{ readonly steps: Step[]; readonly withheld: ReadonlySet<PulledRow> }> {
  const parentsFirst = pulled.toSorted((a, b) => a.table.rank - b.table.rank);
  const steps: Step[] = [];
  const withheld = new Set<PulledRow>();
  const add = (table: MirroredTable, isDelete: boolean, items: readonly Item[], run: Step["run"]) => {
    if (items.length > 0) steps.push({ table, isDelete, items, run, changed: 0, refused: [] });
  };
  for (const { table, rows, gone } of parentsFirst.toReversed()) {
    // What was deleted twice is one key.
    const byName = new Map(gone.map((key) => [nameOf(key), key]));
    for (const row of rows) byName.delete(nameOf(keyOf(table, row)));
    const keys = await withoutOwnNews(client, table, [...byName.values()], sides.landed);
    add(
      table,
      true,
      keys.map((key) => ({ key })),
      (items) => remove(client, table, items),
    );
  }
  for (const one of parentsFirst) {
    const { table, rows, gone } = one;
    // A statement may meet a row once only; of several the last is the newest.
    const byKey = new Map(rows.map((row) => [nameOf(keyOf(table, row)), row]));
    const items = [...byKey.values()].map((row) => ({ key: keyOf(table, row), row }));
    const known = await withoutOwnDeletes(client, one, items, sides);
    const isKnown = new Set<Item>(known);
    for (const item of items) if (!isKnown.has(item)) withheld.add(item.row);
    const wanted = await withoutRisen(client, one, known, sides);
    const kept = table.name === "deployments" ? await withoutGuesses(client, wanted) : wanted;
    const again = gone.filter((key) => byKey.has(nameOf(key)));
    const replaced = new Set((await withoutOwnNews(client, table, again, sides.landed)).map(nameOf));
    const isAnew = ({ key }: Item) => replaced.has(nameOf(key));
    add(
      table,
      false,
      kept.filter((item) => !isAnew(item)),
      (some) => store(client, table, some, sides),
    );
    add(table, false, kept.filter(isAnew), (some) => replace(client, table, some, sides));
  }
  return { steps, withheld };
}

/** Runs every step, then what was refused again, one by one, as long as that helps. */
async function run(steps: readonly Step[], client: Client): Promise<void> {
  for (const step of steps) await attempt(client, step, step.items);
  let refused = 0;
  let before = Number.POSITIVE_INFINITY;
  for (;;) {
    refused = steps.reduce((sum, step) => sum + step.refused.length, 0);
    if (refused === 0 || refused >= before) return;
    before = refused;
    for (const step of steps) {
      for (const { item } of step.refused.splice(0)) await attempt(client, step, [item]);
    }
  }
}

/** In halves, and halves of them, where the database refuses a row among them. */
async function attempt(client: Client, step: Step, items: readonly Item[]): Promise<void> {
  await client.query("savepoint pulled");
  try {
    step.changed += await step.run(items);
    await client.query("release savepoint pulled");
  } catch (error) {
    const refusal = refusalOf(error);
    if (!refusal) throw error;
    await client.query("rollback to savepoint pulled");
    await client.query("release savepoint pulled");
    const [item] = items;
    if (items.length === 1 && item) {
      step.refused.push({ item, ...refusal });
      return;
    }
    const middle = Math.ceil(items.length / 2);
    await attempt(client, step, items.slice(0, middle));
    await attempt(client, step, items.slice(middle));
  }
}

/** What the database has against a row; undefined where the row is not to blame. */
function refusalOf(error: unknown): Omit<Refusal, "item"> | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  const code = String(error.code);
  return /^(22|23)/.test(code) ? { code, reason: error.message } : undefined;
}

/** Stores rows in the place of what was deleted in the project before they were made: no version of that is newer. */
async function replace(
  client: Client,
  table: MirroredTable,
  items: readonly Item[],
  sides: Sides,
): Promise<number> {
  await client.query("set local pugmark.made_anew = 'on'");
  const stored = await store(client, table, items, sides, takenPlace);
  await client.query("set local pugmark.made_anew = 'off'");
  return stored;
}

async function store(
  client: Client,
  table: MirroredTable,
  items: readonly Item[],
  { stationId, projectId }: Sides,
  wins = table.isEdited ? newVersion : sameFact,
): Promise<number> {
  const rows = items.map(({ row }) => row ?? {});
  // A project that is older or newer than this station has other columns.
  const columns = table.columns.filter((column) => column in (rows[0] ?? {}));
  const name = `public.${quoted(table.name)}`;
  const values = columns.map((column) => {
    const value = `pulled.${quoted(column)}`;
    return column === "station_id" || column === "changed_by"
      ? `nullif(coalesce(${value}, $3::uuid), $2::uuid)`
      : value;
  });
  const key = table.key.map((column) => quoted(column as string)).join(", ");
  const stored = await query(
    client,
    `insert into ${name} as mine (${columns.map(quoted).join(", ")})
     select ${values.join(", ")} from jsonb_populate_recordset(null::${name}, $1) as pulled
     order by ${key}
     on conflict (${key}) do update set ${wins(table, columns)}`,
    [JSON.stringify(rows), stationId, projectId],
  );
  if (table.name === "positions")
    await keepLastPositions(
      client,
      items.map(({ key: { id } }) => id),
    );
  return stored.rowCount ?? 0;
}

/** What is its own on both sides, this station knows best: the project may have less of it. */
function takenPlace(table: MirroredTable, columns: readonly string[]): string {
  const author = authorOf(table);
  return `${newVersion(table, columns)} where mine.${author} is not null or excluded.${author} is not null`;
}

/** The table's trigger compares the versions, and leaves the row as it is where its own is the newer one. */
function newVersion(_table: MirroredTable, columns: readonly string[]): string {
  return columns.map((column) => `${quoted(column)} = excluded.${quoted(column)}`).join(", ");
}

/**
 * What both this station and another one were told is the other's where that came to the project first. Where the two
 * differ in anything else, as they do when the project has a coarser one, what is here stays; but what is another
 * station's is what the project says now: it may have been deleted, and told anew.
 */
function sameFact(table: MirroredTable, columns: readonly string[]): string {
  const credit = ["station_id", "received_at"].filter((column) => table.columns.includes(column));
  const rest = (row: string) => `to_jsonb(${row}) - '{${credit.join(",")}}'::text[]`;
  const isCredited = `mine.station_id is null and ${rest("mine")} = ${rest("excluded")}`;
  const isRetold = "mine.station_id is not null and to_jsonb(mine) <> to_jsonb(excluded)";
  return `${newVersion(table, columns)} where excluded.station_id is not null and (${isCredited} or ${isRetold})`;
}

async function remove(client: Client, table: MirroredTable, items: readonly Item[]): Promise<number> {
  const keys = items.map(({ key }) => key);
  const removed = await query(
    client,
    `delete from public.${quoted(table.name)} t
     using unnest($1::uuid[], $2::timestamptz[]) as wanted (id, "time") where ${matches(table)}`,
    columnsOf(keys),
  );
  if (table.name === "positions")
    await keepLastPositions(
      client,
      keys.map(({ id }) => id),
    );
  return removed.rowCount ?? 0;
}

/**
 * Those of the rows that this station has not deleted without the project's knowing. Of one that it made anew since, the
 * newer version stays; of what has none, its own goes to the project after the deletion. The project is asked for the others
 * again: it may know of the deletion, and have the row anew since.
 */
async function withoutOwnDeletes(
  client: Client,
  { table, source }: Pulled,
  items: readonly Item[],
  { landed }: Sides,
): Promise<Item[]> {
  if (items.length === 0) return [];
  const waiting = await waitingIn(
    client,
    table,
    items.map(({ key }) => key),
    true,
  );
  await assertNothingLanded(client, `${table.name} deleted`, landed);
  if (waiting.size === 0) return [...items];
  const there = table.isEdited
    ? await present(
        client,
        table,
        items.map(({ key }) => key),
      )
    : new Set();
  const isDeleted = (_: Item, index: number) => waiting.has(index) && !there.has(index);
  const reason = "deleted here: the project is asked again once it knows";
  const refusals = items
    .filter(isDeleted)
    .map(({ key }) => ({ table: table.name, key, isDeleted: false, code: "", reason }));
  if (source !== "table") await wantBack(client, refusals);
  return items.filter((item, index) => !isDeleted(item, index));
}

/**
 * Those of the rows that this station has not deleted with the project's knowing. Of what it made itself it alone says
 * that there is one again; another station that sends everything may have brought it back, and it is deleted again.
 */
async function withoutRisen(
  client: Client,
  { table, gone, source }: Pulled,
  items: readonly Item[],
  { stationId }: Sides,
): Promise<readonly Item[]> {
  const deleted = new Set(source === "feed" ? gone.map(nameOf) : []);
  const own = items.filter(
    ({ key, row }) => deleted.has(nameOf(key)) && row?.[authorOf(table)] === stationId,
  );
  const there = await present(
    client,
    table,
    own.map(({ key }) => key),
  );
  const risen = new Set(own.filter((_, index) => !there.has(index)));
  await addChange(client, table, { isDeleted: true, keys: [...risen].map(({ key }) => key) });
  return items.filter((item) => !risen.has(item));
}

async function withoutGuesses(client: Client, items: readonly Item[]): Promise<Item[]> {
  const beaten = await giveWay(
    client,
    items.map(({ row }) => row as unknown as PulledDeployment),
  );
  return items.filter(({ key: { id } }) => !beaten.has(id));
}

/**
 * Those of the keys that have a row here, without those that this station changed without the project's knowing. These are
 * sent once more: they may be in the project already, and have been deleted after that.
 */
async function withoutOwnNews(
  client: Client,
  table: MirroredTable,
  keys: readonly RowKey[],
  landed: Landed,
): Promise<RowKey[]> {
  const there = await present(client, table, keys);
  const known = keys.filter((_, index) => there.has(index));
  if (known.length === 0) return [];
  const waiting = await waitingIn(client, table, known, false);
  await assertNothingLanded(client, `${table.name} sent`, landed);
  if (waiting.size === 0) return known;
  const own = await present(client, table, known, `t.${authorOf(table)} is null`);
  const isNews = (_: RowKey, index: number) => waiting.has(index) && own.has(index);
  await addChange(client, table, { isDeleted: false, keys: known.filter(isNews) });
  return known.filter((key, index) => !isNews(key, index));
}

/** After the look at what waits: what has left the outbox since the project was asked had left it by then. */
async function assertNothingLanded(client: Client, what: string, landed: Landed): Promise<void> {
  if ((await readLanded(client)).get(what) !== landed.get(what)) throw new Overtaken(`${what} meanwhile`);
}

/** The places in the list of those keys that there is a row of, and one for which that holds. */
async function present(
  client: Client,
  table: MirroredTable,
  keys: readonly RowKey[],
  holds = "true",
): Promise<Set<number>> {
  if (keys.length === 0) return new Set();
  const { rows } = await query<{ ordinal: number }>(
    client,
    `select ordinal::int as ordinal
     from unnest($1::uuid[], $2::timestamptz[]) with ordinality as wanted (id, "time", ordinal)
     where exists (select from public.${quoted(table.name)} t where ${matches(table)} and ${holds})`,
    columnsOf(keys),
  );
  return new Set(rows.map(({ ordinal }) => ordinal - 1));
}

/** The places in the list of those keys that the outbox has a change of: a deletion, or anything else. */
async function waitingIn(
  client: Client,
  table: MirroredTable,
  keys: readonly RowKey[],
  isDeleted: boolean,
): Promise<Set<number>> {
  if (keys.length === 0) return new Set();
  const { rows } = await query<{ ordinal: number }>(
    client,
    `select distinct ordinal::int as ordinal
     from unnest($1::uuid[], $2::timestamptz[]) with ordinality as wanted (id, "time", ordinal)
     join (
       select key.id, key."time"
       from sync.changes c, unnest(c.ids, c.times) as key (id, "time")
       where c.table_name = $3 and c.is_deleted = $4
     ) as waiting
       on waiting.id = wanted.id
       and coalesce(waiting."time", '-infinity') = coalesce(wanted."time", '-infinity')`,
    [...columnsOf(keys), table.name, isDeleted],
  );
  return new Set(rows.map(({ ordinal }) => ordinal - 1));
}

/** The key in a row's JSON. */
export function keyOf({ key: [id, time] }: MirroredTable, row: PulledRow): RowKey {
  return { id: String(row[id]), time: time === undefined ? null : String(row[time]) };
}

/** The same for the same key: of a time there is PostgREST's text and Postgres' own, both in UTC. */
function nameOf({ id, time }: RowKey): string {
  return `${id} ${time?.replace("T", " ").replace(/\+00(:00)?$/, "")}`;
}

function outcomeOf(table: string, steps: readonly Step[]): Applied {
  const own = steps.filter((step) => step.table.name === table);
  const changed = (isDelete: boolean) =>
    own.filter((step) => step.isDelete === isDelete).reduce((sum, step) => sum + step.changed, 0);
  const parked = own.reduce((sum, step) => sum + step.refused.length, 0);
  return { table, stored: changed(false), deleted: changed(true), parked };
}

/**
 * Forgets that rows were set aside: what the project says of them now is newer, but of those that own deletions kept away.
 * Nor does it refuse any longer what is on neither side.
 */
async function letGo(
  client: Client,
  { table, rows, gone }: Pulled,
  withheld: ReadonlySet<PulledRow>,
): Promise<void> {
  const kept = new Set(rows.filter((row) => withheld.has(row)).map((row) => nameOf(keyOf(table, row))));
  const keys = [...rows.map((row) => keyOf(table, row)), ...gone].filter((key) => !kept.has(nameOf(key)));
  await query(
    client,
    `delete from sync.parked_rows parked using unnest($1::uuid[], $2::timestamptz[]) as wanted (id, "time")
     where table_name = $3 and row_id = wanted.id and row_time is not distinct from wanted."time"
       and (
         direction = 'pull'
         or row_id <> all($4) and not exists (select from public.${quoted(table.name)} t where ${matches(table)})
       )`,
    [...columnsOf(keys), table.name, rows.map((row) => keyOf(table, row).id)],
  );
}

/** What was deleted in the project, and is referred to here, is an edit of this station's: it goes there again. */
async function keepReferred(client: Client, step: Step): Promise<void> {
  const { table } = step;
  const isReferred = ({ code }: Refusal) => code === foreignKeyViolation;
  const keys = step.refused.filter(isReferred).map(({ item }) => item.key);
  if (!step.isDelete || !table.isEdited || keys.length === 0) return;
  await client.query("set local pugmark.applying = 'off'");
  const kept = await query(
    client,
    `update public.${quoted(table.name)} t set ${quoted(table.key[0])} = t.${quoted(table.key[0])}
     from unnest($1::uuid[], $2::timestamptz[]) as wanted (id, "time")
     where ${matches(table)} and exists (select from sync.mirrored_tables where table_name = $3 and is_recorded)`,
    [...columnsOf(keys), table.name],
  );
  await client.query("set local pugmark.applying = 'on'");
  // What is not sent from here can only be set aside.
  if (kept.rowCount === 0) return;
  step.refused = step.refused.filter((refusal) => !isReferred(refusal));
}

async function park(client: Client, { table, isDelete, refused }: Step): Promise<void> {
  if (refused.length === 0) return;
  await query(
    client,
    `insert into sync.parked_rows (direction, table_name, row_id, row_time, is_deleted, row, code, reason)
     select 'pull', $3, id, "time", $4, row, code, reason
     from unnest($1::uuid[], $2::timestamptz[], $5::jsonb[], $6::text[], $7::text[])
       as refused (id, "time", row, code, reason)`,
    [
      ...columnsOf(refused.map(({ item }) => item.key)),
      table.name,
      isDelete,
      refused.map(({ item }) => (item.row ? JSON.stringify(item.row) : null)),
      refused.map(({ code }) => code),
      refused.map(({ reason }) => reason),
    ],
  );
}
