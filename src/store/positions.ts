import type { ReportedFix } from "../tracking/fix.ts";
import { DeviceIds } from "./devices.ts";
import { GroupCommit } from "./group-commit.ts";
import { type Pool, query } from "./pool.ts";

export interface Stored {
  /** Fixes that were not there before, or only as another station's coarse copies. */
  readonly accepted: number;
  /** Fixes of a device and time that were there, or came twice. */
  readonly duplicates: number;
}

interface Delivery {
  readonly fixes: readonly ReportedFix[];
  /** Id of each fix's device. */
  readonly deviceIds: readonly string[];
}

const groupMax = 4_000;
const waitingMax = 60_000;
const writers = 2;

/**
 * Takes fixes in. Deliveries that arrive together share one statement and one commit; a fix of a device and
 * time that is stored already changes nothing, whoever sends it and however often.
 */
export class PositionStore {
  readonly #pool: Pool;
  readonly #devices: DeviceIds;
  readonly #group: GroupCommit<Delivery, number>;
  /** Months that surely have a partition, as `YYYY * 12 + month`. */
  readonly #months = new Set<number>();

  constructor(pool: Pool) {
    this.#pool = pool;
    this.#devices = new DeviceIds(pool);
    this.#group = new GroupCommit({
      write: (deliveries) => this.#write(deliveries),
      weigh: ({ fixes }) => fixes.length,
      groupMax,
      waitingMax,
      writers,
    });
  }

  /**
   * Resolves once every one of these fixes is on disk; registers devices that are new. All of them or none.
   * Throws `StoreError` `store-busy` or `database-away`, after which sending all of them again is right.
   */
  async ingest(fixes: readonly ReportedFix[]): Promise<Stored> {
    if (fixes.length === 0) return { accepted: 0, duplicates: 0 };
    const deviceIds = await this.#devices.of(fixes);
    if (fixes.some(({ time }) => !this.#months.has(monthOf(time)))) await this.#ensureMonths(fixes);
    const accepted = await this.#group.submit({ fixes, deviceIds });
    return { accepted, duplicates: fixes.length - accepted };
  }

  async #ensureMonths(fixes: readonly ReportedFix[]): Promise<void> {
    const wanted = new Set(
      fixes.map(({ time }) => monthOf(time)).filter((month) => !this.#months.has(month)),
    );
    for (const month of wanted) {
      const firstDay = new Date(Date.UTC(Math.floor(month / 12), month % 12)).toISOString();
      await query(this.#pool, "select public.ensure_positions_partition($1)", [firstDay]);
      this.#months.add(month);
    }
  }

  async #write(deliveries: readonly Delivery[]): Promise<number[]> {
    const rows = new Rows();
    for (const [index, { fixes, deviceIds }] of deliveries.entries()) {
      for (const [at, fix] of fixes.entries()) rows.add(deviceIds[at] as string, fix, index);
    }
    const { rows: results } = await query<{ inserted: number; ordinals: number[] | null }>(this.#pool, {
      name: "ingest",
      text: insertGroup,
      values: rows.columns(),
    });
    const fresh = results[0]?.ordinals;
    const exacter = fresh ? await this.#improve(rows) : [];
    const owners = rows.owners;
    const accepted = deliveries.map(() => 0);
    const taken = fresh ? [...fresh, ...exacter].map((ordinal) => owners[ordinal - 1] as number) : owners;
    for (const owner of taken) accepted[owner] = (accepted[owner] as number) + 1;
    return accepted;
  }

  /** Of fixes that were there already: a copy that another station let go only coarsely gives way to what is told here. */
  async #improve(rows: Rows): Promise<number[]> {
    const { rows: improved } = await query<{ ordinal: number }>(this.#pool, {
      name: "ingest-exacter",
      text: improveGroup,
      values: rows.columns(),
    });
    return improved.map(({ ordinal }) => ordinal);
  }
}

