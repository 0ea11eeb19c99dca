import type { PoolClient } from "pg";
import { lockRegistry, registerSubjects } from "./devices.ts";
import { deploymentIdOf } from "./known-ids.ts";
import { type Pool, transaction } from "./pool.ts";

/** The device's fixes between these times, both included, are of that subject. */
export interface DeploymentStatement {
  /** Key of the device. */
  readonly device: string;
  /** Name of the subject; registered where it is new. */
  readonly subject: string;
  readonly species?: string | undefined;
  /** Epoch milliseconds. */
  readonly firstAt: number;
  readonly lastAt: number;
}

/** A stretch of a device's time line: who it was on, from when (epoch milliseconds) until the next stretch. */
interface Stretch {
  readonly subjectId: string;
  readonly from: number;
}

interface Deployment {
  readonly subjectId: string;
  /** Epoch milliseconds; -Infinity and Infinity where open. */
  readonly startedAt: number;
  readonly endedAt: number;
}

/**
 * Settles which subject a device was on, from what is known of its fixes: each subject has the device from its
 * own first fix there until the next one's, the first from ever, the last for good. Says whether anything
 * changed; what is already so stays untouched. The newest statement wins over an older one for the same time.
 * Undefined where there is no such device.
 */
export async function stateDeployment(
  pool: Pool,
  statement: DeploymentStatement,
): Promise<{ readonly changed: boolean } | undefined> {
  return transaction(pool, async (client) => {
    await lockRegistry(client);
    const { rows } = await client.query<{ id: string }>("select id from public.devices where key = $1", [
      statement.device,
    ]);
    const deviceId = rows[0]?.id;
    if (deviceId === undefined) return undefined;
    const { subject: name, species, firstAt, lastAt } = statement;
    const subjectId = (await registerSubjects(client, [{ name, species }])).get(name) as string;
    const old = await readDeployments(client, deviceId);
    const isSo = (d: Deployment) => d.subjectId === subjectId && d.startedAt <= firstAt && lastAt < d.endedAt;
    if (old.some(isSo)) return { changed: false };

    const stretches: Stretch[] = [{ subjectId, from: firstAt }];
    for (const { subjectId: other, startedAt, endedAt } of old) {
      const outside = [
        await stretchBetween(client, deviceId, other, startedAt, Math.min(endedAt, firstAt)),
        await stretchBetween(client, deviceId, other, Math.max(startedAt, lastAt + 1), endedAt),
      ];
      stretches.push(...outside.filter((stretch) => stretch !== undefined));
    }
    const start = Math.min(firstAt, ...old.map(({ startedAt }) => startedAt));
    const end = Math.max(lastAt + 1, ...old.map(({ endedAt }) => endedAt));
    await replaceDeployments(client, deviceId, timeLine(stretches, start, end));
    return { changed: true };
  });
}

/** Stretches in order, neighbours of one subject joined, without gaps from `start` to `end`. */
function timeLine(stretches: readonly Stretch[], start: number, end: number): Deployment[] {
  const ordered = stretches.toSorted((a, b) => a.from - b.from);
  const changes = ordered.filter(({ subjectId }, index) => subjectId !== ordered[index - 1]?.subjectId);
  return changes.map(({ subjectId, from }, index) => ({
    subjectId,
    startedAt: index === 0 ? start : from,
    endedAt: changes[index + 1]?.from ?? end,
  }));
}

/** What a deployment still has evidence for in part of its time: from the first fix in it, or nothing. */
async function stretchBetween(
  client: PoolClient,
  deviceId: string,
  subjectId: string,
  from: number,
  to: number,
): Promise<Stretch | undefined> {
  if (from >= to) return undefined;
  const { rows } = await client.query<{ ms: number }>(
    `select date_part('epoch', time) * 1000 as ms from public.positions
     where device_id = $1 and time >= $2 and time < $3 order by time limit 1`,
    [deviceId, timestampOf(from), timestampOf(to)],
  );
  return rows[0] && { subjectId, from: Math.round(rows[0].ms) };
}

async function readDeployments(client: PoolClient, deviceId: string): Promise<Deployment[]> {
  const { rows } = await client.query<{ subjectId: string; startedAt: number; endedAt: number }>(
    `select subject_id as "subjectId",
       round(extract(epoch from started_at) * 1000)::float8 as "startedAt",
       round(extract(epoch from ended_at) * 1000)::float8 as "endedAt"
     from public.deployments where device_id = $1`,
    [deviceId],
  );
  return rows;
}

/** Those that stay keep their row, and with it the version that an edit has to be newer than. */
async function replaceDeployments(
  client: PoolClient,
  deviceId: string,
  deployments: readonly Deployment[],
): Promise<void> {
  const rows = deployments.map(({ subjectId, startedAt, endedAt }) => {
    const start = timestampOf(startedAt);
    return { id: deploymentIdOf(deviceId, subjectId, start), subjectId, start, end: timestampOf(endedAt) };
  });
  const ids = rows.map(({ id }) => id);
  await client.query("delete from public.deployments where device_id = $1 and id <> all($2::uuid[])", [
    deviceId,
    ids,
  ]);
  await client.query(
    `insert into public.deployments as d (id, device_id, subject_id, started_at, ended_at)
     select id, $1, subject_id, started_at, ended_at
     from unnest($2::uuid[], $3::uuid[], $4::timestamptz[], $5::timestamptz[])
       as given (id, subject_id, started_at, ended_at)
     on conflict (id) do update
       set subject_id = excluded.subject_id, started_at = excluded.started_at, ended_at = excluded.ended_at
       where (d.subject_id, d.started_at, d.ended_at) <> (excluded.subject_id, excluded.started_at, excluded.ended_at)`,
    [
      deviceId,
      ids,
      rows.map(({ subjectId }) => subjectId),
      rows.map(({ start }) => start),
      rows.map(({ end }) => end),
    ],
  );
}

function timestampOf(ms: number): string {
  if (Number.isFinite(ms)) return new Date(ms).toISOString();
  return ms < 0 ? "-infinity" : "infinity";
}
