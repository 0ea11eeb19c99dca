import type { Fix } from "../tracking/fix.ts";
import { type Pool, query } from "./pool.ts";

/** The time that is asked for, epoch milliseconds: `from` and later, before `to`. */
export interface TimeRange {
  readonly from?: number | undefined;
  readonly to?: number | undefined;
}

/** A fix as it is stored, with what continues a reading after it. */
export interface StoredFix extends Fix {
  readonly deviceId: string;
}

/** Where a reading goes on: after this fix. */
export interface TrackCursor {
  /** Epoch milliseconds. */
  readonly time: number;
  readonly deviceId: string;
}

export interface TrackQuery extends TimeRange {
  /** Outliers too. Default false. */
  readonly includeOutliers?: boolean | undefined;
  readonly after?: TrackCursor | undefined;
  /** Fixes at most. */
  readonly limit: number;
}

/** The last known position of a subject. */
export interface LatestPosition {
  readonly subjectId: string;
  readonly subject: string;
  readonly species: string | null;
  /** Null where no fix of the subject counts. */
  readonly fix: Fix | null;
}

/** Fixes of one device in order of time. */
export async function readDeviceTrack(pool: Pool, deviceId: string, track: TrackQuery): Promise<StoredFix[]> {
  const { rows } = await query<FixRow>(pool, {
    ...array,
    text: deviceTrack,
    values: values(deviceId, track),
  });
  return rows.map(fixOf);
}

/** Fixes of one subject, over all its deployments, in order of time and then of device. */
export async function readSubjectTrack(
  pool: Pool,
  subjectId: string,
  track: TrackQuery,
): Promise<StoredFix[]> {
  const { rows } = await query<FixRow>(pool, {
    ...array,
    text: subjectTrack,
    values: values(subjectId, track),
  });
  return rows.map(fixOf);
}

/**
 * A subject's whole track, page by page. Each page is a statement of its own, so that a slow reader holds no
 * connection and no lock; what is stored meanwhile may show in later pages.
 */
export async function* subjectTrackPages(
  pool: Pool,
  subjectId: string,
  track: Omit<TrackQuery, "limit" | "after">,
  pageSize = 5_000,
): AsyncGenerator<StoredFix[]> {
  let after: TrackCursor | undefined;
  for (;;) {
    const page = await readSubjectTrack(pool, subjectId, { ...track, after, limit: pageSize });
    if (page.length > 0) yield page;
    if (page.length < pageSize) return;
    after = page.at(-1);
  }
}

/**
 * Hands a subject's track, outliers included, to `meter` (a `TrackMeter` of tracking, which leaves them out
 * and counts them unless told otherwise).
 */
export async function measureTrack(
  pool: Pool,
  subjectId: string,
  range: TimeRange,
  meter: { add(fix: Fix): void },
): Promise<void> {
  for await (const page of subjectTrackPages(pool, subjectId, { ...range, includeOutliers: true })) {
    for (const fix of page) meter.add(fix);
  }
}

/**
 * The last position of each subject, in order of name, those after the name `after` only, `limit` subjects at
 * most. The last is the one of the newest time, whenever it arrived; times more than ten minutes in the future
 * do not count, nor do outliers unless asked for.
 */
export async function latestPositions(
  pool: Pool,
  page: {
    readonly limit: number;
    readonly after?: string | undefined;
    readonly includeOutliers?: boolean | undefined;
    /** Of this subject only. */
    readonly subjectId?: string | undefined;
  },
): Promise<LatestPosition[]> {
  const { rows } = await query<[...FixRow, string, string, string | null]>(pool, {
    ...array,
    text: latest,
    values: [page.after ?? null, page.limit, page.includeOutliers ?? false, page.subjectId ?? null],
  });
  return rows.map((row) => ({
    subjectId: row[14],
    subject: row[15],
    species: row[16],
    fix: row[1] === null ? null : fixOf(row as unknown as FixRow),
  }));
}