const given = `
    select * from unnest($1::uuid[], $2::float8[], $3::float8[], $4::float8[], $5::float8[], $6::float8[],
        $7::float8[], $8::float8[], $9::float8[], $10::text[], $11::text[], $12::jsonb[])
      with ordinality as row (device_id, ms, lat, lon, altitude_m, accuracy_m, speed_mps, heading_deg,
        battery, outlier, segment, attributes, ordinal)`;

/**
 * One statement, so that a fix and the last position that follows from it are there together or not at all.
 * Rows go in ordered, or two groups with the same fixes would wait for each other. `ordinals` tells which rows
 * were new, and is null where all were. A fix from the future must not keep later ones from being the last.
 */
const insertGroup = `
  with given as materialized (
${given}
  ), stored as (
    insert into public.positions (device_id, time, lat, lon, altitude_m, accuracy_m, speed_mps, heading_deg,
      battery, outlier, segment, attributes)
    select device_id, to_timestamp(ms / 1000), lat, lon, altitude_m, accuracy_m, speed_mps, heading_deg,
      battery, outlier, segment, attributes
    from given order by device_id, ms
    on conflict (device_id, time) do nothing
    returning device_id, time, outlier
  ), last as (
    insert into public.last_positions (device_id, time)
    select device_id, max(time) from stored
    where outlier is null and time <= now() + interval '10 minutes'
    group by device_id order by device_id
    on conflict (device_id) do update set time = excluded.time where excluded.time > last_positions.time
  )
  select count(*)::int as inserted,
    case when count(*) < cardinality($1::uuid[]) then coalesce((
      select array_agg(given.ordinal::int)
      from given join stored on stored.device_id = given.device_id and stored.time = to_timestamp(given.ms / 1000)
    ), '{}') end as ordinals
  from stored`;

const improveGroup = `
  with given as materialized (
${given}
  ), kept as (
    select p.device_id, p.time, given.ordinal
    from given join public.positions p on p.device_id = given.device_id and p.time = to_timestamp(given.ms / 1000)
    where p.station_id is not null and p.accuracy_m > coalesce(given.accuracy_m, 0)
    order by p.device_id, p.time for update of p
  )
  update public.positions p set lat = given.lat, lon = given.lon, altitude_m = given.altitude_m,
    accuracy_m = given.accuracy_m, speed_mps = given.speed_mps, heading_deg = given.heading_deg,
    battery = given.battery, outlier = given.outlier, segment = given.segment, attributes = given.attributes,
    received_at = now(), station_id = null
  from kept join given using (ordinal)
  where p.device_id = kept.device_id and p.time = kept.time
  returning given.ordinal::int as ordinal`;

/** The rows of a group as columns, in the text form of Postgres' arrays: much cheaper than the driver's own. */
class Rows {
  /** For each row, which delivery brought it first. */
  readonly owners: number[] = [];
  readonly #seen = new Set<string>();
  readonly #columns: (string | number)[][] = Array.from({ length: 12 }, () => []);

  add(deviceId: string, fix: ReportedFix, owner: number): void {
    const key = `${deviceId}${fix.time}`;
    if (this.#seen.has(key)) return;
    this.#seen.add(key);
    this.owners.push(owner);
    const values = [
      deviceId,
      fix.time,
      fix.lat,
      fix.lon,
      fix.altitudeM ?? "null",
      fix.accuracyM ?? "null",
      fix.speedMps ?? "null",
      fix.headingDeg ?? "null",
      fix.battery ?? "null",
      quoted(fix.outlier),
      quoted(fix.segment),
      quoted(fix.attributesJson),
    ];
    for (const [index, value] of values.entries()) this.#columns[index]?.push(value);
  }

  columns(): string[] {
    return this.#columns.map((column) => `{${column.join(",")}}`);
  }
}

function quoted(text: string | undefined): string {
  return text === undefined ? "null" : `"${text.replace(/["\\]/g, "\\$&")}"`;
}

function monthOf(time: number): number {
  const date = new Date(time);
  return date.getUTCFullYear() * 12 + date.getUTCMonth();
}