/** Rows as arrays: objects made by the driver are what reading a track costs most. */
const array = { rowMode: "array" } as unknown as { readonly text: string };

type Optional<T> = T | null;
type FixRow = [
  key: string,
  ms: number,
  lat: number,
  lon: number,
  altitudeM: Optional<number>,
  accuracyM: Optional<number>,
  speedMps: Optional<number>,
  headingDeg: Optional<number>,
  battery: Optional<number>,
  outlier: Optional<string>,
  segment: Optional<string>,
  attributes: Optional<string>,
  deviceId: string,
  spare: null,
];

const columns = `v.key, date_part('epoch', p.time) * 1000, p.lat, p.lon, p.altitude_m, p.accuracy_m,
  p.speed_mps, p.heading_deg, p.battery, p.outlier, p.segment, p.attributes::text, p.device_id, null::text`;

function fixOf(row: FixRow): StoredFix {
  return {
    device: row[0],
    time: Math.round(row[1]),
    lat: row[2],
    lon: row[3],
    altitudeM: row[4] ?? undefined,
    accuracyM: row[5] ?? undefined,
    speedMps: row[6] ?? undefined,
    headingDeg: row[7] ?? undefined,
    battery: row[8] ?? undefined,
    outlier: row[9] ?? undefined,
    segment: row[10] ?? undefined,
    attributesJson: row[11] ?? undefined,
    deviceId: row[12],
  };
}

const firstDevice = "00000000-0000-0000-0000-000000000000";

function values(id: string, { from, to, includeOutliers, after, limit }: TrackQuery): unknown[] {
  return [
    id,
    from === undefined ? "-infinity" : new Date(from).toISOString(),
    to === undefined ? "infinity" : new Date(to).toISOString(),
    includeOutliers ?? false,
    after === undefined ? "-infinity" : new Date(after.time).toISOString(),
    after?.deviceId ?? firstDevice,
    limit,
  ];
}

/** What both tracks ask of a position; the first bound of the cursor is there for the index. */
const wanted = `
  p.time >= $5 and (p.time, p.device_id) > ($5::timestamptz, $6::uuid) and ($4::boolean or p.outlier is null)`;

const deviceTrack = `
  select ${columns}
  from public.positions p join public.devices v on v.id = p.device_id
  where p.device_id = $1::uuid and p.time >= $2::timestamptz and p.time < $3::timestamptz and ${wanted}
  order by p.time limit $7::int`;

const subjectTrack = `
  select ${columns}
  from public.deployments d
  join public.devices v on v.id = d.device_id
  cross join lateral (
    select * from public.positions p
    where p.device_id = d.device_id and p.time >= greatest(d.started_at, $2::timestamptz)
      and p.time < least(d.ended_at, $3::timestamptz) and ${wanted}
    order by p.time limit $7::int
  ) p
  where d.subject_id = $1::uuid
  order by p.time, p.device_id limit $7::int`;

/**
 * The device's own last position serves where it falls into the deployment; else (the device has moved on to
 * another subject, or outliers count too) the newest within the deployment is looked up in the index.
 */
const latest = `
  select ${columns}, s.id, s.name, s.species
  from (
    select * from public.subjects
    where ($1::text is null or name > $1) and ($4::uuid is null or id = $4)
    order by name limit $2::int
  ) s
  left join lateral (
    select d.device_id, case
        when not $3::boolean and l.time >= d.started_at and l.time < d.ended_at then l.time
        else (
          select p.time from public.positions p
          where p.device_id = d.device_id and p.time >= d.started_at
            and p.time < least(d.ended_at, now() + interval '10 minutes') and ($3::boolean or p.outlier is null)
          order by p.time desc limit 1
        )
      end as time
    from public.deployments d left join public.last_positions l on l.device_id = d.device_id
    where d.subject_id = s.id
    order by time desc nulls last limit 1
  ) x on true
  left join lateral (
    select * from public.positions p where p.device_id = x.device_id and p.time = x.time limit 1
  ) p on true
  left join public.devices v on v.id = p.device_id
  order by s.name`;
